// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/decode.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/sizes.h"
#include "coca/base/stop.h"
#include "coca/bench/answers.h"
#include "coca/bench/machine.h"
#include "coca/infer/cached_decoder.h"
#include "coca/tensor/transfer.h"

namespace coca::bench {

namespace {

using model::AttentionKind;

constexpr int64_t kCheckLength = 21;

struct DecodeCase {
  DecodeCase(Context& context, const model::ModelSpec& s, const model::Weights& weights, const DecodeOptions& o)
      : cx(context),
        spec(s),
        decoder(spec, weights, o.batch, infer::DynamicBase::kStep, 0, o.cache),
        ids(random_ids(o.batch * std::max(o.tokens, o.prefill), spec.V, 2)),
        B(o.batch) {}
  DecodeCase(const DecodeCase&) = delete;

  // Appends pieces until the cache holds `length` tokens; tokens/s of all sequences.
  double fill(int64_t length, int64_t piece) {
    const int64_t before = decoder.length();
    const Stopwatch watch;
    while (decoder.length() < length) {
      if (stop_requested()) fail(ErrorKind::kInterrupted, "stopped; nothing is saved");
      append(std::min(piece, length - decoder.length()));
    }
    cx.synchronize();
    return static_cast<double>(B * (decoder.length() - before)) / watch.seconds();
  }
  void decode(int64_t tokens) {
    const int64_t before = decoder.length();
    for (int64_t i = 0; i < tokens; ++i) {
      append(1);
      decoder.last_logits(cx);
    }
    decoder.truncate(before);
  }
  void append(int64_t n) { decoder.append(cx, {ids.data(), DType::kI32, {B, n}, kHost}); }

  Context& cx;
  model::ModelSpec spec;
  infer::CachedDecoder decoder;
  std::vector<int32_t> ids;
  int64_t B;
  double prefill_rate = 0;
};

void check_options(const DecodeOptions& o) {
  check_repeats(o.repeat);
  COCA_CHECK(!o.lengths.empty(), "lengths: none given");
  for (const int64_t N : o.lengths) COCA_CHECK(N >= 1, "lengths holds {}; expected at least 1", N);
  COCA_CHECK(o.batch >= 1, "batch is {}; expected at least 1", o.batch);
  COCA_CHECK(o.tokens >= 1, "tokens is {}; expected at least 1", o.tokens);
  COCA_CHECK(o.prefill >= 1, "prefill is {}; expected at least 1", o.prefill);
  check_count("tokens", o.tokens);
  const int64_t most = *std::max_element(o.lengths.begin(), o.lengths.end());
  // Ids of all tokens, and more than a byte of cache for each and each layer.
  check_memory("the cache", {{"batch", o.batch}, {"lengths and tokens", most + o.tokens}, {"bytes", 64}},
               "lower one of these");
}

void check_answer(Context& cx, const DecodeOptions& o, AttentionKind kind) {
  const model::ModelSpec spec = make_check_spec(o.shape, kind, kCheckLength);
  const model::ParamStore params = random_params(spec, o.precision, cx.memory()), exact = random_params(spec);
  const std::vector<int32_t> ids = random_ids(kCheckLength, spec.V, 4);
  Context plain = reference_context();
  model::Decoder whole(spec, exact.weights());
  const TensorRef expected = whole.forward(plain, {ids.data(), DType::kI32, {1, kCheckLength}, kHost});
  infer::CachedDecoder cached(spec, params.weights(), 1, infer::DynamicBase::kStep, 0, o.cache);
  Tensor actual({kCheckLength, spec.C}, dtype_of(o.precision), cx.memory());
  for (int64_t n = 0; n < kCheckLength; ++n) {
    const TensorRef hidden = cached.append(cx, {ids.data() + n, DType::kI32, {1, 1}, kHost});
    transfer(cx, actual.ref().select(0, n), hidden.reshape({spec.C}));
  }
  // int8 has 127 steps of its largest number to either side: the rounding of bf16 or a little more.
  const Precision precision = o.cache == KvType::kF32 ? o.precision : Precision::kBF16;
  check_close(actual, expected, precision, model_roundings(precision),
              fmt::format("hidden states of {}", enum_name(kind)));
}

double bytes_per_step(const model::ModelSpec& spec, const model::ParamStore& params, int64_t cached) {
  auto bytes = static_cast<double>(cached);
  for (const model::ParamInfo& info : params.infos()) bytes += static_cast<double>(params.at(info).bytes());
  if (spec.embeddings == model::Embeddings::kTied) return bytes;
  return bytes - static_cast<double>(params.weights().embed.bytes());  // one row of it is read
}

DecodeResult result_of(const DecodeOptions& o, const DecodeCase& c, const model::ParamStore& params, int64_t length,
                       const Timing& seconds) {
  const int64_t per_token = c.spec.L * model::cache_bytes_per_token(c.spec, o.cache);
  return {.length = length,
          .kind = c.spec.attention,
          .batch = o.batch,
          .parameters = model::parameter_count(c.spec),
          .seconds = seconds,
          .tokens_per_second = static_cast<double>(o.batch) / seconds.median,
          .prefill_tokens_per_second = c.prefill_rate,
          .cache_bytes_per_token = per_token,
          .gbytes_per_second = 1e-9 * bytes_per_step(c.spec, params, o.batch * length * per_token) / seconds.median};
}

}  // namespace

std::vector<DecodeResult> bench_decode(Context& cx, const DecodeOptions& o, ProgressCounter progress) {
  check_options(o);
  const std::vector<AttentionKind> kinds = kinds_of(o.kind, o.against);
  std::vector<int64_t> lengths = o.lengths;
  std::ranges::sort(lengths);
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  const auto count = static_cast<int64_t>(kinds.size());
  const model::ModelSpec first = make_spec(o.shape, kinds.front(), lengths.back());
  for (const int64_t length : lengths)
    progress.plan(count + planned_steps(count + 1, o.repeat), static_cast<double>(length));
  for (const AttentionKind kind : kinds) {
    progress.begin(fmt::format("checking {} against the plain loops", enum_name(kind)));
    check_answer(cx, o, kind);
  }

  progress.begin(fmt::format("making a model of {}", counted(model::parameter_count(first), "parameter")));
  const ParamsOfKinds params(o.shape, kinds, lengths.back(), o.precision, cx.memory());
  MemoryRead read(cx);
  std::vector<std::unique_ptr<DecodeCase>> cases;
  std::vector<Contestant> contestants;
  for (const AttentionKind kind : kinds) {
    const model::ModelSpec spec = make_spec(o.shape, kind, lengths.back());
    DecodeCase& c = *cases.emplace_back(std::make_unique<DecodeCase>(cx, spec, params.of(spec).weights(), o));
    contestants.push_back({std::string(enum_name(kind)), [&] { c.decode(o.tokens); }});
  }
  contestants.push_back(read.contestant());

  std::vector<DecodeResult> results;
  for (const int64_t length : lengths) {
    progress.work_of_step = static_cast<double>(length);
    for (const auto& c : cases) {
      progress.begin(fmt::format("filling {} to {}", enum_name(c->spec.attention), length));
      c->prefill_rate = c->fill(length, o.prefill);
      progress.step(fmt::format("{} filled to {}", enum_name(c->spec.attention), length));
    }
    const std::vector<Timing> timings = measure_interleaved(contestants, o.repeat, progress);
    for (size_t i = 0; i < cases.size(); ++i) {
      std::vector<double> each = timings[i].samples;
      for (double& seconds : each) seconds /= static_cast<double>(o.tokens);
      DecodeResult r = result_of(o, *cases[i], params.of(cases[i]->spec), length, summarise(std::move(each)));
      r.memory_gbytes_per_second = MemoryRead::gbytes_per_second(timings.back());
      if (o.against) r.ratio = ratio_of(timings[i], timings[0]);
      results.push_back(std::move(r));
    }
  }
  return results;
}

report::Table decode_table(const DecodeOptions& o, const std::vector<DecodeResult>& results) {
  report::Table table{.title = "",
                      .header = {"length", "attention", "parameters", "ms/token", "+-", "tokens/s", "prefill tokens/s",
                                 "cache/token", "GB/s", "of memory rate"},
                      .rows = {},
                      .align = {report::Align::kRight, report::Align::kLeft}};
  if (o.against) table.header.push_back(fmt::format("x {}", enum_name(*o.against)));
  for (const DecodeResult& r : results) {
    table.rows.push_back({fmt::format("{}", r.length), std::string(enum_name(r.kind)), grouped(r.parameters),
                          report::format_number(1e3 * r.seconds.median), r.seconds.spread_text(),
                          report::format_number(r.tokens_per_second),
                          report::format_number(r.prefill_tokens_per_second),
                          report::format_bytes(r.cache_bytes_per_token), report::format_number(r.gbytes_per_second),
                          fmt::format("{:.1f} %", 100 * r.gbytes_per_second / r.memory_gbytes_per_second)});
    if (r.ratio) table.rows.back().push_back(fmt::format("{:.3f}", r.ratio->median));
  }
  return table;
}

nlohmann::ordered_json to_json(const DecodeResult& r) {
  nlohmann::ordered_json j;
  j["length"] = r.length;
  j["attention"] = std::string(enum_name(r.kind));
  j["batch"] = r.batch;
  j["parameters"] = r.parameters;
  add_timing(j, "seconds", r.seconds);
  j["tokens_per_second"] = r.tokens_per_second;
  j["prefill_tokens_per_second"] = r.prefill_tokens_per_second;
  j["cache_bytes_per_token"] = r.cache_bytes_per_token;
  j["gbytes_per_second"] = r.gbytes_per_second;
  j["memory_gbytes_per_second"] = r.memory_gbytes_per_second;
  j["share_of_memory_rate"] = r.gbytes_per_second / r.memory_gbytes_per_second;
  add_ratio(j, r.ratio);
  return j;
}

}  // namespace coca::bench
