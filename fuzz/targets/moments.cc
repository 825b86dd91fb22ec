// The optimizer's moments in a checkpoint, as one file or as the files of two ranks (parts 0 and 1). Moments that are
// accepted are present and complete.
// SPDX-License-Identifier: Apache-2.0
#include "coca/train/moments.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.per_byte = 256}) {
  using namespace coca;
  const auto parts = fuzz::parts_of(input);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  folder.write(parts.size() > 1 ? "optimizer-00001-of-00002.safetensors" : "optimizer.safetensors", parts[0]);
  if (parts.size() > 1) folder.write("optimizer-00002-of-00002.safetensors", parts[1]);
  const std::vector<model::ParamInfo> trained = {
      {.name = "a", .shape = Dims({2, 3}), .role = model::ParamRole::kMatrix, .index = 0, .offset = 0},
      {.name = "b", .shape = Dims({5}), .role = model::ParamRole::kBias, .index = 1, .offset = 6}};
  optim::AdamW optimizer(trained, {});
  train::load_moments(folder.path(), optimizer);
}
