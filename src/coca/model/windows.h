// coca/model/windows.h - sliding windows that a model is trained with (Longformer, Beltagy et al. 2020): of each layer,
// with gaps between the keys of a head (dilation), with global tokens, in either direction; and layers without
// positions between them (RNoPE-SWA, arXiv 2501.18795). What they mean: docs/math/longformer.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "coca/base/sizes.h"
#include "coca/model/spec.h"

namespace coca::model {

// Global tokens are in the first chunk of a pass, and few compared with a window.
inline constexpr int64_t kMostGlobalTokens = 64;

// As given by flags. Empty values leave the model unchanged.
struct WindowOptions {
  std::vector<int64_t> layer_window;  // [1] for all layers, or [L] from the first layer on; 0: all keys
  std::vector<int64_t> dilation;      // [H] for all layers with a window, or [L * H] layer by layer

  std::optional<int64_t> global_tokens;
  int64_t no_rope_every = 0;  // 0: unchanged

  template <class V>
  void visit(V&& v) {
    v.group("Windows");
    v("layer_window",
      "keys visible to a query, itself included: one number, or one per layer from the first layer on; 0: all",
      layer_window);
    v("dilation",
      "n for each query head, which attends to every n-th key in a window n times as wide; one per head, or layer by "
      "layer",
      dilation, Least{1});
    v("global_tokens",
      "first tokens of a sequence that attend to all tokens and are attended to by all, with projections of their own",
      global_tokens);
    v("no_rope_every",
      "every n-th layer does not rotate by positions (RNoPE; of windows, give these layers 0); 0: all layers rotate, "
      "or "
      "as the model has it",
      no_rope_every);
  }
};

// The spec with these; throws Error naming the list whose length does not fit.
ModelSpec with_windows(const WindowOptions&, const ModelSpec&);
// Part of validate(): throws Error naming the first contradiction.
void validate_windows(const ModelSpec&);
// Error unless the model has a next token to predict: "generation" and the like need one.
void require_causal(const ModelSpec&, std::string_view use);
// Error unless it predicts masked tokens; returns the mask token's id.
int32_t require_masked(const ModelSpec&, std::string_view use);

}  // namespace coca::model
