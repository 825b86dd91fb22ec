// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/stream.h"

#include <algorithm>
#include <cmath>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/memory.h"
#include "coca/base/stop.h"
#include "coca/ops/cross_entropy.h"

namespace coca::eval {

double StreamPoint::perplexity() const { return std::exp(nll); }
double StreamPoint::part_perplexity() const { return std::exp(part_nll); }

namespace {

// Hands out inputs and what must follow them, document after document.
class Stream {
 public:
  Stream(std::span<const std::vector<int32_t>> documents, std::optional<int32_t> bos)
      : documents_(documents), bos_(bos) {}

  // At most `most` of them; none when all are through.
  void next(int64_t most, std::vector<int32_t>& inputs, std::vector<int32_t>& targets) {
    inputs.clear();
    targets.clear();
    while (static_cast<int64_t>(inputs.size()) < most && document_ < documents_.size()) {
      const std::vector<int32_t>& ids = documents_[document_];
      const size_t last = ids.size() < 2 ? 0 : bos_ ? ids.size() : ids.size() - 1;  // inputs of this document
      if (at_ == last) {
        ++document_;
        at_ = 0;
        continue;
      }
      begun_ += at_ == 0;
      inputs.push_back(!bos_ ? ids[at_] : at_ == 0 ? *bos_ : ids[at_ - 1]);
      targets.push_back(bos_ ? ids[at_] : ids[at_ + 1]);
      ++at_;
    }
  }
  int64_t begun() const { return begun_; }

 private:
  std::span<const std::vector<int32_t>> documents_;
  std::optional<int32_t> bos_;
  size_t document_ = 0, at_ = 0;
  int64_t begun_ = 0;
};

void check_options(const StreamOptions& o) {
  COCA_CHECK(o.tokens >= 0, "tokens is {}; expected at least 1, or 0 (all)", o.tokens);
  COCA_CHECK(o.chunk >= 1, "chunk is {}; expected at least 1", o.chunk);
  COCA_CHECK(o.interval >= 1, "interval is {}; expected at least 1", o.interval);
}

// Sums since the beginning and since the last point.
class Tally {
 public:
  explicit Tally(StreamResult& result) : result_(result) {}
  void add(double nll) {
    sum_ += nll;
    part_ += nll;
    ++count_;
    ++part_count_;
  }
  StreamPoint now(const infer::KvCache& cache) const {
    return {.tokens = count_,
            .nll = sum_ / static_cast<double>(count_),
            .part_nll = part_ / static_cast<double>(part_count_),
            .seconds = watch_.seconds(),
            .cache_tokens = cache.held(),
            .cache_bytes = static_cast<int64_t>(cache.bytes()),
            .resident_bytes = peak_resident_bytes()};
  }
  void point(const infer::KvCache& cache) {
    if (part_count_ == 0) return;
    result_.points.push_back(now(cache));
    part_ = 0;
    part_count_ = 0;
  }
  int64_t count() const { return count_; }

 private:
  StreamResult& result_;
  Stopwatch watch_;
  double sum_ = 0, part_ = 0;
  int64_t count_ = 0, part_count_ = 0;
};

}  // namespace

StreamResult stream_perplexity(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
                               std::span<const std::vector<int32_t>> documents, const StreamOptions& o) {
  StreamResult result;
  stream_perplexity(cx, spec, weights, documents, o, result);
  return result;
}

void stream_perplexity(Context& cx, const model::ModelSpec& model_spec, const model::Weights& weights,
                       std::span<const std::vector<int32_t>> documents, const StreamOptions& o, StreamResult& result) {
  check_options(o);
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  result.bos = bos_token(spec, o.bos);
  Stream stream(documents, result.bos);
  infer::CachedDecoder decoder(spec, weights, 1, infer::DynamicBase::kStep, 0, o.cache);
  Tally tally(result);
  const auto close = [&] {
    tally.point(decoder.cache());
    result.documents = stream.begun();
  };
  int64_t chunk = 1;  // at most the whole text
  for (const std::vector<int32_t>& document : documents) chunk += static_cast<int64_t>(document.size());
  chunk = std::min(chunk, o.chunk);
  Tensor nll({chunk});
  std::vector<int32_t> inputs, targets;
  const auto run_chunk = [&] {
    COCA_CHECK_AS(kInterrupted, !stop_requested(), "stream: stopped after {}", counted(tally.count(), "token"));
    const int64_t to_point = o.interval - tally.count() % o.interval;
    const int64_t most = std::min({chunk, to_point, o.tokens == 0 ? chunk : o.tokens - tally.count()});
    stream.next(most, inputs, targets);
    const auto n = static_cast<int64_t>(inputs.size());
    if (n == 0) return false;
    const TensorRef hidden = decoder.append(cx, {inputs.data(), DType::kI32, {1, n}, kHost});
    const MutTensorRef rows = nll.ref().narrow(0, 0, n);
    ops::lm_loss_forward(cx, {.x = hidden.reshape({n, spec.C}),
                              .w = weights.head,
                              .targets = {targets.data(), DType::kI32, {n}, kHost},
                              .nll = rows});
    for (int64_t i = 0; i < n; ++i) tally.add(static_cast<double>(nll.values<float>()[static_cast<size_t>(i)]));
    if (o.progress) o.progress(tally.now(decoder.cache()));
    if (tally.count() % o.interval == 0) tally.point(decoder.cache());
    return true;
  };
  try {
    while ((o.tokens == 0 || tally.count() < o.tokens) && run_chunk()) {
    }
  } catch (...) {
    close();
    throw;
  }
  COCA_CHECK(tally.count() > 0, "text: of {} none has two tokens or more; give longer texts",
             counted(documents.size(), "document"));
  close();
}

}  // namespace coca::eval
