// coca bench attention|train|eval|decode|ring: speed on this machine. The measurements are in coca/bench;
// bench/README.md explains them.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/bench/attention.h"
#include "coca/bench/decode.h"
#include "coca/bench/eval.h"
#include "coca/bench/machine.h"
#include "coca/bench/ring.h"
#include "coca/bench/train.h"
#include "output_flags.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

template <class Options>
struct BenchFlags : Options {
  OutputFlags output;

  template <class V>
  void visit(V&& v) {
    Options::visit(v);
    output.visit(v);
  }
};

struct Measured {
  report::Table table;
  ordered_json results = ordered_json::array();
  std::vector<std::string> notes;
};

template <class Result>
Measured measured(report::Table table, const std::vector<Result>& results, std::vector<std::string> notes) {
  Measured m{.table = std::move(table), .notes = std::move(notes)};
  for (const Result& result : results) m.results.push_back(bench::to_json(result));
  return m;
}

constexpr const char* kSpreadNote =
    "+-: half the distance between the quartiles of the rounds, as a share of their median";
constexpr const char* kAboveNote =
    "a share above 100 %: the rate is that of one product or reading of fixed size, and smaller data, which stay in "
    "the "
    "caches, can be faster; so can rounds in which the machine's clock was higher";
constexpr const char* kRateNote = "matrix rate: the fastest product of 2048 x 2048 x 2048 in the same rounds";

std::string rate_note(double matrix_gflops) {
  return fmt::format("{}, in the last rows {} GFLOP/s", kRateNote, report::format_number(matrix_gflops));
}

bool any_share_above_one(const ordered_json& results) {
  for (const ordered_json& result : results)
    for (const auto& [key, value] : result.items())
      if (key.starts_with("share_of_") && value.is_number() && value.get<double>() > 1) return true;
  return false;
}

Measured run_attention(Context& cx, const bench::AttentionOptions& o, bench::ProgressCounter progress) {
  bench::AttentionReport r = bench_attention(cx, o, std::move(progress));
  COCA_CHECK(!r.results.empty(), "nothing to time: {}", r.notes.front());
  r.notes.push_back(rate_note(r.results.back().matrix_gflops));
  return measured(attention_table(o, r), r.results, r.notes);
}

Measured run_train(Context& cx, const bench::TrainOptions& o, bench::ProgressCounter progress) {
  check_is_no_file("--export", o.export_to);
  if (!o.export_to.empty()) export_models(cx, o);
  const auto results = bench_train(cx, o, std::move(progress));
  return measured(train_table(o, results), results, {rate_note(results.back().matrix_gflops)});
}

Measured run_eval(Context& cx, const bench::EvalOptions& o, bench::ProgressCounter progress) {
  const auto results = bench_eval(cx, o, std::move(progress));
  return measured(eval_table(o, results), results, {rate_note(results.back().matrix_gflops)});
}

Measured run_decode(Context& cx, const bench::DecodeOptions& o, bench::ProgressCounter progress) {
  const auto results = bench_decode(cx, o, std::move(progress));
  return measured(
      decode_table(o, results), results,
      {fmt::format("memory rate: the fastest reading of 256 MiB in the same rounds, in the last rows {} GB/s; GB/s "
                   "counts the weights and the cache once",
                   report::format_number(results.back().memory_gbytes_per_second))});
}

Measured run_ring(Context& cx, const bench::RingOptions& o, bench::ProgressCounter progress) {
  const auto results = bench_ring(cx, o, std::move(progress));
  return measured(ring_table(o, results), results,
                  {"work: of one rank, timed alone in this process; all ranks have the same",
                   fmt::format("simulated: {} Gbit/s both ways, {} us a message, machines {} times as fast as this "
                               "process; hidden: messages travel while "
                               "it computes, apart: they do not",
                               o.gbit, o.latency_us, o.machine_speed)});
}

template <class Options>
int run(const char* name, BenchFlags<Options>& flags,
        Measured (*measure)(Context&, const Options&, bench::ProgressCounter)) {
  LateProgress progress;
  const auto show = [&](const bench::ProgressState& s) {
    report::Progress& shown = progress.shown({.total = s.total, .unit = "runs", .label = name});
    if (s.begins)
      shown.begin(s.what);
    else
      shown.update(s.done, s.what, s.share);
  };
  Context cx;
  const Measured m = measure(cx, flags, {.sink = show});
  progress.finish();
  const bench::Machine machine = bench::this_machine();
  print_prose(machine.text() + "\n\n");
  print(table_text(m.table) + "\n");
  for (const std::string& note : m.notes) print_prose(note + "\n");
  if (any_share_above_one(m.results)) print_prose(std::string(kAboveNote) + "\n");
  print_prose(std::string(kSpreadNote) + (flags.repeat.repeats > 1 ? "\n" : "; -: one round has none\n"));
  if constexpr (requires { flags.against; })
    if (flags.against)
      print_prose(
          fmt::format("x {}: the median of the rounds' ratios; where the machine's speed changes between rounds, it "
                      "differs from the "
                      "ratio of the medians in the other columns\n",
                      enum_name(*flags.against)));
  ordered_json json;
  json["bench"] = name;
  json["machine"] = to_json(machine);
  json["options"] = result_options(flags);
  json["notes"] = m.notes;
  json["results"] = m.results;
  write_outputs(flags.output, json, "results");
  return 0;
}

template <class Options>
void add_one(CLI::App& bench_app, Action* action, const char* name, const char* help, const char* footer,
             Measured (*measure)(Context&, const Options&, bench::ProgressCounter)) {
  add_command<BenchFlags<Options>>(bench_app, action, name, help, footer,
                                   [=](BenchFlags<Options>& flags) { return run(name, flags, measure); });
}

}  // namespace

void add_bench(CLI::App& root, Action* action) {
  CLI::App& app = add_group(
      root, "bench",
      "Measure this machine: attention, training, evaluation, decoding; ring: simulate a sequence over many machines",
      "Example: coca bench attention --attention coca-slack --against rope --lengths 2048,8192");
  add_one(app, action, "attention", "Attention with its prologue, forward and backward, by length",
          "Times rotation or CoCA's prologue together with attention. GFLOP/s counts the products of pairs that "
          "the mask, the\n"
          "window and the documents leave (4 D a pair forward, 10 D backward). A small case is compared with the "
          "plain loops first.\n\n"
          "Examples:\n"
          "  coca bench attention --attention coca-slack --against rope --lengths 2048,8192\n"
          "  coca bench attention --attention coca-slack --lengths 32768 --window 4096\n"
          "  coca bench attention --attention coca-slack --lengths 8192 --documents 16\n"
          "  coca bench attention --attention einsum,einsum-3d --against coca-slack --lengths 256,512,1024",
          run_attention);
  add_one(app, action, "train", "Optimizer steps of a random model",
          "One step is forward, backward and AdamW on random tokens. GFLOP/s counts matrix products, three "
          "times the forward ones.\n\n"
          "Examples:\n"
          "  coca bench train --preset 10m --attention coca-slack --against rope\n"
          "  coca bench train --preset 100m --length 2048 --batch 1 --json out/train.json",
          run_train);
  add_one(app, action, "eval", "One long window of a random model: speed and peak memory by length",
          "Runs what `coca eval ppl` runs for one window. Peak memory is the process's while that length ran.\n\n"
          "Examples:\n"
          "  coca bench eval --preset 10m --lengths 4096,16384,65536\n"
          "  coca bench eval --preset 350m --lengths 32768 --repeats 1",
          run_eval);
  add_one(app, action, "decode", "Tokens one by one from a cache of a given length",
          "Fills the cache with random tokens, then times single tokens, their logits included.\n\n"
          "Examples:\n"
          "  coca bench decode --preset 10m --attention coca-slack --against rope --lengths 2048,32768",
          run_decode);
  add_one(app, action, "ring",
          "One sequence over many machines: a rank's work, its bytes, and the simulated time on a network",
          "Times one rank's share of a layer's attention, counts the bytes it sends, and calculates the time of the "
          "pass on "
          "machines with such a\n"
          "network. A simulation; what it assumes: docs/math/ring_attention.md.\n\n"
          "Examples:\n"
          "  coca bench ring --lengths 32768 --machines 1,2,4,8,16,32,64\n"
          "  coca bench ring --lengths 1048576 --machines 64 --heads 1 --repeats 1",
          run_ring);
}

}  // namespace coca::tools
