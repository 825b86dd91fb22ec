// coca eval passkey: passkey retrieval by length and depth. Protocol: docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/count.h"
#include "coca/eval/passkey.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "coca/base/memory.h"
#include "coca/report/chart.h"
#include "coca/report/table.h"
#include "eval_command.h"
#include "ranks.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct PasskeyFlags : ModelFlags {
  std::string protocol = "ours";
  std::vector<int64_t> lengths;
  std::optional<data::PasskeyLength> length_control;
  std::optional<data::PasskeyWording> wording;
  std::optional<eval::PasskeyPlace> place;
  std::vector<double> depths;
  std::optional<int64_t> digits, key_least, key_most, trials, new_tokens;
  std::optional<eval::PasskeyRule> rule;
  std::optional<eval::Bos> bos;
  int64_t seed = 0, batch_tokens = 8192;
  bool dry_run = false;
  EvalOutputFlags output;

  template <class V>
  void visit(V&& v) {
    static const std::string protocol_help =
        "named set of the choices below (docs/evaluation.md): " + eval::passkey_protocol_names();
    ModelFlags::visit(v);
    v.group("Protocol (options given here override --protocol)");
    v("protocol", protocol_help, protocol);
    v("lengths",
      "lengths, in the unit of --length-control; ours: tokens of bos, prompt and answer together; default of ours: 1, "
      "2, 4 and 8 times the trained length, or the first of its doublings into which a prompt fits",
      lengths);
    v("length_control", "what a length means", length_control);
    v("wording",
      "text of the prompt; default of ours: what a model trained with --passkey-share was taught, else landmark",
      wording);
    v("place", "where the key is", place);
    v("depths", "share of the garbage before the key; implies --place depths", depths);
    v("digits",
      "keys with exactly this many digits, instead of --key-least and --key-most; default of ours: what the model was "
      "taught, else 5",
      digits, Least{1});
    v("key_least", "smallest key", key_least);
    v("key_most", "largest key", key_most);
    v("trials", "prompts per length and depth, or per length at random places", trials, Least{1});
    v("new_tokens", "tokens generated; rule exact: 0, as many as the answer has", new_tokens);
    v("rule", "when an answer counts", rule);
    v("bos", "whether every prompt begins with a bos token; auto: if config.json names one", bos);
    v.group("Run");
    v("seed", "seed of the keys; the same seed gives the same prompts", seed);
    v("batch_tokens", "run prompts together up to about this many tokens", batch_tokens, Least{1});
    v("dry_run", "estimate time, memory and disk, and do nothing", dry_run);
    output.visit(v);
  }
};

using Taught = std::optional<data::PasskeyTask>;  // what the model's folder says that it was taught

bool is_ours(const PasskeyFlags& flags) { return flags.protocol == PasskeyFlags{}.protocol; }

// Our own protocol asks for the passkeys that the model was taught. Published ones and flags override that.
eval::PasskeyProtocol protocol_from(const PasskeyFlags& flags, const Taught& taught) {
  eval::PasskeyProtocol p = eval::passkey_protocol_of(flags.protocol);
  if (taught && is_ours(flags)) {
    p.wording = taught->wording;
    p.keys = data::keys_of_digits(taught->digits);
  }
  const auto set = [](auto& choice, const auto& given) {
    if (given) choice = *given;
  };
  if (!flags.lengths.empty()) p.lengths = flags.lengths;
  set(p.length_control, flags.length_control);
  set(p.wording, flags.wording);
  if (!flags.depths.empty()) {
    p.depths = flags.depths;
    p.place = eval::PasskeyPlace::kDepths;
  }
  set(p.place, flags.place);
  COCA_CHECK(flags.depths.empty() || p.place == eval::PasskeyPlace::kDepths,
             "--depths: with --place {} the places are drawn; leave one of the options out", enum_name(p.place));
  COCA_CHECK(!flags.digits || (!flags.key_least && !flags.key_most),
             "--digits {} and --key-least or --key-most: give one of them", *flags.digits);
  if (flags.digits) p.keys = data::keys_of_digits(*flags.digits);
  set(p.keys.least, flags.key_least);
  set(p.keys.most, flags.key_most);
  set(p.trials, flags.trials);
  // Choosing another rule also selects its published number of tokens, unless --max-new-tokens is given.
  if (flags.rule && *flags.rule != p.rule) {
    p.rule = *flags.rule;
    p.new_tokens = p.rule == eval::PasskeyRule::kExact ? 0 : p.rule == eval::PasskeyRule::kContains ? 64 : 10;
  }
  set(p.new_tokens, flags.new_tokens);
  set(p.bos, flags.bos);
  eval::check_protocol(p);
  return p;
}

std::string depth_text(std::optional<double> depth) { return depth ? fmt::format("{:g}", *depth) : "random"; }

void fill_score(ordered_json& j, const eval::PasskeyScore& s) {
  j["trials"] = s.trials;
  j["correct"] = s.correct;
  j["accuracy"] = number_json(s.accuracy);
  j["accuracy_low"] = number_json(s.accuracy_low);
  j["accuracy_high"] = number_json(s.accuracy_high);
  j["digit_accuracy"] = number_json(s.digit_accuracy);
  j["nll"] = number_or_null(s.nll);
}

// row: a PasskeyCell or a PasskeyTotal.
std::vector<std::string> passkey_row(const auto& row, std::string depth) {
  const eval::PasskeyScore& s = row.score;
  return {fmt::format("{}", row.length),
          std::move(depth),
          s.trials == 0                         ? "-"
          : row.least_tokens == row.most_tokens ? fmt::format("{}", row.most_tokens)
                                                : fmt::format("{}-{}", row.least_tokens, row.most_tokens),
          fmt::format("{}/{}", s.correct, s.trials),
          s.trials == 0 ? "-" : fmt::format("{:.2f}", s.accuracy),
          fmt::format("{:.2f}-{:.2f}", s.accuracy_low, s.accuracy_high),
          s.trials == 0 ? "-" : fmt::format("{:.2f}", s.digit_accuracy),
          report::format_number(s.nll)};
}

report::Table passkey_table(const eval::PasskeyResult& result) {
  report::Table table{.title = "",
                      .header = {"length", "depth", "tokens", "correct", "accuracy", "95 % interval", "digits", "nll"},
                      .rows = {},
                      .align = {}};
  size_t cell = 0;
  for (const eval::PasskeyTotal& total : result.totals) {
    const size_t depths = result.cells.size() / result.totals.size();
    for (size_t d = 0; d < depths; ++d, ++cell)
      table.rows.push_back(passkey_row(result.cells[cell], depth_text(result.cells[cell].depth)));
    table.rows.push_back(passkey_row(total, "all"));
  }
  return table;
}

// Explains a table of zeros; "" if any prompt was answered correctly or could not be measured.
std::string zeros_note(const eval::PasskeyResult& result, const LoadedModel& m) {
  const int64_t trained = m.model.spec.max_position;
  int64_t shortest = std::numeric_limits<int64_t>::max();
  for (const eval::PasskeyTotal& total : result.totals) {
    if (total.score.correct > 0 || std::isnan(total.score.accuracy)) return "";
    shortest = std::min(shortest, total.least_tokens);
  }
  if (shortest > trained)
    return fmt::format(
        "No key was found. No length lies within the trained {}, so this does not tell whether the model has "
        "learned the task.",
        counted(trained, "token"));
  return fmt::format("No key was found, not even within the trained {}: the model has not learned this task.",
                     counted(trained, "token"));
}

// A model that learned passkeys knows one wording. Its folder says which, unless an older version made it.
std::string wording_note(data::PasskeyWording wording, const Taught& taught) {
  if (taught && taught->wording != wording)
    return fmt::format(" These passkeys were worded \"{}\"; the model was taught \"{}\": ask with --wording {}.",
                       enum_name(wording), enum_name(taught->wording), enum_name(taught->wording));
  if (taught || wording == data::PasskeyWording::kCompact) return "";
  return fmt::format(
      " These passkeys were worded \"{}\"; a model trained with --passkey-share knows \"compact\" unless "
      "--passkey-wording said otherwise: ask with --wording compact.",
      enum_name(wording));
}

std::string passkey_svg(const eval::PasskeyResult& result, const LoadedModel& m, const Measurement& measurement) {
  report::HeatMap map{.title = measurement.title("Passkey accuracy, " + method_text(m)),
                      .x_label = "length (tokens)",
                      .y_label = "depth",
                      .note = measurement.partial() ? "" : zeros_note(result, m)};
  const size_t depths = result.cells.size() / result.totals.size();
  for (const eval::PasskeyTotal& total : result.totals) map.x_ticks.push_back(fmt::format("{}", total.most_tokens));
  for (size_t d = 0; d < depths; ++d) {
    map.y_ticks.push_back(depth_text(result.cells[d].depth));
    map.values.emplace_back();
    for (size_t l = 0; l < result.totals.size(); ++l)
      map.values.back().push_back(result.cells[l * depths + d].score.accuracy);
  }
  return report::render_svg(map);
}

void print_protocol(const PasskeyFlags& flags, const eval::PasskeyProtocol& p, const eval::PasskeyResult& result,
                    const Taught& taught) {
  print_prose(fmt::format("protocol: {} (lengths in {}, wording {}, place {}, keys {}..{}, {} a cell)\n",
                          flags.protocol, enum_name(p.length_control), enum_name(p.wording), enum_name(p.place),
                          p.keys.least, p.keys.most, counted(p.trials, "trial")));
  if (taught && p.wording == taught->wording && p.keys == data::keys_of_digits(taught->digits))
    print_prose("wording and digits of the key: those that the model was taught\n");
  const std::string rule =
      p.rule == eval::PasskeyRule::kExact
          ? "greedy, all tokens of the answer must be right"
          : fmt::format("rule {} in {}, generated greedily", enum_name(p.rule), counted(p.new_tokens, "token"));
  print_prose(bos_text(result.bos, "in front of every prompt, which counts it", "") +
              fmt::format("; {}; peak memory {}\n\n", rule, report::format_bytes(peak_resident_bytes())));
}

ordered_json passkey_json(const eval::PasskeyResult& result, ordered_json json) {
  json["cells"] = ordered_json::array();
  for (const eval::PasskeyCell& cell : result.cells) {
    ordered_json j{{"length", cell.length},
                   {"depth", cell.depth ? ordered_json(*cell.depth) : ordered_json(nullptr)},
                   {"least_tokens", cell.least_tokens},
                   {"most_tokens", cell.most_tokens}};
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
  return json;
}

std::vector<std::string> missing_trials(const eval::PasskeyProtocol& p, const eval::PasskeyResult& result) {
  const int64_t all = p.trials * static_cast<int64_t>(result.cells.size() / result.totals.size());  // trials per length
  std::vector<std::string> missing;
  for (size_t l = 0; l < p.lengths.size(); ++l) {
    const int64_t done = l < result.totals.size() ? result.totals[l].score.trials : 0;
    if (done < all)
      missing.push_back(
          done == 0 ? fmt::format("length {}", p.lengths[l])
                    : fmt::format("{} of {} of length {}", grouped(all - done), counted(all, "trial"), p.lengths[l]));
  }
  return missing;
}

eval::PasskeyOptions options_of(const PasskeyFlags& flags, const ModelShape& shape, const Taught& taught) {
  eval::PasskeyOptions options{.protocol = protocol_from(flags, taught),
                               .seed = flags.seed,
                               .scaling = shape.scaling,
                               .batch_tokens = flags.batch_tokens,
                               .progress = {},
                               .ranks = ranks()};
  if (!flags.lengths.empty() || !is_ours(flags)) return options;
  eval::PasskeyOptions one = options;
  options.protocol.lengths = eval::default_lengths(shape.spec.max_position, [&](int64_t length) {
    one.protocol.lengths = {length};
    try {
      eval::check_passkey(shape.spec, *shape.tokenizer, one);
      return true;
    } catch (const Error&) {
      return false;
    }
  });
  return options;
}

int run_passkey(PasskeyFlags& flags) {
  check_outputs(flags.output);
  ModelShape shape = load_shape(flags);
  const Taught taught = data::load_passkey_task(flags.model);
  eval::PasskeyOptions options = options_of(flags, shape, taught);
  eval::PasskeyProtocol& protocol = options.protocol;
  const int64_t prompts =
      protocol.trials *
      (protocol.place == eval::PasskeyPlace::kDepths ? static_cast<int64_t>(protocol.depths.size()) : 1);
  eval::check_passkey(shape.spec, *shape.tokenizer, options);
  const std::vector<Part> parts = prompt_parts(shape.spec, protocol.lengths, prompts);
  if (flags.dry_run) {
    print_eval_work(flags, shape.spec, parts, flags.batch_tokens);
    return end_dry_run();
  }
  const LoadedModel m = load_with_flags(flags, std::move(shape));
  WorkShare share(parts);
  LateProgress progress;
  options.progress = [&](const eval::PasskeyProgress& p) {
    progress.shown({.total = p.total, .unit = "prompts", .label = "passkey"})
        .update(p.done, fmt::format("length {} correct {}/{}", p.length, p.correct, p.tried),
                share.at(p.length, p.done));
  };
  Context cx;
  eval::PasskeyResult result;
  Measurement measurement(
      [&] { eval::passkey(cx, m.model.spec, m.model.params->weights(), *m.tokenizer, options, result); });
  progress.finish();
  if (result.totals.empty()) measurement.rethrow();
  measurement.missing = missing_trials(protocol, result);
  for (const eval::PasskeyTotal& total : result.totals) measurement.check_score(total.score.accuracy, total.length);
  ordered_json json = header_json(flags.model, m, result_options(flags));
  measurement.mark(json);
  json["protocol"] = io::options_to_json(protocol);
  json = passkey_json(result, std::move(json));
  return measurement.report([&] {
    print_model_line(flags.model, m);
    print_protocol(flags, protocol, result, taught);
    print(table_text(passkey_table(result)));
    print_prose(measurement.line());
    if (const std::string note = zeros_note(result, m); !note.empty() && !measurement.partial())
      print_prose(note + wording_note(protocol.wording, taught) +
                  " The zeros say nothing about length; digits (chance: 0.10) and nll are finer measures.\n");
    std::vector<int64_t> tokens;
    for (const eval::PasskeyTotal& total : result.totals) tokens.push_back(total.most_tokens);
    note_extrapolation(m, tokens);
    write_outputs(flags.output, json, "cells", [&] { return passkey_svg(result, m, measurement); });
  });
}

}  // namespace

void add_eval_passkey(CLI::App& eval_app, Action* action) {
  add_command<PasskeyFlags>(eval_app, action, "passkey", "Passkey retrieval by length and depth",
                            "Example: coca eval passkey --model out/model --lengths 512,1024,2048 --trials 20; "
                            "--protocol pose counts as PoSE's script does",
                            run_passkey);
}

}  // namespace coca::tools
