// coca/train/moments.h - an optimizer's moments on disk: one file, or one per rank. Tensors "m.NAME" and "v.NAME" are
// whole. Of a tensor that is split over ranks, "m.NAME[begin:end]" holds these elements of the flattened tensor. Any
// number of ranks can read them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "coca/optim/optimizer.h"

namespace coca::train {

// This rank's file: optimizer.safetensors of one rank, optimizer-00001-of-00004.safetensors of several.
void save_moments(const std::filesystem::path& dir, optim::AdamW&, const dist::Communicator&);
// Loads the part that the optimizer owns here, from all files, bit for bit. Error kBadFile if elements are missing or a
// tensor does not fit, kIo if there is no file.
void load_moments(const std::filesystem::path& dir, optim::AdamW&);

}  // namespace coca::train
