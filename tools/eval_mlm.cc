// coca eval mlm: perplexity of masked tokens by window length, of bidirectional models. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/mlm.h"

#include <cstdio>

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
  int64_t max_windows = 0, seed = 0, batch_tokens = 8192;
  OutputFlags output;

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    text.visit(v);
    v.group("Protocol");
    v("lengths", "tokens of a window, of which 15 % are asked for; default: the trained length", lengths);
    v("max_windows", "windows of each length; 0: all", max_windows);
    v("seed", "of the choice of tokens", seed);
    v("batch_tokens", "run windows together up to about so many tokens", batch_tokens);
    output.visit(v);
  }
};

int run_mlm(MlmFlags& flags) {
  const LoadedModel m = load_with_flags(flags);
  model::require_masked(m.model.spec, "eval mlm");
  if (flags.lengths.empty()) flags.lengths = {m.model.spec.max_position};
  std::optional<report::Progress> progress;
  const eval::MlmOptions options{.lengths = flags.lengths, .max_windows = flags.max_windows, .seed = flags.seed, .batch_tokens = flags.batch_tokens,
                                 .scaling = m.scaling, .progress = [&](int64_t done, int64_t total) {
                                   if (!progress) progress = make_progress({.total = total, .unit = "tokens", .label = "mlm"});
                                   progress->update(done);
                                 }, .ranks = ranks()};
  Context cx;
  const std::vector<eval::MlmResult> results =
      eval::masked_perplexity(cx, m.model.spec, m.model.params->weights(), read_documents(flags.text, {}, *m.tokenizer).ids, m.tokenizer->vocab_size(), options);
  if (progress) progress->finish();
  report::Table table{.title = "", .header = {"length", "windows", "masked tokens", "ppl", "nll"}, .rows = {}, .align = {}};
  ordered_json json = header_json(flags.model, m, io::options_to_json(flags));
  json["results"] = ordered_json::array();
  for (const eval::MlmResult& r : results) {
    table.rows.push_back({fmt::format("{}", r.length), report::format_count(r.windows), report::format_count(r.masked_tokens),
                          report::format_number(r.perplexity), report::format_number(r.nll)});
    json["results"].push_back({{"length", r.length}, {"windows", r.windows}, {"masked_tokens", r.masked_tokens}, {"perplexity", number_json(r.perplexity)},
                               {"nll", number_json(r.nll)}, {"seconds", r.seconds}});
  }
  print_model_line(flags.model, m);
  print(fmt::format("masked: token {}; windows side by side, seed {}\n\n", *m.model.spec.mask_id, flags.seed));
  print(report::to_text(table));
  write_outputs(flags.output, json, "results");
  return 0;
}

}  // namespace

void add_eval_mlm(CLI::App& eval_app, Action* action) {
  add_one<MlmFlags>(eval_app, action, "mlm", "Perplexity of masked tokens, of bidirectional models",
                    "Example: coca eval mlm --model out/model --text books/validation --lengths 256,512", run_mlm);
}

}  // namespace coca::tools
