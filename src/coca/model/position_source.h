// coca/model/position_source.h - where the tokens of a pass stand: tables of cos and sin, ALiBi's slopes, and what else
// attention goes by (attention_inputs.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "coca/model/attention_inputs.h"
#include "coca/model/params.h"
#include "coca/model/rope_table.h"
#include "coca/tensor/transfer.h"

namespace coca::model {

// Keeps the position tables of a spec.
class PositionSource {
 public:
  // The weights, for what positions need of them (CLEX's network); they must not change, and outlive this. What ops
  // read lies in `memory`; null: the host's.
  explicit PositionSource(const ModelSpec&, const Weights* = nullptr, DeviceMemory* memory = nullptr);
  // The angles of a sequence of seq_len. CLEX's tables are solved at the first call.
  ops::Rotation rotation(int64_t seq_len);
  // `n` tokens from `start` of a sequence of seq_len; with its rotation, where the caller has that.
  AttentionInputs at(int64_t start, int64_t n, int64_t seq_len);
  AttentionInputs at(int64_t start, int64_t n, int64_t seq_len, const ops::Rotation&);
  // Tokens anywhere: positions [1 or B, n], for methods that draw them.
  AttentionInputs at_positions(std::span<const double> positions, int64_t n, int64_t seq_len);
  // Tokens of one sequence that do not all stand one behind the other, which angles reckon as seq_len and growth as N
  // tokens.
  AttentionInputs at_places(std::span<const double> positions, int64_t seq_len, int64_t N);
  // From here on these: the frequencies of weights that are being trained.
  void set_frequencies(std::vector<double> frequencies) { frequencies_ = std::move(frequencies); }
  // Packed documents: rows for each token's place in its own document. document_start [B, N] i32 on the host, as
  // attention takes it.
  AttentionInputs packed(TensorRef document_start, int64_t seq_len);

 private:
  AttentionInputs without_rows() const;
  AttentionInputs of_table(int64_t n);
  void add_flat(Positions&, int64_t n);
  template <typename Number>
  void add_log_tokens(Positions&, int64_t sequences, int64_t n, const Number& number);
  void add_pattern(AttentionInputs&, int64_t start, int64_t n, int64_t seq_len, const ops::Rotation&);

  const ModelSpec& spec_;
  const Weights* weights_;
  DeviceMemory* memory_;
  std::vector<std::vector<double>> clex_;  // by length factor
  std::vector<double> frequencies_;        // set_frequencies(); else empty
  RopeTable table_;
  RopeTable keys_, turn_, far_, far_keys_;  // patterns
  RopeTable flat_;                          // layers without positions
  SentTensor slopes_, global_start_, document_start_, log_tokens_;
};

}  // namespace coca::model
