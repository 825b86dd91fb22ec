// coca/formats/convert.h - converts a model folder: RoPE attention into CoCA, other element types and shards,
// Meta's layout into Hugging Face's, sliding windows and global tokens (whose projections begin as copies of the
// others, Longformer section 3.1). Tensor by tensor: no more than one output shard is in memory. Why t begins as it
// does: docs/decisions/011.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/model/spec.h"
#include "coca/model/windows.h"

namespace coca::formats {

// Where t_proj comes from when a RoPE model becomes a CoCA model. q_proj, v_proj and all else are kept.
//   kFromK:       t_proj = k_proj
//   kFromKScaled: the rows of each rotary pair divided by the root mean square of |q_j| that q_proj gives for an input
//                 of independent normalised features, so that |q_j|^2 t_j is of the size of |q_j| |k_j|
//   kRandom:      N(0, initializer_range)
enum class TInit : uint8_t { kFromK, kFromKScaled, kRandom };

// Values that Meta's params.json lacks. LLaMA 3.1, 3.2 and 3.3 have the same fields, and different rope factors or
// none.
enum class LlamaVersion : uint8_t { k1, k2, k3, k31, k32, k33 };
struct MetaSettings {
  std::optional<LlamaVersion> version;
  std::optional<double> rope_factor;      // default: the version's
  std::optional<int64_t> trained_length;  // default: the version's
  std::vector<int64_t> eos;               // default: the version's
  bool any() const { return version || rope_factor || trained_length || !eos.empty(); }
};

struct ConvertOptions {
  // The source's attention if its config.json does not state it: an official CoCA GPT-NeoX folder is read as RoPE.
  std::optional<model::AttentionKind> source_attention;
  std::optional<model::AttentionKind> attention;  // of the result; default: as the source
  TInit t_init = TInit::kFromKScaled;
  // Of the result's T projection; default: the source's, half for a T that is made here, full with norms of heads.
  std::optional<model::TWidth> t_width;
  model::WindowOptions windows;
  MetaSettings meta;
  uint64_t seed = 0;           // of kRandom
  std::optional<DType> dtype;  // F32, F16 or BF16 for every tensor; default: each as it is stored
  size_t max_shard_bytes = size_t{5} << 30;
};

enum class Layout : uint8_t { kHuggingFace, kMeta };

struct ConvertReport {
  Layout layout = Layout::kHuggingFace;
  model::ModelSpec from, to;
  int64_t tensors = 0, shards = 0, bytes = 0;
  int64_t made = 0;    // tensors that hold other values than the source's
  int64_t copied = 0;  // projections of global tokens that the source did not have
};

// Writes config.json and weights into the existing folder `out`. Meta's layout: params.json and
// consolidated*.safetensors (several: model parallel); its rows of wq and wk are put in the order of half-split rotary
// pairs. Errors: Meta's layout where neither the options nor params.json say the rope factor, an attention kind that
// cannot be reached from the source's or with global tokens already there, values that the new type cannot hold,
// everything that loading refuses. progress gets the bytes done and in all.
ConvertReport convert_model(const std::filesystem::path& source, const std::filesystem::path& out,
                            const ConvertOptions&, const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace coca::formats

COCA_ENUM_NAMES(coca::formats::LlamaVersion, "llama-version", {coca::formats::LlamaVersion::k1, "1"},
                {coca::formats::LlamaVersion::k2, "2"}, {coca::formats::LlamaVersion::k3, "3"},
                {coca::formats::LlamaVersion::k31, "3.1"}, {coca::formats::LlamaVersion::k32, "3.2"},
                {coca::formats::LlamaVersion::k33, "3.3"})
COCA_ENUM_NAMES(coca::formats::TInit, "t-init", {coca::formats::TInit::kFromK, "from-k"},
                {coca::formats::TInit::kFromKScaled, "from-k-scaled"}, {coca::formats::TInit::kRandom, "random"})
