// SPDX-License-Identifier: Apache-2.0
#include "coca/model/position_source.h"

#include <algorithm>
#include <cmath>

#include "coca/model/clex.h"
#include "coca/ops/attention.h"
#include "coca/ops/device.h"

namespace coca::model {

namespace {

// i32 [n], written by the host.
std::span<int32_t> room(SentTensor& t, int64_t n, DeviceMemory* memory) {
  if (t.empty() || t.shape().product() < n) t = SentTensor({n}, DType::kI32, memory);
  return {t.host().as<int32_t>(), static_cast<size_t>(n)};
}

}  // namespace

PositionSource::PositionSource(const ModelSpec& spec, const Weights* weights, DeviceMemory* memory)
    : spec_(spec),
      weights_(weights),
      memory_(memory),
      table_(memory),
      keys_(memory),
      turn_(memory),
      far_(memory),
      far_keys_(memory),
      flat_(memory) {
  if (!uses_alibi(spec.attention)) return;
  slopes_ = SentTensor({spec.H}, DType::kF32, memory);
  std::ranges::copy(ops::alibi_slopes(spec.H), slopes_.host().as<float>());
  slopes_.send();
}

ops::Rotation PositionSource::rotation(int64_t seq_len) {
  if (spec_.rope_scaling.type != Scaling::kClex) return rope_rotation(spec_, seq_len);
  if (!frequencies_.empty()) return {.frequencies = frequencies_};
  COCA_CHECK_AS(kInternal, weights_ != nullptr, "[decoder] positions of a CLEX model need its weights");
  if (clex_.empty()) {
    Context cx(ops::device_memory(weights_->clex_up.device));
    clex_ = clex_ode(cx, spec_, *weights_).tables(spec_.rope_scaling.max_factor);
  }
  return {.frequencies = clex_[static_cast<size_t>(clex_factor(spec_, spec_.pattern.used_length(seq_len)) - 1)]};
}

void PositionSource::add_flat(Positions& p, int64_t n) {
  if (spec_.rope_layers.empty()) return;
  flat_.build({.frequencies = std::vector<double>(static_cast<size_t>(spec_.R / 2))}, 0, n);
  p.flat = flat_.rows(0, n);
}

// Of tokens whose number in their sequence, counted from 1, is given by number(i), i < n * sequences.
template <typename Number>
void PositionSource::add_log_tokens(Positions& p, int64_t sequences, int64_t n, const Number& number) {
  if (!has_stage(spec_, Stage::kQueries)) return;
  if (log_tokens_.empty() || log_tokens_.shape().product() < sequences * n)
    log_tokens_ = SentTensor({sequences * n}, DType::kF32, memory_);
  float* out = log_tokens_.host().as<float>();
  for (int64_t i = 0; i < sequences * n; ++i) out[i] = static_cast<float>(std::log(static_cast<double>(number(i))));
  log_tokens_.send(sequences * n);
  const TensorRef all = log_tokens_.ref().narrow(0, 0, sequences * n);
  p.log_tokens = sequences == 1 ? all : all.reshape({sequences, n});
}

AttentionInputs PositionSource::without_rows() const {
  AttentionInputs p;
  if (!slopes_.empty()) p.positions.slopes = slopes_.ref();
  return p;
}

AttentionInputs PositionSource::of_table(int64_t n) {
  AttentionInputs p = without_rows();
  if (spec_.global_tokens > 0) {
    std::ranges::fill(room(global_start_, n, memory_), static_cast<int32_t>(spec_.global_tokens));
    global_start_.send(n);
    p.scope.global_start = global_start_.ref();
  }
  if (!transforms_keys(spec_.attention)) return p;
  p.positions.rows = table_.rows(0, n);
  p.positions.key_rows = table_.key_rows(0, n);
  add_flat(p.positions, n);
  return p;
}

AttentionInputs PositionSource::at(int64_t start, int64_t n, int64_t seq_len) {
  return at(start, n, seq_len, transforms_keys(spec_.attention) ? rotation(seq_len) : ops::Rotation{});
}

AttentionInputs PositionSource::at(int64_t start, int64_t n, int64_t seq_len, const ops::Rotation& angles) {
  AttentionInputs p;
  if (spec_.pattern.far()) {
    p = without_rows();
    add_pattern(p, start, n, seq_len, angles);
  } else {
    if (transforms_keys(spec_.attention)) table_.build(angles, start, n, growth_origin(spec_, start, n));
    p = of_table(n);
  }
  add_log_tokens(p.positions, 1, n, [&](int64_t i) { return start + i + 1; });
  return p;
}

void PositionSource::add_pattern(AttentionInputs& inputs, int64_t start, int64_t n, int64_t seq_len,
                                 const ops::Rotation& angles) {
  const AttentionPattern& pattern = spec_.pattern;
  auto& [p, scope] = inputs;
  scope.far_tokens = pattern.far_tokens(seq_len);
  if (pattern.type == Pattern::kLmInfinite) scope.far_most_distance = pattern.distance;
  if (pattern.type == Pattern::kStreamingLlm) scope.far_most_position = pattern.framed_query(seq_len);
  if (!transforms_keys(spec_.attention)) return;
  const bool framed = frames_queries(spec_);
  std::vector<double> query, turn, far, far_key, factor;
  for (int64_t m = start; m < start + n; ++m) {
    const int64_t at = framed ? pattern.framed_query(m) : m;
    query.push_back(static_cast<double>(at));
    turn.push_back(static_cast<double>(m - at));
    far.push_back(static_cast<double>(pattern.far_query(m)));
    far_key.push_back(static_cast<double>(pattern.far_key(m)));
    factor.push_back(pattern.score_factor(m, spec_.max_position));
  }
  table_.build_at(angles, query, n, 0.0, factor);
  keys_.build(angles, start, n);
  far_.build_at(angles, far, n, 0.0, factor);
  far_keys_.build_at(angles, far_key, n);
  p.rows = table_.rows(0, n);
  p.key_rows = keys_.rows(0, n);
  p.far_rows = far_.rows(0, n);
  p.far_key_rows = far_keys_.rows(0, n);
  add_flat(p, n);
  if (!framed) return;
  turn_.build_at({.frequencies = angles.frequencies}, turn, n);
  p.turn = turn_.rows(0, n);
}

AttentionInputs PositionSource::at_positions(std::span<const double> positions, int64_t n, int64_t seq_len) {
  COCA_CHECK(!uses_alibi(spec_.attention),
             "[decoder] ALiBi's bias depends on the distance in tokens; it takes no positions");
  double last = 0;
  for (const double p : positions) last = std::max(last, p);
  const auto span = static_cast<int64_t>(std::ceil(last)) + 1;
  if (transforms_keys(spec_.attention)) table_.build_at(rotation(seq_len), positions, n, growth_origin(spec_, 0, span));
  AttentionInputs p = of_table(n);
  add_log_tokens(p.positions, 1, n, [](int64_t i) { return i + 1; });
  return p;
}

AttentionInputs PositionSource::at_places(std::span<const double> positions, int64_t seq_len, int64_t N) {
  const auto n = static_cast<int64_t>(positions.size());
  if (transforms_keys(spec_.attention)) table_.build_at(rotation(seq_len), positions, n, growth_origin(spec_, 0, N));
  AttentionInputs p = of_table(n);
  add_log_tokens(p.positions, 1, n, [&](int64_t i) { return positions[static_cast<size_t>(i)] + 1; });
  return p;
}

AttentionInputs PositionSource::packed(TensorRef document_start, int64_t seq_len) {
  const int64_t B = document_start.size(0), N = document_start.size(1);
  std::vector<double> positions(static_cast<size_t>(B * N));
  const int32_t* start = document_start.as<int32_t>();
  for (int64_t i = 0; i < B * N; ++i) positions[static_cast<size_t>(i)] = static_cast<double>(i % N - start[i]);
  AttentionInputs p = uses_alibi(spec_.attention) ? at(0, N, seq_len) : at_positions(positions, N, seq_len);
  add_log_tokens(p.positions, B, N, [&](int64_t i) { return positions[static_cast<size_t>(i)] + 1; });
  std::ranges::copy_n(start, B * N, room(document_start_, B * N, memory_).begin());
  document_start_.send(B * N);
  p.scope.document_start = document_start_.ref().narrow(0, 0, B * N).reshape({B, N});
  return p;
}

}  // namespace coca::model
