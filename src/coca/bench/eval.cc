// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/eval.h"

#include <nlohmann/json.hpp>

#include "coca/base/count.h"
#include "coca/base/memory.h"
#include "coca/base/sizes.h"
#include "coca/bench/answers.h"
#include "coca/bench/machine.h"
#include "coca/eval/perplexity.h"

namespace coca::bench {

namespace {

using model::AttentionKind;

constexpr int64_t kCheckLength = 67;

double nll_of(Context& cx, const model::ModelSpec& spec, const model::ParamStore& params,
              const std::vector<int32_t>& ids) {
  const auto N = static_cast<int64_t>(ids.size());
  return eval::perplexity(cx, spec, params.weights(), std::span(&ids, 1),
                          {.protocol = {.lengths = {N}, .stride = N, .bos = eval::Bos::kNever}})
      .front()
      .nll;
}

void check_answer(Context& cx, const EvalOptions& o, AttentionKind kind) {
  const model::ModelSpec spec = make_check_spec(o.shape, kind, kCheckLength);
  const model::ParamStore params = random_params(spec, o.precision, cx.memory()), exact = random_params(spec);
  const std::vector<int32_t> ids = random_ids(kCheckLength, spec.V, 2);
  Context plain = reference_context();
  const auto actual = static_cast<float>(nll_of(cx, spec, params, ids)),
             expected = static_cast<float>(nll_of(plain, spec, exact, ids));
  check_close({&actual, DType::kF32, {1}, kHost}, {&expected, DType::kF32, {1}, kHost}, o.precision,
              model_roundings(o.precision), fmt::format("nll of {}", enum_name(kind)));
}

struct EvalCase {
  model::ModelSpec spec;
  std::vector<int32_t> ids;
  int64_t peak = 0;
};

void run_window(const EvalCase& c, const model::ParamStore& params) {
  Context cx;  // its scratch counts, and no other length's
  nll_of(cx, c.spec, params, c.ids);
}

}  // namespace

std::vector<EvalResult> bench_eval(Context& cx, const EvalOptions& o, ProgressCounter progress) {
  check_repeats(o.repeat);
  const std::vector<AttentionKind> kinds = kinds_of(o.kind, o.against);
  COCA_CHECK(!o.lengths.empty(), "lengths: none given");
  for (const int64_t N : o.lengths) COCA_CHECK(N >= 2, "lengths holds {}; expected at least 2", N);
  for (const int64_t N : o.lengths) check_memory("a window", {{"lengths", N}, {"bytes", 64}}, "ask for shorter ones");
  const auto count = static_cast<int64_t>(kinds.size());
  const model::ModelSpec first = make_spec(o.shape, kinds.front(), o.lengths.front());
  const auto work = [&](int64_t N) { return static_cast<double>(N) * model::forward_flops_per_token(first, N); };
  for (const int64_t N : o.lengths) progress.plan(count + planned_steps(count + 1, o.repeat), work(N));
  for (const AttentionKind kind : kinds) {
    progress.begin(fmt::format("checking {} against the plain loops", enum_name(kind)));
    check_answer(cx, o, kind);
  }

  progress.begin(fmt::format("making a model of {}", counted(model::parameter_count(first), "parameter")));
  const ParamsOfKinds params(o.shape, kinds, o.lengths.front(), o.precision, cx.memory());
  std::vector<EvalResult> results;
  for (const int64_t N : o.lengths) {
    progress.work_of_step = work(N);
    std::vector<EvalCase> cases;
    for (const AttentionKind kind : kinds) {
      EvalCase c{.spec = make_spec(o.shape, kind, N), .ids = random_ids(N, first.V, 2)};
      progress.begin(fmt::format("{} {} memory", enum_name(kind), N));
      reset_peak_resident();
      run_window(c, params.of(c.spec));
      c.peak = peak_resident_bytes() - params.bytes_of_others(c.spec);
      progress.step(fmt::format("{} {} memory", enum_name(kind), N));
      cases.push_back(std::move(c));
    }
    std::vector<Contestant> contestants;
    contestants.reserve(cases.size() + 1);
    for (const EvalCase& c : cases)
      contestants.push_back(
          {fmt::format("{} {}", enum_name(c.spec.attention), N), [&] { run_window(c, params.of(c.spec)); }});
    MatrixProduct product(cx, dtype_of(o.precision));  // only now, so that it is not in the peak
    contestants.push_back(product.contestant());
    const std::vector<Timing> timings = measure_interleaved(contestants, o.repeat, progress);
    for (size_t i = 0; i < cases.size(); ++i) {
      const double flop = static_cast<double>(N) * model::forward_flops_per_token(cases[i].spec, N);
      EvalResult r{.length = N,
                   .kind = kinds[i],
                   .parameters = model::parameter_count(cases[i].spec),
                   .seconds = timings[i],
                   .tokens_per_second = static_cast<double>(N) / timings[i].median,
                   .gflops = 1e-9 * flop / timings[i].median,
                   .matrix_gflops = MatrixProduct::gflops(timings.back()),
                   .weight_bytes = static_cast<int64_t>(params.of(cases[i].spec).flat().bytes()),
                   .peak_resident_bytes = cases[i].peak};
      if (o.against) r.ratio = ratio_of(timings[i], timings[0]);
      results.push_back(std::move(r));
    }
  }
  return results;
}

report::Table eval_table(const EvalOptions& o, const std::vector<EvalResult>& results) {
  report::Table table{.title = "",
                      .header = {"length", "attention", "parameters", "seconds", "+-", "tokens/s", "GFLOP/s",
                                 "of matrix rate", "weights", "peak memory"},
                      .rows = {},
                      .align = {report::Align::kRight, report::Align::kLeft}};
  if (o.against) table.header.push_back(fmt::format("x {}", enum_name(*o.against)));
  for (const EvalResult& r : results) {
    table.rows.push_back({fmt::format("{}", r.length), std::string(enum_name(r.kind)), grouped(r.parameters),
                          report::format_number(r.seconds.median), r.seconds.spread_text(),
                          grouped(static_cast<int64_t>(r.tokens_per_second)), report::format_number(r.gflops),
                          fmt::format("{:.1f} %", 100 * r.gflops / r.matrix_gflops),
                          report::format_bytes(r.weight_bytes), report::format_bytes(r.peak_resident_bytes)});
    if (r.ratio) table.rows.back().push_back(fmt::format("{:.3f}", r.ratio->median));
  }
  return table;
}

nlohmann::ordered_json to_json(const EvalResult& r) {
  nlohmann::ordered_json j;
  j["length"] = r.length;
  j["attention"] = std::string(enum_name(r.kind));
  j["parameters"] = r.parameters;
  add_timing(j, "seconds", r.seconds);
  j["tokens_per_second"] = r.tokens_per_second;
  add_rates(j, r.gflops, r.matrix_gflops);
  j["weight_bytes"] = r.weight_bytes;
  j["peak_resident_bytes"] = r.peak_resident_bytes;
  add_ratio(j, r.ratio);
  return j;
}

}  // namespace coca::bench
