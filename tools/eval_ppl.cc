// coca eval ppl: perplexity by window length under a named protocol. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "coca/model/windows.h"
#include "coca/report/chart.h"
#include "coca/report/table.h"
#include "eval_command.h"
#include "ppl_details.h"
#include "ranks.h"
#include "text_documents.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct PplFlags : ModelFlags {
  Texts models;
  TextFlags text;
  std::string protocol = "sliding";
  std::vector<int64_t> lengths;
  std::optional<int64_t> stride, min_tokens, max_tokens, max_documents;
  std::optional<eval::Placement> placement;
  std::optional<eval::Scored> scored;
  std::optional<eval::Reach> reach;
  std::optional<eval::Tail> tail;
  std::optional<eval::Bos> bos;
  std::optional<eval::BosPlace> bos_place;
  std::optional<eval::Average> average;
  std::optional<eval::Join> join;
  std::optional<eval::Cut> cut;
  int64_t batch_tokens = 8192;
  bool by_document = false, context_parallel = false, dry_run = false;
  std::string document_csv;
  PplDetailFlags details;
  EvalOutputFlags output;

  template <class V>
  void visit(V&& v) {
    static const std::string protocol_help =
        "named set of the choices below (docs/evaluation.md): " + eval::protocol_names();
    v.group("Model");
    v("model",
      "model folder: config.json, model.safetensors, tokenizer; given several times, the models are compared on the "
      "same text",
      models);
    visit_rest(v);
    text.visit(v);
    v.group("Protocol (options given here override --protocol)");
    v("protocol", protocol_help, protocol);
    v("lengths",
      "lengths of windows in tokens, including a leading bos; default of the protocol sliding: 1, 2, 4 and 8 times the "
      "trained length (of several models: the shortest)",
      lengths, Least{2});
    v("stride", "tokens from window to window, at most the window; 0: the window", stride);
    v("placement", "where windows begin or end", placement);
    v("scored", "which targets of a window count", scored);
    v("reach", "whether a window's last token predicts the token after the window", reach);
    v("tail", "whether a last window that is not full is run", tail);
    v("bos", "whether there is a bos token; auto: if config.json names one", bos);
    v("bos_place", "where the bos token is", bos_place);
    v("average", "mean over tokens, or over windows' means", average);
    v("join", "windows within documents, or across all documents joined to one text", join);
    v("min_tokens", "skip documents with fewer tokens", min_tokens);
    v("max_tokens", "use at most this many tokens of each document; 0: all", max_tokens);
    v("cut", "which tokens: the middle of the document, or its start", cut);
    v("max_documents", "use only this many documents, the first ones; 0: all", max_documents);
    details.visit(v);
    v.group("Run");
    v("batch_tokens", "run windows together up to about this many tokens", batch_tokens, Least{1});
    v("context_parallel",
      "under mpirun: split the tokens of every window over the ranks, instead of whole windows (docs/parallel.md)",
      context_parallel);
    v("dry_run", "estimate time, memory and disk, and do nothing", dry_run);
    output.visit(v);
    v("by_document", "print a table of the documents too", by_document);
    v("document_csv", "write one row per length and document to this file", document_csv);
    details.visit_outputs(v);
  }
};

// trained: the shortest trained length of the models.
eval::Protocol protocol_from(const PplFlags& flags, int64_t trained) {
  eval::Protocol p = eval::protocol_of(flags.protocol);
  if (flags.protocol == PplFlags{}.protocol) p.lengths = eval::default_lengths(std::max<int64_t>(2, trained));
  if (!flags.lengths.empty()) p.lengths = flags.lengths;
  const auto set = [](auto& choice, const auto& given) {
    if (given) choice = *given;
  };
  set(p.stride, flags.stride);
  set(p.placement, flags.placement);
  set(p.scored, flags.scored);
  set(p.reach, flags.reach);
  set(p.tail, flags.tail);
  set(p.bos, flags.bos);
  set(p.bos_place, flags.bos_place);
  set(p.average, flags.average);
  set(p.join, flags.join);
  set(p.min_tokens, flags.min_tokens);
  set(p.max_tokens, flags.max_tokens);
  set(p.cut, flags.cut);
  set(p.max_documents, flags.max_documents);
  eval::check_protocol(p);
  COCA_CHECK(!flags.cut || p.max_tokens > 0,
             "--cut: all tokens of each document are used; add --max-tokens, or leave the option out");
  return p;
}

// A model and its results, kept after its weights are freed.
struct Measured {
  std::string model;  // the folder as the user gave it
  LoadedModel loaded;
  std::optional<data::Split> split;
  std::vector<eval::PerplexityResult> results;
  ordered_json documents;  // output of documents_json
};

// Shortens the folders' names by removing the components that all of them begin or end with.
std::vector<std::string> short_names(const std::vector<Measured>& all) {
  std::vector<std::vector<std::string>> paths;
  size_t shortest = std::numeric_limits<size_t>::max();
  for (const Measured& one : all) {
    std::vector<std::string>& parts = paths.emplace_back();
    for (const auto& part : std::filesystem::path(one.model).lexically_normal())
      if (!part.empty()) parts.push_back(part.string());
    shortest = std::min(shortest, parts.size());
  }
  const auto same = [&](const auto& part_of) {
    return std::ranges::all_of(paths, [&](const auto& parts) { return part_of(parts) == part_of(paths[0]); });
  };
  size_t front = 0, back = 0;
  while (front + 1 < shortest && same([&](const auto& parts) { return parts[front]; })) ++front;
  while (front + back + 1 < shortest && same([&](const auto& parts) { return parts[parts.size() - 1 - back]; })) ++back;
  std::vector<std::string> names;
  for (const auto& parts : paths) {
    std::string& name = names.emplace_back();
    for (size_t i = front; i + back < parts.size(); ++i) name += (name.empty() ? "" : "/") + parts[i];
  }
  return names;
}

// The fewest windows for which the spread is shown. With k = 10 windows its relative error is about a quarter,
// 1 / sqrt(2 (k - 1)).
constexpr int kLeastWindows = 10;

std::vector<std::string> ppl_row(const eval::PerplexityResult& r, eval::Average average) {
  const eval::Average other = average == eval::Average::kTokens ? eval::Average::kWindows : eval::Average::kTokens;
  std::optional<double> ppl_error;
  if (r.standard_error && average == eval::Average::kTokens && r.equal_windows >= kLeastWindows)
    ppl_error = r.perplexity * *r.standard_error;
  return {fmt::format("{}{}{}", r.length, r.reaches_length() ? "" : "*", r.whole() ? "" : " (partial)"),
          fmt::format("{}", r.stride),
          grouped(r.windows),
          grouped(r.scored_tokens),
          report::format_number(r.value(average)),
          report::format_number(ppl_error, 2),
          report::format_number(r.nll),
          report::format_number(r.bits_per_byte),
          report::format_number(r.word_perplexity),
          report::format_number(r.value(other)),
          grouped(static_cast<int64_t>(r.tokens_per_second)),
          report::format_bytes(r.peak_resident_bytes)};
}

report::Table ppl_table(const std::vector<Measured>& all, eval::Average average) {
  report::Table table{.title = "",
                      .header = {"length", "stride", "windows", "scored tokens", "ppl", "+-", "nll", "bits/byte",
                                 "word ppl", "ppl (windows)", "tokens/s", "peak memory"},
                      .rows = {},
                      .align = {}};
  if (average == eval::Average::kWindows) {
    table.header[4] = "ppl (windows)";
    table.header[9] = "ppl (tokens)";
  }
  const std::vector<std::string> names = short_names(all);
  for (size_t i = 0; i < all.size(); ++i) {
    for (const eval::PerplexityResult& r : all[i].results) {
      table.rows.push_back(ppl_row(r, average));
      if (all.size() > 1) table.rows.back().insert(table.rows.back().begin(), names[i]);
    }
  }
  if (all.size() > 1) table.header.insert(table.header.begin(), "model");
  return table;
}

ordered_json ppl_json(const eval::PerplexityResult& r) {
  ordered_json j;
  j["length"] = r.length;
  j["stride"] = r.stride;
  j["documents"] = r.documents;
  j["document_tokens"] = r.document_tokens;
  j["short_documents"] = r.short_documents;
  j["skipped_documents"] = r.skipped_documents;
  j["reaches_length"] = r.reaches_length();
  j["windows"] = r.windows;
  j["planned_windows"] = r.planned_windows;
  j["fewest_scored"] = r.fewest_scored;
  j["scored_tokens"] = r.scored_tokens;
  j["run_tokens"] = r.run_tokens;
  j["words"] = r.words;
  j["bos"] = r.bos ? ordered_json(*r.bos) : ordered_json(nullptr);
  j["nll"] = number_json(r.nll);
  j["perplexity"] = number_json(r.perplexity);
  j["window_mean_perplexity"] = number_json(r.window_mean_perplexity);
  j["word_perplexity"] = number_or_null(r.word_perplexity);
  j["bits_per_byte"] = number_or_null(r.bits_per_byte);
  j["standard_error"] = number_or_null(r.standard_error);
  j["seconds"] = r.seconds;
  j["tokens_per_second"] = r.tokens_per_second;
  j["peak_resident_bytes"] = r.peak_resident_bytes;
  add_key_tokens(j, r);
  return j;
}

// What the results of several models can be compared by.
enum class Comparable : uint8_t { kAll, kPerByte, kNothing };
Comparable comparable(const std::vector<Measured>& all, const eval::Protocol& p) {
  const auto same = [&](const Measured& one) {
    return one.loaded.tokenizer->fingerprint() == all[0].loaded.tokenizer->fingerprint();
  };
  if (std::ranges::all_of(all, same)) return Comparable::kAll;
  // Limits in tokens cut the text elsewhere for each tokenizer.
  return p.max_tokens > 0 || p.min_tokens > 0 ? Comparable::kNothing : Comparable::kPerByte;
}

void print_comparison(const std::vector<Measured>& all, const eval::Protocol& p) {
  const Comparable by = comparable(all, p);
  if (by == Comparable::kPerByte)
    print_prose("note: the models have different tokenizers: bits/byte and word ppl can be compared, ppl cannot\n");
  if (by != Comparable::kNothing) return;
  std::string words;
  for (const Measured& one : all)
    words += fmt::format("{}{}", words.empty() ? "" : ", ", grouped(one.results.front().words));
  log_warning(
      "the models have different tokenizers, and limits in tokens (--max-tokens, --min-tokens) give each its own part "
      "of "
      "the text: {} words; their results cannot be compared; choose text with --max-documents instead, and "
      "--max-tokens 0",
      words);
}

// What the tables of details need.
std::vector<DetailedModel> detailed(const std::vector<Measured>& all) {
  const std::vector<std::string> names = short_names(all);
  std::vector<DetailedModel> models;
  for (size_t i = 0; i < all.size(); ++i)
    models.push_back({.name = all.size() == 1 ? "" : names[i],
                      .method = method_text(all[i].loaded),
                      .trained_length = all[i].loaded.model.spec.max_position,
                      .results = &all[i].results});
  return models;
}

std::string ppl_svg(const std::vector<Measured>& all, const eval::Protocol& protocol, const Measurement& measurement) {
  const eval::Average average = protocol.average;
  const Comparable by = comparable(all, protocol);
  std::vector<report::Series> lines;
  const std::vector<std::string> names = short_names(all);
  double low = std::numeric_limits<double>::infinity(),
         high = 0;  // a range of a decade or more needs a logarithmic axis
  for (const Measured& one : all) {
    const std::string kind = method_text(one.loaded);
    report::Series& series =
        lines.emplace_back(report::Series{.label = all.size() == 1 ? kind : names[lines.size()] + ": " + kind});
    for (const eval::PerplexityResult& r : one.results) {
      series.x.push_back(static_cast<double>(r.length));
      series.y.push_back(by == Comparable::kPerByte ? r.bits_per_byte.value_or(std::nan("")) : r.value(average));
      if (!std::isfinite(series.y.back())) continue;
      low = std::min(low, series.y.back());
      high = std::max(high, series.y.back());
    }
  }
  const int64_t trained = all[0].loaded.model.spec.max_position;
  std::optional<report::Marker> marker;
  if (std::ranges::all_of(all, [&](const Measured& one) { return one.loaded.model.spec.max_position == trained; }))
    marker = report::Marker{static_cast<double>(trained), "trained length"};
  const char* title = by == Comparable::kPerByte   ? "Bits per byte by window length"
                      : by == Comparable::kNothing ? "Perplexity by window length (not comparable: different text)"
                                                   : "Perplexity by window length";
  return report::render_svg(report::Chart{.title = measurement.title(title),
                                          .x_label = "window (tokens)",
                                          .y_label = by == Comparable::kPerByte ? "bits per byte" : "perplexity",
                                          .x_scale = report::Scale::kLog2,
                                          .y_scale = high > 10 * low ? report::Scale::kLog : report::Scale::kLinear,
                                          .series = std::move(lines),
                                          .vertical_line = marker});
}

void print_documents(const Measured& one, const eval::Protocol& p) {
  const eval::PerplexityResult& first = one.results.front();
  print_prose(fmt::format(
      "documents: {}{}, {} of them used{}{}\n", grouped(first.documents),
      one.split ? fmt::format(" (split {})", enum_name(*one.split)) : "", counted(first.document_tokens, "token"),
      first.skipped_documents > 0 ? fmt::format("; {} too short, skipped", first.skipped_documents) : "",
      p.max_tokens == 0 ? ""
                        : fmt::format("; at most {} of each, from its {}", grouped(p.max_tokens), enum_name(p.cut))));
}

void print_protocol(const PplFlags& flags, const eval::Protocol& p) {
  print_prose(fmt::format(
      "protocol: {} (stride {}, windows {}, scored {}, reach {}, tail {}, documents {}{}{}; average over {})\n",
      flags.protocol, p.stride == 0 ? "the window" : fmt::format("{} or the window", grouped(p.stride)),
      enum_name(p.placement), enum_name(p.scored), enum_name(p.reach), enum_name(p.tail), enum_name(p.join),
      p.min_tokens == 0 ? "" : fmt::format(", of at least {}", counted(p.min_tokens, "token")),
      p.max_documents == 0 ? "" : fmt::format(", the first {}", grouped(p.max_documents)), enum_name(p.average)));
}

void print_bos(const Measured& one, const eval::Protocol& p) {
  const std::string place = fmt::format("({})", enum_name(p.bos_place));
  print_prose(bos_text(one.results.front().bos, place.c_str(), ", so the first token of a document is not scored") +
              "\n");
}

// A stride cannot exceed the number of text tokens in a window.
void print_strides(const std::vector<eval::PerplexityResult>& results, const eval::Protocol& p) {
  std::string shorter;
  for (const eval::PerplexityResult& r : results)
    if (r.stride < (p.stride == 0 ? r.length : std::min(p.stride, r.length)) || r.stride < p.stride)
      shorter += fmt::format("{}{} at length {}", shorter.empty() ? "" : ", ", r.stride, r.length);
  if (shorter.empty()) return;
  const bool bos = results.front().bos && p.bos_place == eval::BosPlace::kEveryWindow;
  print_prose(fmt::format("stride: {}, since a window holds no more tokens of the text{}\n", shorter,
                          bos ? "; bos takes one place" : ""));
}

void print_notes(const std::vector<eval::PerplexityResult>& results, const eval::Protocol& p) {
  print_strides(results, p);
  for (const eval::PerplexityResult& r : results) {
    if (!r.reaches_length())
      print_prose(fmt::format("* length {}: no document is so long; the longest window has {}\n", r.length,
                              counted(r.longest_window, "token")));
    else if (r.short_documents > 0)
      print_prose(fmt::format("length {}: {} of {} {} shorter\n", r.length, grouped(r.short_documents),
                              counted(r.documents, "document"), r.short_documents == 1 ? "is" : "are"));
  }
  const auto few = [](const eval::PerplexityResult& r) { return r.equal_windows < kLeastWindows; };
  if (p.average == eval::Average::kTokens)
    print_prose(fmt::format(
        "+-: one standard error over windows, as if these were independent{}\n",
        std::ranges::any_of(results, few)
            ? fmt::format("; left out where there are fewer than {}, a short window counting as part of one",
                          kLeastWindows)
            : ""));
  const auto unequal = std::ranges::find_if(
      results, [](const eval::PerplexityResult& r) { return 10 * r.fewest_scored < r.most_scored; });
  if (unequal != results.end())
    print_prose(
        fmt::format("ppl (windows): every window counts the same, though at length {} they score from {} to {}\n",
                    unequal->length, grouped(unequal->fewest_scored), counted(unequal->most_scored, "token")));
  print_prose("word ppl: exp(nll of the scored tokens / their words between white space)\n");
}

void print_all(const PplFlags& flags, const eval::Protocol& protocol, const std::vector<Measured>& all,
               const ordered_json& documents, const FoundKeys& keys, const Measurement& measurement) {
  for (const Measured& one : all) {
    print_model_line(one.model, one.loaded);
    print_documents(one, protocol);
    if (all.size() > 1) print_bos(one, protocol);
  }
  print_protocol(flags, protocol);
  if (all.size() == 1) print_bos(all[0], protocol);
  print("\n" + table_text(ppl_table(all, protocol.average)));
  print_prose(measurement.line());
  print_notes(all[0].results, protocol);
  print_comparison(all, protocol);
  print_details(flags.details, keys, detailed(all));
  if (flags.by_document) print("\n" + table_text(documents_table(documents)));
  const std::vector<std::string> names = short_names(all);
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<int64_t> lengths;
    for (const eval::PerplexityResult& r : all[i].results) lengths.push_back(r.length);
    note_extrapolation(all[i].loaded, lengths, all.size() == 1 ? "" : names[i]);
  }
}

DocumentLimits limits_of(const eval::Protocol& p) {
  return {.min_tokens = p.min_tokens, .max_tokens = p.max_tokens, .cut = p.cut, .max_documents = p.max_documents};
}

// Reads and tokenizes the text again only when the tokenizer changes.
class TextReader {
 public:
  TextReader(const PplFlags& flags, const eval::Protocol& protocol) : flags_(flags), limits_(limits_of(protocol)) {}
  const Documents& with(const text::Tokenizer& tokenizer) {
    if (tokenizer.fingerprint() != read_with_) {
      documents_ = read_documents(flags_.text, limits_, tokenizer);
      read_with_ = tokenizer.fingerprint();
    }
    return documents_;
  }

 private:
  const PplFlags& flags_;
  DocumentLimits limits_;
  Documents documents_;
  std::string read_with_;  // fingerprint of the tokenizer that was used
};

eval::PerplexityOptions options_of(const PplFlags& flags, const eval::Protocol& protocol,
                                   const std::optional<model::RopeScaling>& scaling) {
  return {.protocol = protocol,
          .scaling = scaling,
          .batch_tokens = flags.batch_tokens,
          .id_text = {},
          .progress = {},
          .ranks = ranks(),
          .share = flags.context_parallel ? eval::Share::kTokens : eval::Share::kWindows,
          .by_position = flags.details.wants_positions() ? eval::ByPosition::kYes : eval::ByPosition::kNo};
}

// The work at each length. Throws the errors that the measurement would throw.
std::vector<Part> parts_of(const model::ModelSpec& spec, const Documents& documents,
                           const eval::PerplexityOptions& options) {
  std::vector<Part> parts;
  for (const eval::PerplexityResult& r : eval::plan_perplexity(spec, documents.ids, options))
    parts.push_back(ppl_part(spec, r));
  return parts;
}

// One of several models, with the flags that apply to all.
struct Candidate {
  ModelFlags flags;
  ModelShape shape;
};

// Adds the name of the model to errors if there are several.
template <typename Work>
auto naming(const PplFlags& flags, const std::string& model, const Work& work) {
  try {
    return work();
  } catch (const dist::SharedError& error) {
    if (flags.models.items.size() == 1) throw;
    throw dist::SharedError(error.kind(), fmt::format("{}: {}", model, error.what()));
  } catch (const Error& error) {
    if (flags.models.items.size() == 1) throw;
    throw Error(error.kind(), fmt::format("{}: {}", model, error.what()));
  }
}

// Checks all models before the first is run.
std::vector<Candidate> candidates_of(const PplFlags& flags) {
  COCA_CHECK(!flags.models.items.empty(), "--model: no model folder given");
  for (const std::string& model : flags.models.items)
    COCA_CHECK(std::ranges::count(flags.models.items, model) == 1, "--model {}: is given twice; give each model once",
               model);
  std::vector<Candidate> all;
  for (const std::string& model : flags.models.items)
    naming(flags, model, [&] {
      Candidate& one = all.emplace_back(Candidate{.flags = flags, .shape = {}});
      one.flags.model = model;
      one.shape = load_shape(one.flags);
      model::require_causal(one.shape.spec, "perplexity");
    });
  return all;
}

Evaluator evaluator_of(const PplFlags& flags, const std::vector<Candidate>& candidates) {
  ModelFlags evaluator = candidates.front().flags;
  if (!flags.details.evaluator.empty())
    evaluator = ModelFlags{.model = flags.details.evaluator,
                           .tokenizer = flags.tokenizer,
                           .adapter = "",
                           .rope_scaling = {},
                           .precision = flags.precision};
  Evaluator found = load_evaluator(std::move(evaluator), flags.details);
  for (const Candidate& one : candidates)
    COCA_CHECK(
        one.shape.tokenizer->fingerprint() == found.shape.tokenizer->fingerprint(),
        "--key-tokens: {} has another tokenizer than {}, which finds the key tokens; they must be the same tokens "
        "for all models: compare models with one tokenizer",
        one.flags.model, found.flags.model);
  return found;
}

FoundKeys find_keys(const PplFlags& flags, const eval::Protocol& protocol, const std::vector<Candidate>& candidates,
                    TextReader& text) {
  if (!flags.details.key_tokens) return {};
  Evaluator evaluator = evaluator_of(flags, candidates);
  const Documents& documents = text.with(*evaluator.shape.tokenizer);
  const std::optional<model::RopeScaling> scaling = evaluator.shape.scaling;
  return evaluator.find(documents, options_of(flags, protocol, scaling));
}

int dry_run(const PplFlags& flags, const eval::Protocol& protocol, const std::vector<Candidate>& candidates) {
  TextReader text(flags, protocol);
  double seconds = 0;
  if (flags.details.key_tokens) {
    const Evaluator evaluator = evaluator_of(flags, candidates);
    const std::vector<Part> parts =
        evaluator.parts(text.with(*evaluator.shape.tokenizer), options_of(flags, protocol, evaluator.shape.scaling));
    seconds += print_eval_work(evaluator.flags, evaluator.shape.spec, parts, flags.batch_tokens);
    print("\n");
  }
  for (const Candidate& one : candidates)
    seconds += naming(flags, one.flags.model, [&] {
      const std::vector<Part> parts =
          parts_of(one.shape.spec, text.with(*one.shape.tokenizer), options_of(flags, protocol, one.shape.scaling));
      return print_eval_work(one.flags, one.shape.spec, parts, flags.batch_tokens);
    });
  if (candidates.size() > 1)
    print(fmt::format("\nall {}: about {}\n", counted(candidates.size(), "model"), report::format_duration(seconds)));
  return end_dry_run();
}

// Adds the model and appends its results length by length.
void measure(const PplFlags& flags, const eval::Protocol& protocol, const FoundKeys& keys, Candidate& one,
             TextReader& text, std::vector<Measured>& all) {
  const Documents& documents = text.with(*one.shape.tokenizer);
  eval::PerplexityOptions options = options_of(flags, protocol, one.shape.scaling);
  if (keys.rule) options.key_tokens = &keys.tokens;
  WorkShare share(parts_of(one.shape.spec, documents, options));
  Measured& m =
      all.emplace_back(Measured{.model = one.flags.model, .loaded = load_with_flags(one.flags, std::move(one.shape))});
  m.split = documents.split;
  const Measurement measurement([&] {
    LateProgress progress;
    options.id_text = eval::text_of_ids(*m.loaded.tokenizer);
    options.progress = [&](const eval::PerplexityProgress& p) {
      progress
          .shown({.total = p.total_tokens,
                  .unit = "tokens",
                  .label = flags.models.items.size() == 1 ? "ppl" : "ppl " + m.model})
          .update(p.done_tokens, fmt::format("length {} ppl {}", p.length, report::format_number(p.perplexity)),
                  share.at(p.length, p.done_tokens));
    };
    Context cx;
    eval::perplexity(cx, m.loaded.model.spec, m.loaded.model.params->weights(), documents.ids, options, m.results);
    progress.finish();
  });
  m.loaded.model.params.reset();
  m.documents = documents_json(m.results, documents);
  measurement.rethrow();
}

// The requested measurements that are missing from the results.
std::vector<std::string> missing_of(const PplFlags& flags, const eval::Protocol& protocol,
                                    const std::vector<Measured>& all) {
  std::vector<std::string> missing;
  for (size_t i = 0; i < flags.models.items.size(); ++i) {
    const std::string of = flags.models.items.size() == 1 ? "" : " of " + flags.models.items[i];
    const size_t done = i < all.size() ? all[i].results.size() : 0;
    if (done > 0 && !all[i].results.back().whole()) {
      const eval::PerplexityResult& r = all[i].results.back();
      missing.push_back(fmt::format("{} of {} of length {}{}", grouped(r.planned_windows - r.windows),
                                    counted(r.planned_windows, "window"), r.length, of));
    }
    for (size_t l = done; l < protocol.lengths.size(); ++l)
      missing.push_back(fmt::format("length {}{}", protocol.lengths[l], of));
  }
  return missing;
}

// One model keeps its usual format. Several models are in a list, and each row names its model.
ordered_json all_json(PplFlags& flags, eval::Protocol protocol, const std::vector<Measured>& all, const FoundKeys& keys,
                      const Measurement& measurement) {
  ordered_json options = result_options(flags);
  const bool several = all.size() > 1 || flags.models.items.size() > 1;
  if (!several) options["model"] = all[0].model;
  ordered_json json = header_json(all[0].model, all[0].loaded, std::move(options));
  if (several) {
    json = {{"coca", json["coca"]}, {"models", ordered_json::array()}, {"options", json["options"]}};
    for (const Measured& one : all) {
      ordered_json header = header_json(one.model, one.loaded, {});
      header.erase("coca");
      header.erase("options");
      json["models"].push_back(std::move(header));
    }
  }
  json["protocol"] = io::options_to_json(protocol);
  if (keys.rule) json["key_tokens"] = keys_json(keys);
  measurement.mark(json);
  json["results"] = json["documents"] = ordered_json::array();
  if (flags.details.wants_positions()) json["positions"] = ordered_json::array();
  const auto add = [&](const char* list, const Measured& one, const ordered_json& row) {
    ordered_json named;
    if (several) named["model"] = one.model;
    named.update(row);
    json[list].push_back(std::move(named));
  };
  for (const Measured& one : all) {
    for (const eval::PerplexityResult& r : one.results) add("results", one, ppl_json(r));
    for (const ordered_json& row : one.documents) add("documents", one, row);
    for (const ordered_json& row : positions_json(one.results)) add("positions", one, row);
  }
  return json;
}

int run_ppl(PplFlags& flags) {
  check_outputs(flags.output);
  check_details(flags.details);
  std::vector<Candidate> candidates = candidates_of(flags);
  const auto shortest =
      std::ranges::min_element(candidates, {}, [](const Candidate& one) { return one.shape.spec.max_position; });
  const eval::Protocol protocol = protocol_from(flags, shortest->shape.spec.max_position);
  if (flags.dry_run) return dry_run(flags, protocol, candidates);
  std::vector<Measured> all;
  FoundKeys keys;
  Measurement measurement([&] {
    TextReader text(flags, protocol);
    keys = find_keys(flags, protocol, candidates, text);
    for (Candidate& one : candidates)
      naming(flags, one.flags.model, [&] { measure(flags, protocol, keys, one, text, all); });
  });
  if (measurement.partial()) measurement.missing = missing_of(flags, protocol, all);
  std::erase_if(all, [](const Measured& one) { return one.results.empty(); });
  if (all.empty()) measurement.rethrow();
  for (const Measured& one : all)
    for (const eval::PerplexityResult& r : one.results)
      measurement.check(r.value(protocol.average),
                        fmt::format("length {}{}", r.length, all.size() == 1 ? "" : " of " + one.model));
  const ordered_json json = all_json(flags, protocol, all, keys, measurement);
  return measurement.report([&] {
    print_all(flags, protocol, all, json["documents"], keys, measurement);
    write_each(
        {[&] { write_outputs(flags.output, json, "results", [&] { return ppl_svg(all, protocol, measurement); }); },
         [&] {
           if (!json["documents"].empty())
             write_outputs(OutputFlags{.json = "", .csv = flags.document_csv}, json, "documents");
         },
         [&] { write_positions(flags.details, json, detailed(all), measurement); }});
  });
}

}  // namespace

void add_eval_ppl(CLI::App& eval_app, Action* action) {
  add_command<PplFlags>(
      eval_app, action, "ppl", "Perplexity by window length, under a named protocol",
      "Example: coca eval ppl --model out/model --text books --protocol yarn --lengths 512,1024,2048 "
      "--rope-scaling dynamic --factor 4; with --model A --model B both stand in one table and one plot; --key-tokens "
      "adds LongPPL, --by-position the loss by position in the window",
      run_ppl);
}

}  // namespace coca::tools
