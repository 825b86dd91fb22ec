// coca/train/moments.h - an optimizer's moments on disk: one file, or one of each rank. Tensors "m.NAME" and "v.NAME" are
// whole; of a tensor that is shared, "m.NAME[begin:end]" has these elements of it, flattened. Read by any number of ranks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "coca/optim/optimizer.h"

namespace coca::train {

// This rank's file: optimizer.safetensors of one rank, optimizer-00001-of-00004.safetensors of several.
void save_moments(const std::filesystem::path& dir, optim::AdamW&, const dist::Communicator&);
// What the optimizer owns here, from all files there are, bit for bit. Error kBadFile where elements are missing or a tensor
// does not fit, kIo where there is no file.
void load_moments(const std::filesystem::path& dir, optim::AdamW&);

}  // namespace coca::train
