// coca analyse: initial angles, attention and CoCA-specific figures of a model on a text; with --induction, what its
// heads do for copying. docs/analyse.md defines the figures.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>

#include "cli.h"
#include "coca/analyse/analyse.h"
#include "coca/analyse/induction_results.h"
#include "coca/analyse/report.h"
#include "coca/analyse/results.h"
#include "coca/base/count.h"
#include "coca/base/rng.h"
#include "coca/base/spread.h"
#include "coca/data/task.h"
#include "coca/eval/protocol.h"
#include "coca/io/fs.h"
#include "coca/report/html.h"
#include "coca/train/checkpoint.h"
#include "eval_command.h"
#include "text_documents.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct AnalyseFlags : ModelFlags {
  TextFlags text;
  std::string html;
  int64_t max_documents = 0, length = 0, windows = 8;
  eval::Bos bos = eval::Bos::kAuto;
  analyse::AnalyseOptions options;
  bool induction = false;
  std::string checkpoints;
  double slow_turn = 0.25;
  OutputFlags output;

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    text.visit(v);
    v("max_documents", "use only this many documents, the first ones; 0: all", max_documents);
    v("length", "tokens of a window, a leading bos included; default: the trained length", length);
    v("windows", "windows, spread evenly over the text", windows, Least{1});
    v("bos", "whether every window begins with a bos token; auto: if config.json names one", bos);
    v.group("Samples");
    v("pairs", "token pairs per window and head; 0: all causal pairs", options.pairs);
    v("rows", "rows of attention per window and head; 0: all", options.rows);
    v("seed", "seed of the pairs and rows drawn", options.seed);
    v("shifts", "CoCA: tokens by which both positions of a pair are shifted", options.shifts);
    v("multiples", "multiples of the trained length at which position scalings are compared", options.borders.multiples,
      Least{1});
    v("dynamic_factor", "factor of dynamic NTK in that comparison; the other scalings get the multiple",
      options.borders.dynamic_factor);
    v.group("Copying");
    v("induction",
      "look at what copying needs instead: heads that attend to the token before and to what followed the same token, "
      "on repeated random tokens, and with --text on text",
      induction);
    v("checkpoints",
      "with --induction, in place of --model: the --out folder of a training, whose checkpoints are "
      "compared",
      checkpoints);
    v("slow_turn",
      "with --induction: planes count as content that turn by at most this share of a circle over the trained "
      "length",
      slow_turn);
    output.visit(v);
    v("html", "write a report with charts to this file (charts need gnuplot)", html);
  }
};

void check_flags(const AnalyseFlags& flags) {
  check_ending("--html", flags.html, {".html", ".htm"});
  COCA_CHECK(flags.length == 0 || flags.length >= 2, "--length {}: a window needs two tokens", flags.length);
}

// Windows of `length` tokens, including bos, spread evenly over the documents. No window crosses from one document to
// the next.
std::vector<std::vector<int32_t>> cut_windows(const std::vector<std::vector<int32_t>>& documents,
                                              std::optional<int32_t> bos, int64_t length, int64_t count) {
  const int64_t room = length - (bos ? 1 : 0);
  std::vector<std::pair<size_t, int64_t>> places;  // document and first token
  int64_t longest = 0;
  for (size_t d = 0; d < documents.size(); ++d) {
    const auto N = static_cast<int64_t>(documents[d].size());
    longest = std::max(longest, N);
    for (int64_t begin = 0; begin + room <= N; begin += room) places.emplace_back(d, begin);
  }
  COCA_CHECK(!places.empty(),
             "--text: too short; a window of {} needs {} of text, the longest document has {} (see --length)",
             counted(length, "token"), grouped(room), grouped(longest));
  std::vector<std::vector<int32_t>> windows;
  const auto all = static_cast<int64_t>(places.size());
  count = std::min(count, all);
  for (int64_t i = 0; i < count; ++i) {
    const auto& [d, begin] = places[static_cast<size_t>(spread_index(i, count, all))];
    std::vector<int32_t>& ids = windows.emplace_back();
    if (bos) ids.push_back(*bos);
    ids.insert(ids.end(), documents[d].begin() + begin, documents[d].begin() + begin + room);
  }
  return windows;
}

std::string source_line(const AnalyseFlags& flags, const LoadedModel& m, std::optional<int32_t> bos) {
  return fmt::format("model: {} (attention {}, {}, {}, trained length {}, rope scaling {}); tokenizer: {}; bos: {}",
                     flags.model, enum_name(m.model.spec.attention), counted(m.model.spec.L, "layer"),
                     counted(m.model.spec.H, "head"), m.model.spec.max_position, scaling_text(m.used_scaling),
                     m.tokenizer->kind(), bos ? fmt::format("token {}", *bos) : "none");
}

void print_summary(const analyse::Analysis& a, const std::string& source) {
  print_prose(source + "\n");
  print_prose(fmt::format("{} of {}; per window and head {} and {} of attention\n\n", counted(a.windows, "window"),
                          counted(a.window, "token"), counted(a.pairs, "token pair"), counted(a.rows, "row")));
  print(table_text(analyse::layer_table(a)) + "\n");
  if (analyse::is_rotary(a)) {
    print(table_text(analyse::course_table(a)) + "\n");
    if (const std::string note = analyse::slack_note(a); !note.empty()) print_prose(note + "\n\n");
    print(table_text(analyse::plane_table(a)) + "\n");
    if (!a.borders.empty()) print(table_text(analyse::borders_table(a)) + "\n");
  } else {
    print_prose("no rotary positions: initial angles and borders do not apply\n\n");
  }
  if (analyse::has_collinear_planes(a.spec) && !a.shifts.empty()) print(table_text(analyse::shift_table(a)) + "\n");
  for (const std::string& finding : analyse::findings(a)) {
    std::string plain;
    for (const report::Span& span : report::parse_spans(finding)) plain += span.text;
    print_prose("- " + plain + "\n");
  }
}

// Windows that are a random sequence twice. No symbol stands twice in a sequence, if there are enough.
std::vector<std::vector<int32_t>> repeated_windows(const text::Tokenizer& tokenizer, std::optional<int32_t> bos,
                                                   int64_t length, int64_t count, int64_t seed) {
  std::vector<int32_t> symbols = data::task_symbols(tokenizer);
  const auto half = static_cast<size_t>((length - (bos ? 1 : 0)) / 2);
  COCA_CHECK(symbols.size() >= 2, "the {} tokenizer has no two tokens that are printable", tokenizer.kind());
  COCA_CHECK(half >= 2, "--length {}: a sequence of 2 tokens, repeated, takes {}", length, bos ? 5 : 4);
  std::vector<std::vector<int32_t>> windows;
  for (int64_t i = 0; i < count; ++i) {
    Rng rng(static_cast<uint64_t>(seed), static_cast<uint64_t>(i));
    std::vector<int32_t> sequence;
    while (sequence.size() < half) {
      for (size_t j = symbols.size() - 1; j > 0; --j) std::swap(symbols[j], symbols[rng.below(j + 1)]);
      const auto part = static_cast<std::ptrdiff_t>(std::min(half - sequence.size(), symbols.size()));
      sequence.insert(sequence.end(), symbols.begin(), symbols.begin() + part);
    }
    std::vector<int32_t>& ids = windows.emplace_back();
    if (bos) ids.push_back(*bos);
    for (int twice = 0; twice < 2; ++twice) ids.insert(ids.end(), sequence.begin(), sequence.end());
  }
  return windows;
}

// The folders of the models to look at, and their steps if they are checkpoints.
std::vector<std::pair<std::string, std::optional<int64_t>>> induction_models(const AnalyseFlags& flags) {
  COCA_CHECK(flags.checkpoints.empty() || flags.model.empty(), "--checkpoints and --model are given; choose one");
  if (flags.checkpoints.empty()) return {{flags.model, std::nullopt}};
  std::vector<std::pair<std::string, std::optional<int64_t>>> found;
  for (const std::filesystem::path& root :
       {train::checkpoint_root(flags.checkpoints), std::filesystem::path(flags.checkpoints)}) {
    if (!found.empty() || !io::is_folder(root)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(root))
      if (entry.path().filename().string().starts_with("step-"))
        found.emplace_back(entry.path().string(), train::load_state(entry.path()).step);
  }
  COCA_CHECK(!found.empty(),
             "--checkpoints {}: no checkpoint there; expected the --out folder of a training (--keep-checkpoints of it "
             "keeps more than two)",
             flags.checkpoints);
  std::ranges::sort(found, {}, [](const auto& model) { return *model.second; });
  return found;
}

analyse::InductionAnalysis induction_of(const AnalyseFlags& flags, const LoadedModel& m, std::optional<int64_t> step) {
  const model::ModelSpec& spec = m.model.spec;
  const std::optional<int32_t> bos = eval::bos_token(spec, flags.bos);
  const int64_t length = flags.length > 0 ? flags.length : spec.max_position;
  analyse::AnalyseOptions options = flags.options;
  options.scaling = m.scaling;
  options.slow_turn = flags.slow_turn;
  options.shifts = {};
  options.borders.multiples = {};
  const auto look = [&](const std::vector<std::vector<int32_t>>& windows) {
    return analyse::analyse(spec, m.model.params->weights(), windows, options);
  };
  analyse::InductionAnalysis out{
      .step = step,
      .random = look(repeated_windows(*m.tokenizer, bos, length, flags.windows, flags.options.seed)),
      .text = {},
      .slow_turn = flags.slow_turn};
  if (!flags.text.text.empty()) {
    const Documents documents = read_documents(flags.text, {.max_documents = flags.max_documents}, *m.tokenizer);
    out.text = look(cut_windows(documents.ids, bos, length, flags.windows));
  }
  return out;
}

int run_induction(AnalyseFlags flags) {
  const auto models = induction_models(flags);
  std::vector<analyse::InductionAnalysis> found;
  std::optional<LoadedModel> m;
  std::string source;
  report::Progress progress =
      make_progress({.total = static_cast<int64_t>(models.size()), .unit = "models", .label = "analyse"});
  Measurement measurement([&] {
    for (const auto& [folder, step] : models) {
      flags.model = folder;
      m = load_with_flags(flags);
      source = source_line(flags, *m, eval::bos_token(m->model.spec, flags.bos));
      found.push_back(induction_of(flags, *m, step));
      progress.update(static_cast<int64_t>(found.size()), folder);
    }
  });
  progress.finish();
  if (found.empty()) measurement.rethrow();
  measurement.missing = {
      fmt::format("{} of {}", grouped(models.size() - found.size()), counted(models.size(), "checkpoint"))};
  const std::string name = flags.checkpoints.empty() ? models.front().first : flags.checkpoints;
  ordered_json json = header_json(name, *m, result_options(flags));
  measurement.mark(json);
  json.update(analyse::to_json(found));
  return measurement.report([&] {
    print_prose(source + "\n" + analyse::what_was_read(found.back()) + "\n\n");
    if (found.size() > 1) print(table_text(analyse::step_table(found)) + "\n");
    print(table_text(analyse::head_table(found.back())) + "\n");
    print_prose(measurement.line());
    write_each({[&] { write_outputs(flags.output, json, "heads"); },
                [&] {
                  if (flags.html.empty()) return;
                  io::write_file_atomic(flags.html, report::to_html(analyse::make_document(
                                                        found, measurement.title("Copying in " + name), source)));
                  print_prose(fmt::format("report: {}\n", flags.html));
                }});
  });
}

int run(OptionFlags& options_given, AnalyseFlags& flags) {
  check_flags(flags);
  for (const char* flag : {"--checkpoints", "--slow-turn"})
    options_given.check_effect(flag, flags.induction, "is about copying; add --induction, or leave the option out");
  for (const char* flag : {"--shifts", "--multiples", "--dynamic-factor"})
    options_given.check_effect(flag, !flags.induction, "has no part in --induction; leave one of them out");
  if (flags.induction) return run_induction(flags);
  const LoadedModel m = load_with_flags(flags);
  const model::ModelSpec& spec = m.model.spec;
  const std::optional<int32_t> bos = eval::bos_token(spec, flags.bos);
  const Documents documents = read_documents(flags.text, {.max_documents = flags.max_documents}, *m.tokenizer);
  const std::vector<std::vector<int32_t>> windows =
      cut_windows(documents.ids, bos, flags.length > 0 ? flags.length : spec.max_position, flags.windows);

  report::Progress progress =
      make_progress({.total = static_cast<int64_t>(windows.size()), .unit = "windows", .label = "analyse"});
  analyse::AnalyseOptions options = flags.options;
  options.scaling = m.scaling;
  options.progress = [&](int64_t done, int64_t total) {  // counted in layers times windows
    progress.update(done / spec.L, fmt::format("layer {} of {}", (done - 1) % spec.L + 1, spec.L),
                    static_cast<double>(done) / static_cast<double>(total));
  };
  analyse::Analysis a;
  Measurement measurement([&] { analyse::analyse(spec, m.model.params->weights(), windows, options, a); });
  progress.finish();
  if (a.windows == 0) measurement.rethrow();
  measurement.missing = {fmt::format("{} of {}", grouped(static_cast<int64_t>(windows.size()) - a.windows),
                                     counted(windows.size(), "window"))};

  const std::string source = source_line(flags, m, bos);
  ordered_json json = header_json(flags.model, m, result_options(flags));
  measurement.mark(json);
  json.update(analyse::to_json(a));
  const std::string name = std::filesystem::path(flags.model).lexically_normal().string();
  return measurement.report([&] {
    print_summary(a, source);
    print_prose(measurement.line());
    write_each({[&] { write_outputs(flags.output, json, analyse::is_rotary(a) ? "planes" : "heads"); },
                [&] {
                  if (flags.html.empty()) return;
                  io::write_file_atomic(flags.html, report::to_html(analyse::make_document(
                                                        a, measurement.title("Inside " + name), source)));
                  print_prose(fmt::format("report: {}\n", flags.html));
                }});
  });
}

}  // namespace

void add_analyse(CLI::App& root, Action* action) {
  add_command<AnalyseFlags>(root, action, "analyse",
                            "Look inside a model: initial angles, anomalies, attention, position scalings",
                            "--csv has a row per layer, head and plane, with --induction per checkpoint, layer and "
                            "head. docs/analyse.md says what each figure is.\n"
                            "Examples: coca analyse --model out/model --text books/test --html analysis.html\n"
                            "          coca analyse --induction --checkpoints out/run --html induction.html",
                            run);
}

}  // namespace coca::tools
