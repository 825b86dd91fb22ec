// SPDX-License-Identifier: Apache-2.0
#include "coca/model/windows.h"

#include <algorithm>

#include "coca/base/count.h"
#include "coca/base/sizes.h"

namespace coca::model {

ModelSpec with_windows(const WindowOptions& o, const ModelSpec& spec) {
  ModelSpec out = spec;
  if (!o.layer_window.empty()) {
    const auto given = static_cast<int64_t>(o.layer_window.size());
    COCA_CHECK(given == 1 || given == spec.L, "layer_window has {}; expected 1 or {}, one per layer",
               counted(given, "number"), spec.L);
    out.layer_window = o.layer_window;
    if (given == 1) out.layer_window.assign(static_cast<size_t>(spec.L), o.layer_window.front());
    for (size_t i = 0; i < out.dilation.size(); ++i)  // the model's own goes with its window
      if (out.layer_window[i / static_cast<size_t>(spec.H)] == 0) out.dilation[i] = 1;
    if (std::ranges::all_of(out.layer_window, [](int64_t w) { return w == 0; })) out.layer_window.clear();
  }
  if (!o.dilation.empty()) {
    const auto given = static_cast<int64_t>(o.dilation.size());
    COCA_CHECK(given == spec.H || given == spec.L * spec.H,
               "dilation has {}; expected {}, one per head, or {}, layer by layer", counted(given, "number"), spec.H,
               spec.L * spec.H);
    COCA_CHECK(!out.layer_window.empty(), "dilation is given, but no layer has a window (layer_window)");
    out.dilation.clear();
    for (int64_t i = 0; i < spec.L * spec.H; ++i) {
      const bool window =
          out.layer_window[static_cast<size_t>(i / spec.H)] > 0;  // one list for all: of the layers with windows
      out.dilation.push_back(given == spec.H && !window ? 1 : o.dilation[static_cast<size_t>(i % given)]);
    }
  }
  if (std::ranges::all_of(out.dilation, [](int64_t d) { return d == 1; })) out.dilation.clear();
  if (o.global_tokens) out.global_tokens = *o.global_tokens;
  if (o.no_rope_every > 0) {
    COCA_CHECK(o.no_rope_every <= spec.L, "no_rope_every is {}; the model has {}, so it would change none",
               o.no_rope_every, counted(spec.L, "layer"));
    out.rope_layers.clear();
    for (int64_t i = 0; i < spec.L; ++i) out.rope_layers.push_back((i + 1) % o.no_rope_every == 0 ? 0 : 1);
  }
  validate(out);
  return out;
}

void require_causal(const ModelSpec& s, std::string_view use) {
  COCA_CHECK(s.direction == Direction::kCausal,
             "{}: the model is {}: it fills in masked tokens (coca eval mlm) and predicts no next one; expected a "
             "causal model",
             use, enum_name(s.direction));
}

int32_t require_masked(const ModelSpec& s, std::string_view use) {
  COCA_CHECK(s.direction == Direction::kBidirectional,
             "{}: the model is {}; expected a bidirectional one, trained on masked tokens", use,
             enum_name(s.direction));
  COCA_CHECK(s.mask_id.has_value(), "{}: config.json names no mask_token_id", use);
  return static_cast<int32_t>(*s.mask_id);
}

namespace {

void validate_rope_layers(const ModelSpec& s) {
  if (s.rope_layers.empty()) return;
  COCA_CHECK(static_cast<int64_t>(s.rope_layers.size()) == s.L, "model: no_rope_layers names {}, the model has {}",
             counted(s.rope_layers.size(), "layer"), s.L);
  for (const int64_t rotates : s.rope_layers)
    COCA_CHECK(rotates == 0 || rotates == 1, "model: no_rope_layers holds {}; expected 1 (rotates) or 0", rotates);
  COCA_CHECK(uses_rotary(s.attention), "model: layers without positions: attention \"{}\" rotates in no layer",
             enum_name(s.attention));
  COCA_CHECK(s.pattern.keeps_first() || !s.pattern.far(),
             "model: pattern {} moves rotary positions; some layers of this model have none",
             enum_name(s.pattern.type));
}

}  // namespace

void validate_windows(const ModelSpec& s) {
  validate_rope_layers(s);
  COCA_CHECK(s.layer_window.empty() || static_cast<int64_t>(s.layer_window.size()) == s.L,
             "model: sliding windows are given for {}, the model has {}", counted(s.layer_window.size(), "layer"), s.L);
  for (const int64_t window : s.layer_window)
    COCA_CHECK(window >= 0, "model: sliding window {} must be positive", window);
  for (const int64_t window : s.layer_window)
    COCA_CHECK(s.dilation.empty() || window <= kMostCount,
               "model: sliding window {} with a dilation; expected at most {}", window, kMostCount);
  COCA_CHECK(s.global_tokens >= 0 && s.global_tokens <= kMostGlobalTokens, "model: global tokens {}; expected 0 to {}",
             s.global_tokens, kMostGlobalTokens);
  COCA_CHECK(s.global_tokens == 0 || s.head_norm == HeadNorm::kNone,
             "model: global tokens cannot be combined with norms of heads ({})", enum_name(s.architecture));
  COCA_CHECK(s.global_tokens == 0 || s.rope_scaling.type != Scaling::kClex,
             "model: global tokens cannot be combined with rope scaling clex");
  COCA_CHECK(s.direction == Direction::kCausal || !uses_xpos(s.attention),
             "model: attention \"{}\" decays with the distance back; direction {} has keys ahead",
             enum_name(s.attention), enum_name(s.direction));
  if (s.dilation.empty()) return;
  COCA_CHECK(static_cast<int64_t>(s.dilation.size()) == s.L * s.H,
             "model: dilation is given for {}, the model has {} in {}", counted(s.dilation.size(), "head"), s.L * s.H,
             counted(s.L, "layer"));
  for (int64_t i = 0; i < s.L; ++i) {
    const auto of_layer = s.dilation_of(static_cast<size_t>(i));
    for (int64_t h = 0; h < s.H; ++h) {
      const int64_t d = of_layer[static_cast<size_t>(h)],
                    first = of_layer[static_cast<size_t>(h / (s.H / s.G) * (s.H / s.G))];
      COCA_CHECK(d >= 1 && d <= kMostCount, "model: dilation {} of layer {}, head {}; expected 1 to {}", d, i, h,
                 kMostCount);
      COCA_CHECK(d == 1 || s.window_of(static_cast<size_t>(i)) > 0,
                 "model: layer {} has dilation {} but no window to dilate", i, d);
      COCA_CHECK(d == first, "model: layer {}: head {} has dilation {}, but shares its key/value head with one of {}",
                 i, h, d, first);
    }
  }
}

}  // namespace coca::model
