// SPDX-License-Identifier: Apache-2.0
#include "coca/model/spec.h"

#include <algorithm>
#include <cmath>

#include "coca/base/count.h"
#include "coca/base/sizes.h"
#include "coca/model/params.h"
#include "coca/model/windows.h"

namespace coca::model {

// Those of a dot product are older than the forms and have no common part.
static std::string kind_name(AttentionKind kind) {
  static constexpr std::string_view kDots[] = {"rope", "xpos", "alibi", "none"},
                                    kSuffixes[] = {"", "-xpos", "-alibi", "-none"};
  const auto position = static_cast<size_t>(kind.position);
  if (!is_coca(kind)) return std::string(kDots[position]);
  return std::string(ops::form_info(form_of(kind)).name) + std::string(kSuffixes[position]);
}

namespace {

int64_t members(const ModelSpec& s) { return is_coca(s.attention) ? ops::form_info(form_of(s.attention)).members : 2; }

void validate_form(const ModelSpec& s) {
  COCA_CHECK(s.content >= 0 && s.content < s.D, "model: {} in a head of {}; expected at least one plane beside them",
             counted(s.content, "content channel"), s.D);
  COCA_CHECK((s.D - s.content) % members(s) == 0,
             "model: {} of the {} dims of a head are content channels; the other {} must make pairs", s.content, s.D,
             s.D - s.content);
  COCA_CHECK(s.fold == ops::Fold::kRotary || s.R == s.plane_dims() || s.attention.score == Score::kSlack ||
                 !is_coca(s.attention),
             "model: the official fold with partial rotary ({} of {}) exists for coca-slack only, not {}", grouped(s.R),
             counted(s.plane_dims(), "dim"), enum_name(s.attention));
  COCA_CHECK(s.fold == ops::Fold::kRotary || s.content == 0 || !is_coca(s.attention),
             "model: the official fold goes over the whole head; {} have no place in it",
             counted(s.content, "content channel"));
  COCA_CHECK(!s.magnitude || is_coca(s.attention), "model: key magnitude {}: attention \"{}\" has no t",
             enum_name(*s.magnitude), enum_name(s.attention));
  COCA_CHECK(s.content == 0 || transforms_keys(s.attention),
             "model: {}: with attention \"{}\" all channels are such; leave them out",
             counted(s.content, "content channel"), enum_name(s.attention));
  COCA_CHECK(s.t_width == TWidth::kFull || is_coca(s.attention), "model: t width half: attention \"{}\" has no t",
             enum_name(s.attention));
  COCA_CHECK(s.t_width == TWidth::kFull || members(s) == 2,
             "model: t width half: attention \"{}\" has one number of t in a plane as it is", enum_name(s.attention));
  COCA_CHECK(
      s.t_width == TWidth::kFull || s.head_norm == HeadNorm::kNone,
      "model: t width half: the norms of heads lie between the T projection and the fold, so t keeps its full width");
}

void validate_pattern(const ModelSpec& s) {
  if (!s.pattern.far()) return;
  validate(s.pattern);
  const std::string_view name = enum_name(s.pattern.type);
  COCA_CHECK(s.layer_window.empty(),
             "model: pattern {}: the model was trained with sliding windows, which cannot be combined with a pattern",
             name);
  COCA_CHECK(s.global_tokens == 0, "model: pattern {}: the model has {}, which cannot be combined with a pattern", name,
             counted(s.global_tokens, "global token"));
  COCA_CHECK(s.direction == Direction::kCausal, "model: pattern {}: it needs a causal model; this one is {}", name,
             enum_name(s.direction));
  COCA_CHECK(!uses_xpos(s.attention), "model: pattern {}: xPos decays with true distances, which the pattern replaces",
             name);
  COCA_CHECK(s.pattern.keeps_first() || uses_rotary(s.attention),
             "model: pattern {} moves rotary positions; attention \"{}\" has none", name, enum_name(s.attention));
  COCA_CHECK(s.pattern.type != Pattern::kReRope || s.R == s.score_width(),
             "model: pattern rerope needs a model in which all dims of a head rotate; in this one {} of {} do", s.R,
             s.score_width());
  COCA_CHECK(!s.pattern.looks_back() || s.pattern.middle_from_layer < s.L,
             "middle_from_layer is {}; expected a layer of the model, 0 to {}", s.pattern.middle_from_layer, s.L - 1);
}

void validate_modifiers(const ModelSpec& s) {
  COCA_CHECK(s.modifiers.size() <= kMostModifiers, "model: {}; at most {}",
             counted(s.modifiers.size(), "attention modifier"), kMostModifiers);
  COCA_CHECK_AS(kInternal, ordered(s.modifiers) == s.modifiers, "model: attention modifiers out of order");
  for (const Modifier* m : s.modifiers) {
    const std::string_view name = m->info().name;
    COCA_CHECK(s.global_tokens == 0, "model: attention modifier {}: the model has {}, which it does not reach", name,
               counted(s.global_tokens, "global token"));
    const std::string reason = m->refusal(s);
    COCA_CHECK(reason.empty(), "model: attention modifier {}: {}", name, reason);
  }
}

// Products of extents stay within 63 bits: those of one tensor, and the bytes of all together.
void validate_sizes(const ModelSpec& s) {
  static constexpr int64_t kMost = int64_t{1} << 24;
  const auto check = [](const char* name, int64_t extent) {
    COCA_CHECK(extent <= kMost, "model: {} {}; at most {}", name, extent, kMost);
  };
  check("width", s.C);
  check("mlp width", s.F);
  check("layers", s.L);
  check("heads", s.H);
  check("head dim", s.D);
  check("heads times head dim", s.H * s.D);
  const auto C = static_cast<double>(s.C), D = static_cast<double>(s.D);
  const double layer = C * (2.0 * D * static_cast<double>(s.H + s.G) + 3.0 * static_cast<double>(s.F));
  const double all = static_cast<double>(s.L) * layer + 2.0 * static_cast<double>(s.V) * C;
  COCA_CHECK(all <= 0x1p56, "model: width {}, mlp width {}, {} and vocabulary {} make {:.3g} parameters; at most 2^56",
             s.C, s.F, counted(s.L, "layer"), s.V, all);
}

}  // namespace

void validate(const ModelSpec& s) {
  for (const auto& [name, size] :
       {std::pair("vocabulary", s.V), std::pair("width", s.C), std::pair("mlp width", s.F), std::pair("layers", s.L),
        std::pair("heads", s.H), std::pair("key/value heads", s.G)})
    COCA_CHECK(size >= 1, "model: {} {}; expected at least 1", name, size);
  COCA_CHECK(s.V <= (int64_t{1} << 31) - 1, "model: vocabulary {} exceeds 31 bits", s.V);
  COCA_CHECK(s.H % s.G == 0, "model: {} are not a multiple of {} key/value heads", counted(s.H, "head"), s.G);
  COCA_CHECK(s.D >= 2 && s.D % 2 == 0, "model: the head dim {} must be even and positive", s.D);
  COCA_CHECK(s.R >= 0 && s.R <= s.plane_dims() && s.R % 2 == 0,
             "model: rotary dims {} must be even and at most {}, the dims of a head that lie in planes", s.R,
             s.plane_dims());
  COCA_CHECK(!transforms_keys(s.attention) || s.R >= 2, "model: attention \"{}\" needs rotary dims, found {}",
             enum_name(s.attention), s.R);
  validate_sizes(s);
  COCA_CHECK(s.qkv == Qkv::kSeparate || s.G == s.H,
             "model: a fused qkv projection needs as many key/value heads ({}) as heads ({})", s.G, s.H);
  validate_form(s);
  COCA_CHECK(s.max_position >= 1, "model: max_position_embeddings {} must be positive", s.max_position);
  COCA_CHECK(s.max_position <= kMostTokens, "model: max_position_embeddings {}; at most {}", s.max_position,
             kMostTokens);
  // The limits of the options of these names (io/options.cc).
  COCA_CHECK(s.rope_theta >= 1 && s.rope_theta <= 1e15, "model: rope theta {}; expected 1 to 1e15", s.rope_theta);
  COCA_CHECK(s.norm_eps >= 0 && s.norm_eps <= 1, "model: norm eps {}; expected 0 to 1", s.norm_eps);
  COCA_CHECK(s.init_std >= 0 && s.init_std <= 1e6, "model: init std {}; expected 0 to 1e6", s.init_std);
  COCA_CHECK(s.rope_scaling.type == Scaling::kNone || uses_rotary(s.attention),
             "model: rope scaling {} needs rotary positions; attention \"{}\" has none", enum_name(s.rope_scaling.type),
             enum_name(s.attention));
  COCA_CHECK(s.rope_scaling.type != Scaling::kClex || !uses_xpos(s.attention),
             "model: rope scaling clex cannot be combined with xPos (attention \"{}\")", enum_name(s.attention));
  validate_modifiers(s);
  validate(s.rope_scaling, s.R / 2);
  validate_windows(s);
  validate_pattern(s);
  const auto check_id = [&](const char* name, int64_t id) {
    COCA_CHECK(id >= 0 && id < s.V, "model: {} {} is outside the vocabulary of {}", name, id, s.V);
  };
  if (s.mask_id) check_id("mask_token_id", *s.mask_id);
  if (s.bos_id) check_id("bos_token_id", *s.bos_id);
  for (const int64_t id : s.eos_ids) check_id("eos_token_id", id);
}

ModelSpec with_scaling(const ModelSpec& spec, Scaling type, std::optional<double> factor) {
  ModelSpec out = spec;
  out.rope_scaling.type = type;
  if (type == Scaling::kNone) {
    COCA_CHECK(!factor, "rope scaling none takes no factor, found {}", *factor);
    out.rope_scaling = {};
    return out;
  }
  const bool lists = !spec.rope_scaling.long_factor.empty();
  COCA_CHECK(type != Scaling::kLongRope || lists,
             "rope scaling longrope: its short_factor and long_factor come from config.json, which has none");
  COCA_CHECK(factor || type == Scaling::kLongRope || type == Scaling::kClex, "rope scaling {} needs a factor",
             enum_name(type));
  if (type == Scaling::kClex) {
    COCA_CHECK(!factor || (*factor == std::floor(*factor) && *factor >= 1 && *factor <= 1024),
               "rope scaling clex: its factor is the largest length factor, a whole number of 1 to 1024, not {}",
               *factor);
    out.rope_scaling.factor = 1;
    if (factor) out.rope_scaling.max_factor = static_cast<int64_t>(*factor);
  } else if (factor) {
    out.rope_scaling.factor = *factor;
  }
  validate(out);
  return out;
}

int64_t ModelSpec::plane_dims() const { return (D - content) * 2 / members(*this); }
int64_t ModelSpec::stored_width() const { return is_coca(attention) ? plane_dims() / 2 + content : D; }
float ModelSpec::score_scale() const { return 1.0f / std::sqrt(static_cast<float>(D)); }

ops::CollinearOptions collinear_options(const ModelSpec& s) {
  const ops::Collinear kind = is_coca(s.attention) ? form_of(s.attention) : ops::Collinear::kSlack;
  return {.kind = kind,
          .fold = s.fold,
          .magnitude = s.magnitude.value_or(ops::form_info(kind).magnitude),
          .content = s.content};
}

int64_t parameter_count(const ModelSpec& spec) {
  int64_t count = 0;
  for (const ParamInfo& info : parameter_list(spec)) count += info.shape.product();
  return count;
}

KvLayout cache_layout(const ModelSpec& s, KvType type) {
  const bool coca = is_coca(s.attention);
  return {.type = type,
          .key_sign = coca && s.content == 0 ? KeySign::kNonNegative : KeySign::kSigned,
          .G = s.G,
          .W = s.stored_width(),
          .D = s.D};
}

int64_t cache_bytes_per_token(const ModelSpec& s, KvType type) {
  return s.G * static_cast<int64_t>(cache_layout(s, type).head_bytes());
}

namespace {

// Keys that a query of a layer sees, on average over S and over the heads.
double seen_keys(const ModelSpec& s, size_t layer, int64_t S) {
  const auto length = static_cast<double>(S);
  const int64_t window = s.window_of(layer);
  const double sides = s.direction == Direction::kBidirectional ? 2 : 1;
  if (window == 0 || s.pattern.far()) return sides * length / 2;  // causal: half of the S x S pairs
  const std::span<const int64_t> dilation = s.dilation_of(layer);
  double seen = 0;
  for (int64_t h = 0; h < s.H; ++h) {
    const double tokens = length / static_cast<double>(dilation.empty() ? 1 : dilation[static_cast<size_t>(h)]);
    const double w = std::min(static_cast<double>(window), tokens);
    seen += sides * (w - w * w / (2 * tokens)) / static_cast<double>(s.H);
  }
  return seen + static_cast<double>(s.global_tokens);
}

}  // namespace

double forward_flops_per_token(const ModelSpec& s, int64_t S) {
  double weights = 0, seen = 0;
  const double global = static_cast<double>(std::min(s.global_tokens, S)) / static_cast<double>(S);
  for (const ParamInfo& info : parameter_list(s)) {
    if (info.role != ParamRole::kMatrix) continue;
    const bool of_global = is_global(info.name),
               both = s.direction == Direction::kBidirectional;  // both: keys and values of all tokens
    weights += static_cast<double>(info.shape.product()) * (of_global && !both ? global : 1.0);
  }
  if (s.embeddings == Embeddings::kTied) weights += static_cast<double>(s.V * s.C);
  for (size_t layer = 0; layer < static_cast<size_t>(s.L); ++layer) seen += seen_keys(s, layer, S);
  return 2 * weights + 2.0 * static_cast<double>(s.H * (s.score_width() + s.D)) * seen;  // two products for each key
}

}  // namespace coca::model

std::span<const coca::EnumName<coca::model::AttentionKind>> coca::EnumTraits<coca::model::AttentionKind>::names() {
  using namespace model;
  static const auto all = [] {
    // The paper's three first, then the other forms by name.
    std::vector<Score> scores{Score::kDot, Score::kSlack, Score::kStrict, Score::kTied};
#define COCA_ADD_SCORE(X) \
  if (std::ranges::find(scores, Score::k##X) == scores.end()) scores.push_back(Score::k##X);
    COCA_FORMS(COCA_ADD_SCORE)
#undef COCA_ADD_SCORE
    static std::vector<std::string> texts;  // the names point into it
    std::vector<AttentionKind> kinds;
    for (const Score score : scores)
      for (const Encoding position : {Encoding::kRotary, Encoding::kXpos, Encoding::kAlibi, Encoding::kNone})
        kinds.push_back({score, position});
    for (const AttentionKind kind : kinds) texts.push_back(kind_name(kind));
    std::vector<EnumName<AttentionKind>> names;
    for (size_t i = 0; i < kinds.size(); ++i) names.push_back({kinds[i], texts[i]});
    return names;
  }();
  return all;
}
