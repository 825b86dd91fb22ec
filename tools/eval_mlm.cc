// coca eval mlm: perplexity of masked tokens by window length, for bidirectional models. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/count.h"
#include "coca/eval/mlm.h"

#include <algorithm>

#include "coca/model/windows.h"
#include "coca/report/table.h"
#include "eval_command.h"
#include "ranks.h"
#include "text_documents.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct MlmFlags : ModelFlags {
  TextFlags text;
  std::vector<int64_t> lengths;
  int64_t max_tokens = 0, max_windows = 0, seed = 0, batch_tokens = 8192;
  std::optional<eval::Cut> cut;
  OutputFlags output;

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    text.visit(v);
    v.group("Protocol");
    v("lengths", "tokens of a window, 15 % of them masked; default: the trained length", lengths, Least{2});
    v("max_tokens", "use at most this many tokens of each document; 0: all", max_tokens);
    v("cut", "which tokens: the middle of the document (the default), or its start", cut);
    v("max_windows", "windows of each length, spread evenly over the text; 0: all", max_windows);
    v("seed", "of the choice of tokens", seed);
    v("batch_tokens", "run windows together up to about this many tokens", batch_tokens, Least{1});
    output.visit(v);
  }
};

// The work at each length.
std::vector<Part> parts_of(const MlmFlags& flags, const model::ModelSpec& spec, const Documents& documents) {
  std::vector<Part> parts;
  for (const int64_t length : flags.lengths) {
    int64_t windows = 0;
    for (const auto& ids : documents.ids) windows += static_cast<int64_t>(ids.size()) / std::max<int64_t>(1, length);
    if (flags.max_windows > 0) windows = std::min(windows, flags.max_windows);
    const int64_t tokens = windows * length;
    parts.push_back({.name = fmt::format("length {}", length),
                     .tokens = tokens,
                     .flops = static_cast<double>(tokens) * model::forward_flops_per_token(spec, length),
                     .length = length,
                     .units = tokens});
  }
  return parts;
}

int run_mlm(MlmFlags& flags) {
  COCA_CHECK(!flags.cut || flags.max_tokens > 0,
             "--cut: all tokens of each document are used; add --max-tokens, or leave the option out");
  const LoadedModel m = load_with_flags(flags);
  model::require_masked(m.model.spec, "eval mlm");
  if (flags.lengths.empty()) flags.lengths = {m.model.spec.max_position};
  std::optional<LateProgress> progress;
  std::optional<WorkShare> share;
  const eval::MlmOptions options{.lengths = flags.lengths,
                                 .max_windows = flags.max_windows,
                                 .seed = flags.seed,
                                 .batch_tokens = flags.batch_tokens,
                                 .scaling = m.scaling,
                                 .progress =
                                     [&](int64_t length, int64_t done, int64_t total) {
                                       progress->shown({.total = total, .unit = "tokens", .label = "mlm"})
                                           .update(done, fmt::format("length {}", length), share->at(length, done));
                                     },
                                 .ranks = ranks()};
  const Documents documents = read_documents(
      flags.text, {.max_tokens = flags.max_tokens, .cut = flags.cut.value_or(eval::Cut::kMiddle)}, *m.tokenizer);
  share.emplace(parts_of(flags, m.model.spec, documents));
  Context cx;
  progress.emplace();
  std::vector<eval::MlmResult> results;
  Measurement measurement([&] {
    eval::masked_perplexity(cx, m.model.spec, m.model.params->weights(), documents.ids, m.tokenizer->vocab_size(),
                            options, results);
  });
  progress->finish();
  if (results.empty()) measurement.rethrow();
  if (const eval::MlmResult& last = results.back(); !last.whole())
    measurement.missing.push_back(fmt::format("{} of {} of length {}", grouped(last.planned_windows - last.windows),
                                              counted(last.planned_windows, "window"), last.length));
  for (size_t l = results.size(); l < flags.lengths.size(); ++l)
    measurement.missing.push_back(fmt::format("length {}", flags.lengths[l]));
  report::Table table{
      .title = "", .header = {"length", "windows", "masked tokens", "ppl", "nll"}, .rows = {}, .align = {}};
  ordered_json json = header_json(flags.model, m, result_options(flags));
  measurement.mark(json);
  json["results"] = ordered_json::array();
  for (const eval::MlmResult& r : results) {
    measurement.check(r.perplexity, fmt::format("length {}", r.length));
    table.rows.push_back({fmt::format("{}{}", r.length, r.whole() ? "" : " (partial)"), grouped(r.windows),
                          grouped(r.masked_tokens), report::format_number(r.perplexity), report::format_number(r.nll)});
    json["results"].push_back({{"length", r.length},
                               {"windows", r.windows},
                               {"planned_windows", r.planned_windows},
                               {"masked_tokens", r.masked_tokens},
                               {"perplexity", number_json(r.perplexity)},
                               {"nll", number_json(r.nll)},
                               {"seconds", r.seconds}});
  }
  return measurement.report([&] {
    print_model_line(flags.model, m);
    print_prose(fmt::format("masked: token {}; windows side by side, seed {}\n\n", *m.model.spec.mask_id, flags.seed));
    print(table_text(table));
    print_prose(measurement.line());
    write_outputs(flags.output, json, "results");
  });
}

}  // namespace

void add_eval_mlm(CLI::App& eval_app, Action* action) {
  add_command<MlmFlags>(eval_app, action, "mlm", "Perplexity of masked tokens, of bidirectional models",
                        "Example: coca eval mlm --model out/model --text books/validation --lengths 256,512", run_mlm);
}

}  // namespace coca::tools
