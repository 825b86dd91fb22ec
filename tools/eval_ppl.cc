// coca eval ppl: perplexity by window length under a named protocol. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/perplexity.h"

#include <cmath>
#include <limits>

#include "coca/model/windows.h"
#include "coca/report/chart.h"
#include "coca/report/table.h"
#include "eval_command.h"
#include "ranks.h"
#include "text_documents.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct PplFlags : ModelFlags {
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
  int64_t batch_tokens = 8192;
  bool by_document = false, context_parallel = false;
  std::string document_csv;
  EvalOutputFlags output;

  template <class V>
  void visit(V&& v) {
    static const std::string protocol_help =
        "named set of the choices below (docs/evaluation.md): " + eval::protocol_names();
    ModelFlags::visit(v);
    text.visit(v);
    v.group("Protocol (what is given here wins over --protocol)");
    v("protocol", protocol_help, protocol);
    v("lengths", "windows in tokens, a leading bos included", lengths);
    v("stride", "tokens from window to window; at most the window, which 0 means", stride);
    v("placement", "where windows lie", placement);
    v("scored", "which targets of a window count", scored);
    v("reach", "whether a window's last token predicts the one behind it", reach);
    v("tail", "whether a last window that is not full is run", tail);
    v("bos", "whether there is a bos token; auto: if config.json names one", bos);
    v("bos_place", "where it stands", bos_place);
    v("average", "mean over tokens, or over windows' means", average);
    v("join", "windows within documents, or over all of them in a row", join);
    v("min_tokens", "pass over documents with fewer tokens", min_tokens);
    v("max_tokens", "cut every document after so many tokens; 0: none", max_tokens);
    v("max_documents", "take the first so many; 0: all", max_documents);
    v.group("Run");
    v("batch_tokens", "run windows together up to about so many tokens", batch_tokens);
    v("context_parallel", "under mpirun: ranks share the tokens of every window, not whole windows (docs/parallel.md)", context_parallel);
    output.visit(v);
    v("by_document", "print a table of the documents too", by_document);
    v("document_csv", "write one row per length and document to this file", document_csv);
  }
};

eval::Protocol protocol_from(const PplFlags& flags) {
  eval::Protocol p = eval::protocol_of(flags.protocol);
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
  set(p.max_documents, flags.max_documents);
  eval::check_protocol(p);
  return p;
}

report::Table ppl_table(const std::vector<eval::PerplexityResult>& results, eval::Average average) {
  report::Table table{.title = "",
                      .header = {"length", "stride", "windows", "scored tokens", "ppl", "+-", "nll",
                                 "bits/byte", "word ppl", "ppl (windows)", "tokens/s", "peak memory"},
                      .rows = {},
                      .align = {}};
  if (average == eval::Average::kWindows) table.header[4] = "ppl (windows)", table.header[9] = "ppl (tokens)";
  const eval::Average other =
      average == eval::Average::kTokens ? eval::Average::kWindows : eval::Average::kTokens;
  for (const eval::PerplexityResult& r : results) {
    std::optional<double> ppl_error;
    if (r.standard_error && average == eval::Average::kTokens) ppl_error = r.perplexity * *r.standard_error;
    table.rows.push_back({fmt::format("{}{}", r.length, r.reaches_length() ? "" : "*"),
                          fmt::format("{}", r.stride), report::format_count(r.windows),
                          report::format_count(r.scored_tokens), report::format_number(r.value(average)),
                          report::format_number(ppl_error, 2), report::format_number(r.nll),
                          report::format_number(r.bits_per_byte), report::format_number(r.word_perplexity),
                          report::format_number(r.value(other)),
                          report::format_count(static_cast<int64_t>(r.tokens_per_second)),
                          report::format_bytes(r.peak_resident_bytes)});
  }
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
  return j;
}

// One flat object per length and document, with the book's title and year where a list has them.
ordered_json documents_json(const std::vector<eval::PerplexityResult>& results, const Documents& documents) {
  ordered_json list = ordered_json::array();
  data::BookLists books;
  for (const eval::PerplexityResult& r : results)
    for (const eval::DocumentPerplexity& d : r.by_document) {
      const std::string& name = documents.names[static_cast<size_t>(d.document)];
      const data::Book book = books.find(name).value_or(data::Book{});
      list.push_back({{"length", r.length},
                      {"document", name},
                      {"title", book.title},
                      {"year", book.year ? ordered_json(*book.year) : ordered_json(nullptr)},
                      {"tokens", d.tokens},
                      {"windows", d.sums.windows},
                      {"scored_tokens", d.sums.scored_tokens},
                      {"words", d.sums.words},
                      {"nll", number_json(d.sums.mean_nll())},
                      {"perplexity", number_json(d.sums.perplexity())},
                      {"word_perplexity", number_or_null(d.sums.word_perplexity())},
                      {"bits_per_byte", number_or_null(d.sums.bits_per_byte())}});
    }
  return list;
}

report::Table documents_table(const std::vector<eval::PerplexityResult>& results, const ordered_json& documents) {
  report::Table table{.title = "",
                      .header = {"document", "year", "length", "scored tokens", "ppl", "bits/byte", "word ppl"},
                      .rows = {},
                      .align = {}};
  size_t i = 0;
  for (const eval::PerplexityResult& r : results)
    for (const eval::DocumentPerplexity& d : r.by_document) {
      const ordered_json& j = documents[i++];
      const std::string title = j["title"];
      table.rows.push_back({title.empty() ? j["document"].get<std::string>() : title,
                            j["year"].is_null() ? "-" : j["year"].dump(), fmt::format("{}", r.length),
                            report::format_count(d.sums.scored_tokens), report::format_number(d.sums.perplexity()),
                            report::format_number(d.sums.bits_per_byte()),
                            report::format_number(d.sums.word_perplexity())});
    }
  return table;
}

std::string ppl_svg(const std::vector<eval::PerplexityResult>& results, const LoadedModel& m,
                    eval::Average average) {
  report::Series series{
      .label = fmt::format("{} ({})", enum_name(m.model.spec.attention), scaling_text(m.used_scaling))};
  double low = std::numeric_limits<double>::infinity(),
         high = 0;  // a decade or more wants a logarithmic axis
  for (const eval::PerplexityResult& r : results) {
    series.x.push_back(static_cast<double>(r.length));
    series.y.push_back(r.value(average));
    if (!std::isfinite(series.y.back())) continue;
    low = std::min(low, series.y.back());
    high = std::max(high, series.y.back());
  }
  return report::render_svg(report::Chart{
      .title = "Perplexity by window length",
      .x_label = "window (tokens)",
      .y_label = "perplexity",
      .x_scale = report::Scale::kLog2,
      .y_scale = high > 10 * low ? report::Scale::kLog : report::Scale::kLinear,
      .series = {std::move(series)},
      .vertical_line = report::Marker{static_cast<double>(m.model.spec.max_position), "trained length"}});
}

std::string limit_text(const char* what, int64_t value) {
  return value == 0 ? "" : fmt::format("; {} {}", what, report::format_count(value));
}

void print_protocol(const PplFlags& flags, const eval::Protocol& p, const Documents& documents,
                    const eval::PerplexityResult& first) {
  print(fmt::format("documents: {}{}, {} tokens of them used{}{}\n", report::format_count(first.documents),
                    documents.split ? fmt::format(" (split {})", enum_name(*documents.split)) : "",
                    report::format_count(first.document_tokens),
                    first.skipped_documents > 0 ? fmt::format("; {} too short, passed over", first.skipped_documents) : "",
                    limit_text("cut after", p.max_tokens)));
  print(fmt::format("protocol: {} (stride {}, windows {}, scored {}, reach {}, tail {}, documents {}{}{}; average over {})\n",
                    flags.protocol, p.stride == 0 ? std::string("the window") : std::to_string(p.stride),
                    enum_name(p.placement), enum_name(p.scored), enum_name(p.reach), enum_name(p.tail), enum_name(p.join),
                    limit_text("at least", p.min_tokens), limit_text("at most", p.max_documents), enum_name(p.average)));
  const std::string place = fmt::format("({})", enum_name(p.bos_place));
  print(bos_text(first.bos, place.c_str(), ", so the first token of a document is not scored") + "\n\n");
}

void print_notes(const std::vector<eval::PerplexityResult>& results, const eval::Protocol& p) {
  for (const eval::PerplexityResult& r : results) {
    if (!r.reaches_length())
      print(fmt::format("* length {}: no document is so long; the longest window has {} tokens\n", r.length,
                        r.longest_window));
    else if (r.short_documents > 0)
      print(fmt::format("length {}: {} of {} documents are shorter\n", r.length, r.short_documents, r.documents));
  }
  if (p.average == eval::Average::kTokens) print("+-: one standard error over windows, as if these were independent\n");
  print("word ppl: exp(nll of the scored tokens / their words between white space)\n");
}

std::vector<eval::PerplexityResult> measure(const PplFlags& flags, const eval::Protocol& protocol, const LoadedModel& m,
                                            const Documents& documents) {
  std::optional<report::Progress> progress;
  eval::PerplexityOptions options{.protocol = protocol,
                                  .scaling = m.scaling,
                                  .batch_tokens = flags.batch_tokens,
                                  .id_text = eval::text_of_ids(*m.tokenizer),
                                  .progress = {},
                                  .ranks = ranks(),
                                  .share = flags.context_parallel ? eval::Share::kTokens : eval::Share::kWindows};
  options.progress = [&](const eval::PerplexityProgress& p) {
    if (!progress) progress = make_progress({.total = p.total_tokens, .unit = "tokens", .label = "ppl"});
    progress->update(p.done_tokens, fmt::format("length {} ppl {}", p.length, report::format_number(p.perplexity)));
  };
  Context cx;
  auto results = eval::perplexity(cx, m.model.spec, m.model.params->weights(), documents.ids, options);
  if (progress) progress->finish();
  return results;
}

int run_ppl(PplFlags& flags) {
  check_outputs(flags.output);
  eval::Protocol protocol = protocol_from(flags);
  const LoadedModel m = load_with_flags(flags);
  model::require_causal(m.model.spec, "perplexity");
  const Documents documents = read_documents(
      flags.text, {.min_tokens = protocol.min_tokens, .max_tokens = protocol.max_tokens, .max_documents = protocol.max_documents}, *m.tokenizer);
  const std::vector<eval::PerplexityResult> results = measure(flags, protocol, m, documents);
  const ordered_json by_document = documents_json(results, documents);
  print_model_line(flags.model, m);
  print_protocol(flags, protocol, documents, results.front());
  print(report::to_text(ppl_table(results, protocol.average)));
  print_notes(results, protocol);
  if (flags.by_document) print("\n" + report::to_text(documents_table(results, by_document)));
  note_extrapolation(m, protocol.lengths);
  ordered_json json = header_json(flags.model, m, io::options_to_json(flags));
  json["protocol"] = io::options_to_json(protocol);
  json["results"] = ordered_json::array();
  for (const eval::PerplexityResult& r : results) json["results"].push_back(ppl_json(r));
  json["documents"] = by_document;
  write_outputs(flags.output, json, "results", [&] { return ppl_svg(results, m, protocol.average); });
  if (!by_document.empty())
    write_outputs(OutputFlags{.json = "", .csv = flags.document_csv}, json, "documents");
  return 0;
}

}  // namespace

void add_eval_ppl(CLI::App& eval_app, Action* action) {
  add_one<PplFlags>(eval_app, action, "ppl", "Perplexity by window length, under a named protocol",
                    "Example: coca eval ppl --model out/model --text books --protocol yarn --lengths 512,1024,2048 "
                    "--rope-scaling dynamic --factor 4",
                    run_ppl);
}

}  // namespace coca::tools
