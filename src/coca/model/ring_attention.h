// coca/model/ring_attention.h - attention over sequences that are split over ranks (context parallelism): keys and
// values go round, queries stay. Exact: the numbers of one process but for the order of sums. Math, what travels and
// what is rounded when: docs/math/ring_attention.md. How to use it: docs/parallel.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "coca/dist/background.h"
#include "coca/dist/communicator.h"
#include "coca/model/key_source.h"
#include "coca/model/rope_table.h"

namespace coca::model {

class PositionSource;

// N tokens in 2 K chunks over K ranks. Rank r holds chunks r and 2 K - 1 - r, one behind the other: under the causal
// mask all ranks then have the same work in every step (zig-zag).
class RingSplit {
 public:
  struct Chunk {
    int64_t begin, count;  // in the whole sequence
    int64_t index;         // of 2 K
  };
  RingSplit(int64_t N, int ranks);  // Error for fewer than 2 K tokens

  int64_t length() const { return N_; }
  int ranks() const { return K_; }
  std::array<Chunk, 2> chunks(int rank) const;
  int64_t tokens(int rank) const { return chunks(rank)[0].count + chunks(rank)[1].count; }
  int64_t most_tokens() const;  // of any rank
  // Where its tokens stand in the whole sequence.
  std::vector<double> positions(int rank) const;
  // Those of a rank, out of rows of N: [B, N] to [B, tokens(rank)].
  template <typename T>
  std::vector<T> take(std::span<const T> rows, int rank) const {
    std::vector<T> out;
    for (size_t row = 0; row < rows.size(); row += static_cast<size_t>(N_))
      for (const Chunk& c : chunks(rank)) {
        const auto from = rows.begin() + static_cast<std::ptrdiff_t>(row) + c.begin;
        out.insert(out.end(), from, from + c.count);
      }
    return out;
  }

 private:
  Chunk chunk(int64_t index) const;

  int64_t N_;
  int K_;
};

struct RingCounts {
  int64_t bytes = 0;             // sent by this rank
  double work = 0, waiting = 0;  // seconds: of attention, and for blocks that had not come when it was done
};

// One rank's part in the attention of all layers, all ranks in the same order.
class RingAttention : public KeySource {
 public:
  // All ranks together. Error naming what of a model a ring does not do: windows, patterns, global tokens, both
  // directions.
  RingAttention(const ModelSpec&, dist::Communicator& ranks, int64_t N);

  const RingSplit& split() const { return split_; }
  int rank() const { return rank_; }
  int64_t tokens() const { return split_.tokens(rank_); }
  // In front of every pass: the positions of this rank's tokens in a sequence that scalings take to be seq_len long (0:
  // N).
  AttentionInputs begin(PositionSource&, int64_t seq_len = 0);

  void attend(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&,
              LayerActs&) override;
  // dq_eff, dv and dk_eff are written; with CoCA dkt (of t) in the place of dk_eff.
  void backward(Context&, const AttentionInputs&, const LayerActs&, LayerActGrads&);
  // attend() behind the transformation, in pieces, for passes that hold one chunk of a layer at a time: keys and values
  // of tokens first, first + 1, ... of sequences b, b + 1, ... of B; when all are there, o [B, tokens, H, D] f32 and
  // lse [B, H, tokens] of all queries.
  void put(Context&, const LayerActs&, int64_t B, int64_t b, int64_t first);
  void attend_all(Context&, const AttentionInputs&, TensorRef q_eff, MutTensorRef o, MutTensorRef lse);

  const RingCounts& counts() const { return counts_; }
  void reset_counts() { counts_ = {}; }

 private:
  using Chunk = RingSplit::Chunk;
  struct Part {
    MutTensorRef keys, values;  // [B, count, G, key_width()] [B, count, G, D]
  };
  // What goes round: the parts of both chunks of a rank, as bytes.
  struct Block {
    Tensor memory;
    DType type = DType::kF32;
  };
  int64_t key_width() const;
  Dims key_shape(Dims values) const;
  int owner(int step) const { return (rank_ - step + split_.ranks()) % split_.ranks(); }
  int neighbour(int distance) const { return (rank_ + distance + split_.ranks()) % split_.ranks(); }
  int64_t block_numbers(int owner) const;
  void make_room(Block&, DType) const;
  std::span<std::byte> bytes_of(Block&, int owner) const;
  Part part(const Block&, int owner, size_t chunk) const;
  TensorRef keys_of(Context&, const Part&, int owner, size_t chunk);
  ops::RopeRows rows_of(int owner, size_t chunk) const;
  // What every pair of chunks does: body(own chunk, key chunk) with options; nothing for keys that no query sees.
  template <typename Body>
  void each_pair(int owner, size_t key_chunk, const Body&) const;
  struct Move {
    Block *out, *in;
    int owner;  // whose block leaves; the one that comes is that of the rank in front
  };
  void start(std::span<const Move>);
  void wait();
  void gradients_of(Context&, TensorRef slopes, const LayerActs&, const LayerActGrads&, MutTensorRef dq, int owner,
                    const Block& block, const Block& sums);
  void take_home(Context&, const LayerActs&, LayerActGrads&, const Block& sums) const;

  const ModelSpec& spec_;
  RingSplit split_;
  int rank_;
  std::unique_ptr<dist::Communicator> ranks_;
  int64_t B_ = 0;
  ops::Rotation rotation_;
  std::vector<RopeTable> tables_;  // of every rank's keys; CoCA only
  RopeTable flat_rows_;            // of keys in layers without positions
  bool flat_ = false;              // whether the layer at work is one
  Block blocks_[2], sums_[3];
  size_t here_ = 0;  // of blocks_: the one being read
  Tensor k_eff_, dk_eff_, o_, dq_;
  RingCounts counts_;
  dist::Background background_;  // the last: it ends before what it reads
};

}  // namespace coca::model
