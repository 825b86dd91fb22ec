// coca eval stream: perplexity of one endless text through the cache, measured as in StreamingLLM. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/eval/stream.h"

#include <algorithm>

#include "coca/report/chart.h"
#include "coca/report/table.h"
#include "eval_command.h"
#include "text_documents.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct StreamFlags : ModelFlags {
  TextFlags text;
  int64_t tokens = 1000000, chunk = 128, interval = 10000;
  eval::Bos bos = eval::Bos::kAuto;
  KvType cache = KvType::kF32;
  bool dry_run = false;
  EvalOutputFlags output;

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    text.visit(v);
    v.group("Stream");
    v("tokens", "most tokens to score; 0: all of the text", tokens);
    v("chunk", "tokens that run together; affects results only by rounding", chunk, Least{1});
    v("interval", "tokens between rows of the results", interval, Least{1});
    v("bos", "whether every document begins with a bos token; auto: if config.json names one", bos);
    v("cache", "type of keys and values in the cache", cache);
    v("dry_run", "estimate time and memory, and do nothing", dry_run);
    output.visit(v);
  }
};

ordered_json point_json(const eval::StreamPoint& p) {
  return {{"tokens", p.tokens},
          {"nll", number_json(p.nll)},
          {"perplexity", number_json(p.perplexity())},
          {"part_perplexity", number_json(p.part_perplexity())},
          {"seconds", p.seconds},
          {"cache_tokens", p.cache_tokens},
          {"cache_bytes", p.cache_bytes},
          {"peak_resident_bytes", p.resident_bytes}};
}

// At most about twenty rows, including the last; --csv writes all.
report::Table stream_table(const std::vector<eval::StreamPoint>& points) {
  report::Table table{.title = "",
                      .header = {"tokens", "ppl", "ppl (part)", "tokens held", "cache", "peak memory", "seconds"},
                      .rows = {},
                      .align = {}};
  constexpr size_t kRows = 20;
  const size_t step = (points.size() + kRows - 1) / kRows;
  for (size_t i = 0; i < points.size(); ++i) {
    if ((points.size() - 1 - i) % step != 0) continue;
    const eval::StreamPoint& p = points[i];
    table.rows.push_back({grouped(p.tokens), report::format_number(p.perplexity()),
                          report::format_number(p.part_perplexity()), grouped(p.cache_tokens),
                          report::format_bytes(p.cache_bytes), report::format_bytes(p.resident_bytes),
                          fmt::format("{:.1f}", p.seconds)});
  }
  return table;
}

std::string stream_svg(const std::vector<eval::StreamPoint>& points, const LoadedModel& m,
                       const Measurement& measurement) {
  report::Series all{.label = "all so far"}, part{.label = "since the last point"};
  for (const eval::StreamPoint& p : points) {
    all.x.push_back(static_cast<double>(p.tokens));
    all.y.push_back(p.perplexity());
    part.x.push_back(static_cast<double>(p.tokens));
    part.y.push_back(p.part_perplexity());
  }
  return report::render_svg(report::Chart{.title = measurement.title("Perplexity of a stream, " + method_text(m)),
                                          .x_label = "tokens",
                                          .y_label = "perplexity",
                                          .series = {std::move(all), std::move(part)}});
}

void print_stream(const StreamFlags& flags, const LoadedModel& m, const eval::StreamResult& result,
                  const Measurement& measurement) {
  const eval::StreamPoint& last = result.points.back();
  const model::AttentionPattern& pattern = m.model.spec.pattern;
  const int64_t chunk = std::min(flags.chunk, last.tokens);
  print_model_line(flags.model, m);
  print_prose(fmt::format("stream: {}, {} scored, {} at a time; cache {} ({}); peak memory {}\n",
                          counted(result.documents, "document"), counted(last.tokens, "token"), flags.chunk,
                          report::format_bytes(last.cache_bytes), counted(last.cache_tokens, "token"),
                          report::format_bytes(last.resident_bytes)));
  print_prose(bos_text(result.bos, "in front of every document", ", so the first token of a document is not scored") +
              "\n\n");
  print(table_text(stream_table(result.points)));
  print_prose(measurement.line());
  if (pattern.forgets())
    print_prose(
        fmt::format("tokens held: the cache forgets whole pages of {0} tokens. It keeps the first page, for the {1} "
                    "sinks, and every page with a "
                    "token within the window of {2}; with {3} tokens run together these are at most {4}.\n",
                    kKvPage, pattern.sinks, pattern.window, chunk, pattern.window + chunk + 2 * kKvPage - 2));
  if (!pattern.forgets())
    print_prose(
        "note: nothing is forgotten, so memory grows with the text (see --pattern streaming-llm, lm-infinite)\n");
  note_extrapolation(m, {last.tokens});
  if (!measurement.partial() && last.tokens < flags.tokens)
    print_prose(fmt::format("note: the text ends before {}\n", counted(flags.tokens, "token")));
}

// A stream that forgets nothing does the work of one window with all tokens.
Part part_of(const model::ModelSpec& spec, int64_t tokens, int64_t chunk) {
  const model::AttentionPattern& pattern = spec.pattern;
  const int64_t length =
      std::max<int64_t>(1, pattern.forgets() ? std::min(tokens, 2 * (pattern.sinks + pattern.window + chunk)) : tokens);
  return {.name = "stream",
          .tokens = tokens,
          .flops = static_cast<double>(tokens) * model::forward_flops_per_token(spec, length),
          .length = std::min(length, chunk),
          .units = tokens};
}

// Long streams are meant for patterns with a bounded cache.
void warn_of_growth(const model::ModelSpec& spec, int64_t tokens) {
  constexpr int64_t kTimes = 64;
  if (!spec.pattern.forgets() && tokens > kTimes * spec.max_position)
    log_warning(
        "without --pattern nothing is forgotten: the time grows with the square of the {}, and memory with them; "
        "--dry-run estimates both, --tokens takes fewer",
        counted(tokens, "token"));
}

int run_stream(StreamFlags& flags) {
  check_outputs(flags.output);
  const LoadedModel m = load_with_flags(flags);
  const Documents documents = read_documents(flags.text, {.all_targets = flags.tokens}, *m.tokenizer);
  int64_t total = 0;
  for (const auto& ids : documents.ids) total += static_cast<int64_t>(ids.size());
  const int64_t wanted = flags.tokens == 0 ? total : std::min(total, flags.tokens);
  if (flags.dry_run) {
    print_eval_work(flags, m.model.spec, {part_of(m.model.spec, wanted, flags.chunk)}, flags.chunk);
    return end_dry_run();
  }
  warn_of_growth(m.model.spec, wanted);
  report::Progress progress = make_progress({.total = wanted, .unit = "tokens", .label = "stream"});
  // If nothing is forgotten, the cost of a token grows with the number of tokens before it, and a window of `tokens`
  // tokens does the same work.
  const auto cost = [&](int64_t tokens) {
    const double n = static_cast<double>(std::max<int64_t>(1, tokens));
    return m.model.spec.pattern.forgets()
               ? n
               : n * model::forward_flops_per_token(m.model.spec, std::max<int64_t>(1, tokens));
  };
  eval::StreamOptions options{.tokens = flags.tokens,
                              .chunk = flags.chunk,
                              .interval = flags.interval,
                              .bos = flags.bos,
                              .scaling = m.scaling,
                              .cache = flags.cache};
  options.progress = [&](const eval::StreamPoint& p) {
    progress.update(
        p.tokens,
        fmt::format("ppl {} cache {}", report::format_number(p.perplexity()), report::format_bytes(p.cache_bytes)),
        cost(p.tokens) / cost(wanted));
  };
  Context cx;
  eval::StreamResult result;
  Measurement measurement(
      [&] { eval::stream_perplexity(cx, m.model.spec, m.model.params->weights(), documents.ids, options, result); });
  progress.finish();
  if (result.points.empty()) measurement.rethrow();
  measurement.missing = {
      fmt::format("what comes after {} of about {}", grouped(result.points.back().tokens), counted(wanted, "token"))};
  measurement.check(result.points.back().perplexity(), counted(result.points.back().tokens, "token"));
  ordered_json json = header_json(flags.model, m, result_options(flags));
  measurement.mark(json);
  json["documents"] = result.documents;
  json["bos"] = result.bos ? ordered_json(*result.bos) : ordered_json(nullptr);
  json["points"] = ordered_json::array();
  for (const eval::StreamPoint& p : result.points) json["points"].push_back(point_json(p));
  return measurement.report([&] {
    print_stream(flags, m, result, measurement);
    write_outputs(flags.output, json, "points", [&] { return stream_svg(result.points, m, measurement); });
  });
}

}  // namespace

void add_eval_stream(CLI::App& eval_app, Action* action) {
  add_command<StreamFlags>(eval_app, action, "stream",
                           "Perplexity of one endless text, the cache never reset (StreamingLLM's protocol)",
                           "Example: coca eval stream --model out/model --text books --tokens 1000000 --pattern "
                           "streaming-llm --csv stream.csv",
                           run_stream);
}

}  // namespace coca::tools
