// One block per tile of 64 tokens of a kv head. Keys go through shared memory, because the cache stores them
// transposed. Numbers are rounded as in kernels/ref/kv_store.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/kv_store.h"

#include <algorithm>
#include <cfloat>
#include <limits>
#include <type_traits>

#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

// The keys or values [count, G, width] outside the cache, f32 or bf16. Null: not needed.
struct Side {
  void* data;
  int64_t stride_n, stride_g;
  bool is_bf16;

  __device__ float load_at(int64_t n, int64_t g, int64_t i) const {
    const int64_t at = n * stride_n + g * stride_g + i;
    return is_bf16 ? load(static_cast<const BF16*>(data) + at) : load(static_cast<const float*>(data) + at);
  }
};

// `count` consecutive tokens in one page of a sequence, starting at token `at` of the page.
struct Piece {
  Side keys, values;
  std::byte* page;  // the layer's part of the page
  int at, count;
};

// All pieces of a launch; a kernel's arguments may take at most 4 KiB.
constexpr int kPieces = 40, kTiles = static_cast<int>(kKvPage / kKvTile);
struct Pieces {
  KvLayout layout;
  Piece list[kPieces];
};
static_assert(sizeof(Pieces) <= 4096);

constexpr int kTile = static_cast<int>(kKvTile), kColumns = kWarp, kPitch = kColumns + 1;  // avoids bank conflicts
using Columns = Shared<float, kTile * kPitch>;  // [token, column] for some columns of a tile's keys

// The work of one block.
struct Tile {
  Piece piece;
  std::byte* run;
  int64_t g;
  int first, begin, end;  // the tile's first token in the page, and the range of the piece

  __device__ explicit Tile(const Pieces& all)
      : piece(all.list[blockIdx.x / kTiles]),
        run(piece.page + blockIdx.y * all.layout.run_bytes()),
        g(blockIdx.y),
        first(static_cast<int>(blockIdx.x % kTiles) * kTile),
        begin(piece.at > first ? piece.at : first),
        end(piece.at + piece.count < first + kTile ? piece.at + piece.count : first + kTile) {}
  __device__ int row(int token) const { return token - piece.at; }
};

// Converts to the integers of int8, with the scale that fits the largest magnitude.
struct Range {
  float low, high;
  __device__ float magnitude(float x) const { return low == 0.0f && x < 0.0f ? 0.0f : fabsf(x); }
  // At least the smallest normal number; NaN if there is a NaN or an infinity.
  __device__ float scale_of(float most) const {
    return most <= FLT_MAX ? fmaxf(most / high, FLT_MIN) : std::numeric_limits<float>::quiet_NaN();
  }
  __device__ std::byte quantised(float x, float scale) const {
    const float q = scale == scale ? rintf(fminf(fmaxf(x / scale, low), high)) : 0.0f;
    return static_cast<std::byte>(static_cast<int>(q));  // two's complement
  }
};
__device__ Range range_of_keys(const KvLayout& l) {
  return l.key_sign == KeySign::kNonNegative ? Range{0.0f, 255.0f} : Range{-127.0f, 127.0f};
}
__device__ Range range_of_values() { return {-127.0f, 127.0f}; }

__device__ void put(KvType type, std::byte* numbers, int64_t at, float x, float scale, const Range& range) {
  if (type == KvType::kF32)
    reinterpret_cast<float*>(numbers)[at] = x;
  else if (type == KvType::kBF16)
    store(reinterpret_cast<BF16*>(numbers) + at, x);
  else
    numbers[at] = range.quantised(x, scale);
}
__device__ float get(KvType type, const std::byte* numbers, int64_t at, float scale, const Range& range) {
  if (type == KvType::kF32) return reinterpret_cast<const float*>(numbers)[at];
  if (type == KvType::kBF16) return load(reinterpret_cast<const BF16*>(numbers) + at);
  const auto byte = static_cast<uint8_t>(numbers[at]);
  return static_cast<float>(range.low == 0.0f ? static_cast<int>(byte) : static_cast<int>(static_cast<int8_t>(byte))) *
         scale;
}

// Called by a whole warp: the int8 scale for the numbers of one token, returned in all lanes and written to `scales`. 1
// for the other types.
__device__ float write_scale(KvType type, const Side& side, int64_t n, int64_t g, int64_t width, const Range& range,
                             std::byte* scale_at) {
  if (type != KvType::kInt8) return 1.0f;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float most = 0.0f;
  for (int64_t i = lane; i < width; i += kWarp) {
    const float x = range.magnitude(side.load_at(n, g, i));
    if (x > most || !(x == x)) most = x;  // comparisons with NaN are false, so a NaN stays
  }
  const float scale = range.scale_of(warp_max(most));
  if (lane == 0) *reinterpret_cast<float*>(scale_at) = scale;
  return scale;
}
__device__ float read_scale(KvType type, const std::byte* scale_at) {
  return type == KvType::kInt8 ? *reinterpret_cast<const float*>(scale_at) : 1.0f;
}

// The token at a position in a tile's rows: the inverse of KvLayout::key_element(kv_lane(n)).
__device__ int token_at(KvType type, int place) {
  const int lane = type == KvType::kBF16 ? place / 2 + place % 2 * (kTile / 2) : place;
  return static_cast<int>(kv_lane(lane));
}

// Calls visit(token of the page, position, column) for some columns of a tile's keys in the order of the cache:
// neighbouring threads have neighbouring positions.
template <typename Visit>
__device__ void each_place(const KvLayout& l, const Tile& tile, int64_t columns, const Visit& visit) {
  const int place = static_cast<int>(threadIdx.x) % kTile, token = tile.first + token_at(l.type, place);
  if (token < tile.begin || token >= tile.end) return;
  for (int c = static_cast<int>(threadIdx.x) / kTile; c < kColumns && c < columns; c += kThreads / kTile)
    visit(token, place, c);
}

__global__ void kv_store_kernel(Pieces all) {
  const KvLayout& l = all.layout;
  const Tile tile(all);
  if (tile.begin >= tile.end) return;
  __shared__ Columns columns;
  __shared__ Shared<float, kTile> scales;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  constexpr int kWarps = kThreads / kWarp;
  const Side &keys = tile.piece.keys, &values = tile.piece.values;
  const Range key_range = range_of_keys(l), value_range = range_of_values();
  for (int token = tile.begin + warp; token < tile.end; token += kWarps) {
    const float scale =
        write_scale(l.type, keys, tile.row(token), tile.g, l.W, key_range, tile.run + l.key_scale_at(token));
    if (lane == 0) scales[token - tile.first] = scale;
  }
  std::byte* rows = tile.run + l.key_tile_at(tile.first / kTile);
  for (int64_t c0 = 0; c0 < l.W; c0 += kColumns) {
    for (int token = tile.begin + warp; token < tile.end; token += kWarps)
      if (c0 + lane < l.W)
        columns[(token - tile.first) * kPitch + lane] = keys.load_at(tile.row(token), tile.g, c0 + lane);
    __syncthreads();
    each_place(l, tile, l.W - c0, [&](int token, int place, int c) {
      const int n = token - tile.first;
      put(l.type, rows, (c0 + c) * kTile + place, columns[n * kPitch + c], scales[n], key_range);
    });
    __syncthreads();
  }
  for (int token = tile.begin + warp; token < tile.end; token += kWarps) {
    const float scale =
        write_scale(l.type, values, tile.row(token), tile.g, l.D, value_range, tile.run + l.value_scale_at(token));
    for (int64_t i = lane; i < l.D; i += kWarp)
      put(l.type, tile.run + l.value_at(token), i, values.load_at(tile.row(token), tile.g, i), scale, value_range);
  }
}

__global__ void kv_load_kernel(Pieces all) {
  const KvLayout& l = all.layout;
  const Tile tile(all);
  if (tile.begin >= tile.end) return;
  __shared__ Columns columns;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  constexpr int kWarps = kThreads / kWarp;
  const Side &keys = tile.piece.keys, &values = tile.piece.values;
  const Range key_range = range_of_keys(l), value_range = range_of_values();
  const std::byte* rows = tile.run + l.key_tile_at(tile.first / kTile);
  for (int64_t c0 = 0; keys.data && c0 < l.W; c0 += kColumns) {
    each_place(l, tile, l.W - c0, [&](int token, int place, int c) {
      const float scale = read_scale(l.type, tile.run + l.key_scale_at(token));
      columns[(token - tile.first) * kPitch + c] = get(l.type, rows, (c0 + c) * kTile + place, scale, key_range);
    });
    __syncthreads();
    for (int token = tile.begin + warp; token < tile.end; token += kWarps)
      if (c0 + lane < l.W)
        static_cast<float*>(keys.data)[tile.row(token) * keys.stride_n + tile.g * keys.stride_g + c0 + lane] =
            columns[(token - tile.first) * kPitch + lane];
    __syncthreads();
  }
  for (int token = tile.begin + warp; values.data && token < tile.end; token += kWarps) {
    const float scale = read_scale(l.type, tile.run + l.value_scale_at(token));
    for (int64_t i = lane; i < l.D; i += kWarp)
      static_cast<float*>(values.data)[tile.row(token) * values.stride_n + tile.g * values.stride_g + i] =
          get(l.type, tile.run + l.value_at(token), i, scale, value_range);
  }
}

// The rows of a tensor [1, N, G, width] from n on.
template <typename Ref>
Side side_of(const Ref& t, int64_t n) {
  if (t.empty()) return {};
  const int64_t at = n * t.stride(1) * static_cast<int64_t>(dtype_size(t.dtype));
  return {.data = const_cast<std::byte*>(static_cast<const std::byte*>(t.data) + at),  // a store only reads from it
          .stride_n = t.stride(1),
          .stride_g = t.stride(2),
          .is_bf16 = t.dtype == DType::kBF16};
}

// Collects pieces and launches a kernel whenever the arguments are full.
class Launches {
 public:
  Launches(Context& cx, const KvLayout& layout, void (*kernel)(Pieces)) : cx_(cx), kernel_(kernel) {
    all_.layout = layout;
  }
  // Adds tokens first .. first + N - 1 of the cache, which are rows 0 .. N - 1 of keys and values.
  template <typename View, typename Ref>
  void add(const View& cache, int64_t first, int64_t N, const Ref& keys, const Ref& values) {
    for (int64_t n = 0; n < N;) {
      const int64_t token = first + n, at = token % kKvPage, count = std::min(kKvPage - at, N - n);
      all_.list[pieces_++] = {.keys = side_of(keys, n),
                              .values = side_of(values, n),
                              .page = const_cast<std::byte*>(cache.run(0, token)),  // a load only reads from it
                              .at = static_cast<int>(at),
                              .count = static_cast<int>(count)};
      if (pieces_ == kPieces) flush();
      n += count;
    }
  }
  void flush() {
    if (pieces_ == 0) return;
    const Grid grid{.blocks = {static_cast<unsigned>(pieces_ * kTiles), static_cast<unsigned>(all_.layout.G)},
                    .threads = kThreads};
    launch(cx_, grid, kernel_, all_);
    pieces_ = 0;
  }

 private:
  Context& cx_;
  void (*kernel_)(Pieces);
  Pieces all_{};
  int pieces_ = 0;
};

void store_all(Context& cx, std::span<const ops::KvStore> sequences) {
  Launches launches(cx, sequences[0].cache.layout, kv_store_kernel);
  for (const ops::KvStore& a : sequences) launches.add(a.cache, a.first, a.keys.size(1), a.keys, a.values);
  launches.flush();
}

void load_all(Context& cx, const ops::KvLoad& a) {
  Launches launches(cx, a.cache.layout, kv_load_kernel);
  launches.add(a.cache, a.first, (a.keys.empty() ? a.values : a.keys).size(1), a.keys, a.values);
  launches.flush();
}

}  // namespace

const ops::KvStoreImpl kv_store_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {store_all, load_all}};

}  // namespace coca::cuda
