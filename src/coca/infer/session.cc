// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/session.h"

#include <algorithm>
#include <utility>

namespace coca::infer {

namespace {

// Checked before the cache is made.
Request checked(Request r) {
  COCA_CHECK(!r.prompt.empty(), "the prompt is empty; give at least one token");
  COCA_CHECK(r.max_new_tokens >= 0, "max-new-tokens {} must be at least 0", r.max_new_tokens);
  check_sampling(r.sampling);
  return r;
}

int64_t length_of(const std::vector<int32_t>& ids) { return static_cast<int64_t>(ids.size()); }

}  // namespace

Session::Session(const model::ModelSpec& spec, const model::Weights& weights, Request request,
                 const SessionOptions& options)
    : spec_(spec),
      request_(checked(std::move(request))),
      options_(options),
      decoder_(spec, weights, 1, options.dynamic_base, length_of(request_.prompt) + request_.max_new_tokens,
               options.cache),
      rng_(request_.seed, 0x9e4e),
      seen_(request_.prompt),
      logits_(static_cast<size_t>(spec.V)) {
  COCA_CHECK(options.prefill_tokens >= 1, "prefill-tokens {} must be at least 1", options.prefill_tokens);
}

void Session::prefill(Context& cx) {
  const int64_t length = length_of(request_.prompt), count = std::min(options_.prefill_tokens, length - done_);
  decoder_.append(cx, TensorRef(request_.prompt.data() + done_, DType::kI32, {1, count}, kHost), length);
  done_ += count;
  if (done_ == length && request_.max_new_tokens == 0) finish_ = Finish::kLength;
}

std::optional<int32_t> Session::step(Context& cx) {
  if (finished()) return std::nullopt;
  if (done_ < length_of(request_.prompt)) {
    prefill(cx);
    return std::nullopt;
  }
  if (!ids_.empty()) decoder_.append(cx, TensorRef(&ids_.back(), DType::kI32, {1, 1}, kHost));
  std::copy_n(decoder_.last_logits(cx).as<float>(), spec_.V, logits_.begin());
  penalize_repetition(logits_, seen_, request_.sampling.repetition_penalty);
  const int32_t id = sample(logits_, request_.sampling, rng_);
  if (std::ranges::find(request_.stop_ids, id) != request_.stop_ids.end()) {
    finish_ = Finish::kStopId;
    return std::nullopt;
  }
  ids_.push_back(id);
  seen_.push_back(id);
  if (length_of(ids_) == request_.max_new_tokens) finish_ = Finish::kLength;
  return id;
}

}  // namespace coca::infer
