// coca/model/spec.h - what a decoder is made of: sizes and the choice on every axis. GPT-NeoX and LLaMA are two
// points of this space; config.json is read and written by config.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/model/modifier.h"
#include "coca/model/pattern.h"
#include "coca/model/rope_scaling.h"
#include "coca/ops/activation.h"
#include "coca/ops/collinear.h"
#include "coca/ops/norm.h"
#include "coca/tensor/kv_pages.h"

namespace coca::model {

enum class Architecture : uint8_t { kGptNeoX, kLlama, kMistral, kQwen2, kQwen3 };  // weight names and config fields
// How a score is made of q and k: a dot product, or one of the collinear forms (kernels/args/forms): kSlack, kStrict,
// kPope, ...
#define COCA_SCORE_NAME(X) , k##X
enum class Score : uint8_t { kDot COCA_FORMS(COCA_SCORE_NAME) };
#undef COCA_SCORE_NAME
// How positions are encoded: rotated pairs, rotated pairs and a decay (xPos), a bias by distance (ALiBi), or not at
// all.
enum class Encoding : uint8_t { kRotary, kXpos, kAlibi, kNone };
// Every score goes with every encoding. The names of the pairs ("attention_type" in config.json, flags, reports) are
// those of the forms, and the encoding's behind them: "coca-slack-alibi".
struct AttentionKind {
  Score score = Score::kDot;
  Encoding position = Encoding::kRotary;

  friend constexpr bool operator==(const AttentionKind&, const AttentionKind&) = default;
  static const AttentionKind kRope, kXpos, kAlibi, kNone, kCocaSlack, kCocaStrict, kCocaTied;
};
inline constexpr AttentionKind AttentionKind::kRope{};
inline constexpr AttentionKind AttentionKind::kXpos{.position = Encoding::kXpos};
inline constexpr AttentionKind AttentionKind::kAlibi{.position = Encoding::kAlibi};
inline constexpr AttentionKind AttentionKind::kNone{.position = Encoding::kNone};
inline constexpr AttentionKind AttentionKind::kCocaSlack{.score = Score::kSlack};
inline constexpr AttentionKind AttentionKind::kCocaStrict{.score = Score::kStrict};
inline constexpr AttentionKind AttentionKind::kCocaTied{.score = Score::kTied};

enum class Mlp : uint8_t { kGelu, kGeluTanh, kSwiGlu };
enum class ResidualKind : uint8_t { kParallel, kSequential };
enum class Qkv : uint8_t { kFused, kSeparate };  // one matrix (per head the rows of q, of k or t, of v), or three
enum class Bias : uint8_t { kNone, kYes };
enum class HeadNorm : uint8_t { kNone, kRms };  // of every head of q and k (or t), before rotation (Qwen3)
enum class Embeddings : uint8_t { kUntied, kTied };
// How many numbers CoCA's T projection makes for a head: one for each dim, folded to one for each rotary pair
// afterwards (the official code), or one for each pair (docs/math/collinear.md). Forms whose queries have one number in
// a plane have no pairs: always kFull.
enum class TWidth : uint8_t { kFull, kHalf };
enum class Direction : uint8_t {
  kCausal,
  kBidirectional
};  // of attention: keys up to the query's own, or on both sides
struct ModelSpec {
  Architecture architecture = Architecture::kGptNeoX;
  AttentionKind attention = AttentionKind::kRope;
  ops::Fold fold = ops::Fold::kRotary;      // CoCA with partial rotary only
  TWidth t_width = TWidth::kFull;           // kHalf: collinear forms only, and not with norms of heads
  std::optional<ops::Magnitude> magnitude;  // of collinear keys; default: the form's
  // The last dims of a head that do not rotate and are an ordinary signed q . k, whatever the score.
  int64_t content = 0;
  std::vector<const Modifier*> modifiers;  // in the order of all_modifiers()
  ops::NormKind norm = ops::NormKind::kLayerNorm;
  Mlp mlp = Mlp::kGelu;
  ResidualKind residual = ResidualKind::kParallel;
  Qkv qkv = Qkv::kFused;
  Bias attention_bias = Bias::kYes;  // of q, k, v
  Bias output_bias = Bias::kYes;     // of the projection after attention
  Bias mlp_bias = Bias::kYes;
  HeadNorm head_norm = HeadNorm::kNone;
  Embeddings embeddings = Embeddings::kUntied;

  int64_t V = 0, C = 0, F = 0, L = 0;  // vocabulary, width, mlp width, layers
  // Query heads, key/value heads, head dim, and of q_eff's dims those that rotate, at most plane_dims().
  int64_t H = 0, G = 0, D = 0, R = 0;
  int64_t max_position = 2048;  // trained context; dynamic NTK starts beyond it
  // [L] keys visible to a query in each layer, itself included; 0: all. Empty: all keys in all layers.
  std::vector<int64_t> layer_window;
  // [L, H] for layers with a window: a head attends to every n-th key in a window n times as wide. Empty: every key.
  std::vector<int64_t> dilation;
  // [L] 1: the layer rotates by positions, 0: it has none (RNoPE, arXiv 2501.18795). Empty: all rotate.
  std::vector<int64_t> rope_layers;
  // The number of first tokens that attend to all and are attended to by all, with projections of their own
  // (Longformer).
  int64_t global_tokens = 0;
  Direction direction = Direction::kCausal;
  std::optional<int64_t> mask_id;  // the token that replaces masked ones; bidirectional models only
  AttentionPattern pattern;        // at evaluation; not part of config.json
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  double norm_eps = 1e-5;
  double init_std = 0.02;
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;  // each ends a generation; the first ends a document

  std::optional<int64_t> eos_id() const { return eos_ids.empty() ? std::nullopt : std::optional(eos_ids.front()); }
  // Widths of a head: of k, or t, as projected; of a key as the cache stores it; of q_eff and k_eff, and of these what
  // lies in planes. Values have D.
  int64_t key_width() const { return t_width == TWidth::kHalf ? stored_width() : D; }
  int64_t stored_width() const;
  int64_t score_width() const { return plane_dims() + content; }
  int64_t plane_dims() const;
  float score_scale() const;                                 // of q_eff . k_eff: 1 / sqrt(D)
  int64_t qkv_width() const { return 2 * D + key_width(); }  // of a head of a fused projection
  int64_t window_of(size_t layer) const {
    return pattern.far() ? pattern.window : layer_window.empty() ? 0 : layer_window[layer];
  }
  bool has_positions(size_t layer) const { return rope_layers.empty() || rope_layers[layer] != 0; }
  std::span<const int64_t> dilation_of(size_t layer) const {  // [H], or empty
    const auto heads = static_cast<size_t>(H);
    return dilation.empty() ? std::span<const int64_t>() : std::span(dilation).subspan(layer * heads, heads);
  }
};

// Throws Error naming the first contradiction (heads that do not divide, odd head dims, zero sizes, ...).
void validate(const ModelSpec&);

// The model under another scaling, with what its own says of original context and ramps. Throws where the kind, type or
// factor cannot be combined: all types but none, longrope and clex need a factor (clex: max_factor), and longrope needs
// the model's own lists.
ModelSpec with_scaling(const ModelSpec&, Scaling, std::optional<double> factor);

inline bool is_coca(AttentionKind kind) { return kind.score != Score::kDot; }
inline bool uses_xpos(AttentionKind kind) { return kind.position == Encoding::kXpos; }
inline bool uses_alibi(AttentionKind kind) { return kind.position == Encoding::kAlibi; }
// Positions rotate pairs, so scalings apply.
inline bool uses_rotary(AttentionKind kind) { return kind.position == Encoding::kRotary || uses_xpos(kind); }
// The operands of attention differ from the projections' q and k.
inline bool transforms_keys(AttentionKind kind) { return is_coca(kind) || uses_rotary(kind); }
// Of a collinear kind.
inline ops::Collinear form_of(AttentionKind kind) {
  return static_cast<ops::Collinear>(static_cast<int>(kind.score) - static_cast<int>(Score::kDot) - 1);
}
ops::CollinearOptions collinear_options(const ModelSpec&);  // for CoCA kinds

int64_t parameter_count(const ModelSpec&);
// The layout of a layer's keys and values in the cache: collinear forms keep the folded t, D/2 + D numbers per token
// and kv head (PoPE and content channels: one for each plane and channel), others keys and values, 2 D.
KvLayout cache_layout(const ModelSpec&, KvType);
// Per token and layer, the scales of int8 included.
int64_t cache_bytes_per_token(const ModelSpec&, KvType);
// Floating-point operations of the matrix products per token, forward: 2 per weight used, and the scores at context S.
double forward_flops_per_token(const ModelSpec&, int64_t S);

}  // namespace coca::model

template <>
struct coca::EnumTraits<coca::model::AttentionKind> {
  static constexpr std::string_view what() { return "attention"; }
  static std::span<const ::coca::EnumName<coca::model::AttentionKind>> names();
};
COCA_ENUM_NAMES(coca::ops::Magnitude, "magnitude", {coca::ops::Magnitude::kRelu, "relu"},
                {coca::ops::Magnitude::kSoftplus, "softplus"})
COCA_ENUM_NAMES(coca::model::TWidth, "t width", {coca::model::TWidth::kFull, "full"},
                {coca::model::TWidth::kHalf, "half"})
COCA_ENUM_NAMES(coca::model::Direction, "direction", {coca::model::Direction::kCausal, "causal"},
                {coca::model::Direction::kBidirectional, "bidirectional"})
COCA_ENUM_NAMES(coca::model::Architecture, "architecture", {coca::model::Architecture::kGptNeoX, "gpt_neox"},
                {coca::model::Architecture::kLlama, "llama"}, {coca::model::Architecture::kMistral, "mistral"},
                {coca::model::Architecture::kQwen2, "qwen2"}, {coca::model::Architecture::kQwen3, "qwen3"})
