// coca eval passkey: passkey retrieval by length and depth. Protocol: docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/passkey.h"

#include "coca/base/memory.h"
#include "coca/report/chart.h"
#include "coca/report/table.h"
#include "eval_command.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct PasskeyFlags : ModelFlags {
  std::vector<int64_t> lengths = {512, 1024, 2048, 4096};
  std::vector<double> depths = {0, 0.25, 0.5, 0.75, 1};
  int64_t trials = 20, digits = 5, seed = 0, batch_tokens = 8192;
  data::PasskeyWording wording = data::PasskeyWording::kLandmark;
  eval::Bos bos = eval::Bos::kAuto;
  EvalOutputFlags output;

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    v.group("Protocol");
    v("lengths", "tokens of bos, prompt and answer together", lengths);
    v("depths", "where the key stands: share of the garbage in front of it", depths);
    v("trials", "prompts per length and depth", trials);
    v("wording", "text of the prompt", wording);
    v("digits", "digits of the key", digits);
    v("seed", "of keys; the same seed gives the same prompts", seed);
    v("bos", "whether a bos token leads every prompt; auto: if config.json names one", bos);
    v("batch_tokens", "run prompts together up to about so many tokens", batch_tokens);
    output.visit(v);
  }
};

void fill_score(ordered_json& j, const eval::PasskeyScore& s) {
  j["trials"] = s.trials;
  j["correct"] = s.correct;
  j["accuracy"] = number_json(s.accuracy);
  j["accuracy_low"] = number_json(s.accuracy_low);
  j["accuracy_high"] = number_json(s.accuracy_high);
  j["digit_accuracy"] = number_json(s.digit_accuracy);
  j["nll"] = number_json(s.nll);
}

std::vector<std::string> passkey_row(int64_t length, std::string depth, const eval::PasskeyScore& s) {
  return {fmt::format("{}", length),
          std::move(depth),
          fmt::format("{}/{}", s.correct, s.trials),
          fmt::format("{:.2f}", s.accuracy),
          fmt::format("{:.2f}-{:.2f}", s.accuracy_low, s.accuracy_high),
          fmt::format("{:.2f}", s.digit_accuracy),
          report::format_number(s.nll)};
}

report::Table passkey_table(const eval::PasskeyResult& result) {
  report::Table table{.title = "",
                      .header = {"length", "depth", "correct", "accuracy", "95 % interval", "digits", "nll"},
                      .rows = {},
                      .align = {}};
  size_t cell = 0;
  for (const eval::PasskeyTotal& total : result.totals) {
    const size_t depths = result.cells.size() / result.totals.size();
    for (size_t d = 0; d < depths; ++d, ++cell)
      table.rows.push_back(
          passkey_row(total.length, fmt::format("{:g}", result.cells[cell].depth), result.cells[cell].score));
    table.rows.push_back(passkey_row(total.length, "all", total.score));
  }
  return table;
}

std::string passkey_svg(const eval::PasskeyResult& result, const PasskeyFlags& flags, const LoadedModel& m) {
  report::HeatMap map{.title = fmt::format("Passkey accuracy, {} ({})", enum_name(m.model.spec.attention),
                                           scaling_text(m.used_scaling)),
                      .x_label = "length (tokens)",
                      .y_label = "depth"};
  for (const int64_t length : flags.lengths) map.x_ticks.push_back(fmt::format("{}", length));
  for (size_t d = 0; d < flags.depths.size(); ++d) {
    map.y_ticks.push_back(fmt::format("{:g}", flags.depths[d]));
    map.values.emplace_back();
    for (size_t l = 0; l < flags.lengths.size(); ++l)
      map.values.back().push_back(result.cells[l * flags.depths.size() + d].score.accuracy);
  }
  return report::render_svg(map);
}

int run_passkey(PasskeyFlags& flags) {
  check_outputs(flags.output);
  const LoadedModel m = load_with_flags(flags);
  std::optional<report::Progress> progress;
  eval::PasskeyOptions options{.lengths = flags.lengths,
                               .depths = flags.depths,
                               .trials = flags.trials,
                               .wording = flags.wording,
                               .digits = flags.digits,
                               .seed = flags.seed,
                               .bos = flags.bos,
                               .scaling = m.scaling,
                               .batch_tokens = flags.batch_tokens};
  options.progress = [&](const eval::PasskeyProgress& p) {
    if (!progress) progress = make_progress({.total = p.total, .unit = "prompts", .label = "passkey"});
    progress->update(p.done, fmt::format("length {} correct {}/{}", p.length, p.correct, p.tried));
  };
  Context cx;
  const eval::PasskeyResult result =
      eval::passkey(cx, m.model.spec, m.model.params->weights(), *m.tokenizer, options);
  if (progress) progress->finish();
  const report::Table table = passkey_table(result);
  print_model_line(flags.model, m);
  print(bos_text(result.bos, "in front of every prompt, which counts it", "") +
        fmt::format("; wording {}; {} trials a cell; greedy, all {} digits must be right; peak memory {}\n\n",
                    enum_name(flags.wording), flags.trials, flags.digits,
                    report::format_bytes(peak_resident_bytes())));
  print(report::to_text(table));
  note_extrapolation(m, flags.lengths);
  ordered_json json = header_json(flags.model, m, io::options_to_json(flags));
  json["cells"] = ordered_json::array();
  for (const eval::PasskeyCell& cell : result.cells) {
    ordered_json j{{"length", cell.length}, {"depth", cell.depth}};
    fill_score(j, cell.score);
    json["cells"].push_back(std::move(j));
  }
  json["totals"] = ordered_json::array();
  for (const eval::PasskeyTotal& total : result.totals) {
    ordered_json j{{"length", total.length},
                   {"least_tokens", total.least_tokens},
                   {"most_tokens", total.most_tokens},
                   {"seconds", total.seconds},
                   {"peak_resident_bytes", total.peak_resident_bytes}};
    fill_score(j, total.score);
    json["totals"].push_back(std::move(j));
  }
  write_outputs(flags.output, json, "cells", [&] { return passkey_svg(result, flags, m); });
  return 0;
}

}  // namespace

void add_eval_passkey(CLI::App& eval_app, Action* action) {
  add_one<PasskeyFlags>(eval_app, action, "passkey", "Passkey retrieval by length and depth",
                        "Example: coca eval passkey --model out/model --lengths 512,1024,2048 --trials 20",
                        run_passkey);
}

}  // namespace coca::tools
