// coca/eval/verify.h - compares the stored cases of a model folder with our own computation.
// The folder has config.json, model.safetensors, manifest.json ({"cases": [{"file", "rope_scaling", ...}]}) and case
// files with input_ids [B, N] and any of: logits [B, N, V], loss [1], attention.<i> [B, H, N, N], hidden.<i>
// [B, N, C], grad.<parameter>, greedy_ids [B, P + T] (P prompt tokens; manifest "prompt_length", default 8).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"

namespace coca::eval {

enum class Verdict : uint8_t { kPass, kFail };

struct TensorCheck {
  std::string name;
  double error = 0;         // largest |ours - stored| / largest |stored|; for greedy_ids the share of wrong ids
  std::string worst_index;  // "[0, 12, 5]"
  Verdict verdict = Verdict::kPass;
};

struct CaseCheck {
  std::string file, scaling;
  std::vector<TensorCheck> tensors;
  Verdict verdict = Verdict::kPass;
};

struct VerifyOptions {
  double tolerance = 1e-4;
  std::function<void(const CaseCheck&)> on_case;  // called as each case ends; may be empty
};

// Throws for a folder that cannot be checked (missing files, unknown tensors, wrong shapes, no cases).
std::vector<CaseCheck> verify_folder(const std::filesystem::path& dir, const VerifyOptions&);

}  // namespace coca::eval
