// coca/train/load_data.h - text or token files to a TokenFile, as `coca train` and `coca study` take them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "coca/data/overlap.h"
#include "coca/data/pg19.h"
#include "coca/data/token_file.h"

namespace coca::train {

// What is read of the inputs: of a folder of PG-19's layout one split (`split`, which only such folders have, else `otherwise`).
// Error for what cannot be found, and for a .tok file of another tokenizer.
std::vector<std::string> text_inputs(const std::vector<std::string>& inputs, const text::Tokenizer&, std::optional<data::Split> split,
                                     data::Split otherwise);

// These inputs. One .tok file is mapped; anything else is tokenized into `cache` (reused when the inputs, their sizes and times,
// and the tokenizer are the same as when it was made), its documents listed beside it.
data::TokenFile load_tokens(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer,
                            const std::filesystem::path& cache,
                            const std::function<void(int64_t done, int64_t total)>& progress = {},
                            std::optional<data::Split> split = {}, data::Split otherwise = data::Split::kTrain);

// The first documents of these inputs, or all of a .tok file: as load_tokens gives them, but in memory, with nothing written. They
// have at least so many tokens and documents where the text does.
struct SampleSize {
  int64_t tokens = 0, documents = 1;
};
data::TokenFile sample_tokens(const std::vector<std::string>& inputs, const text::Tokenizer&, SampleSize enough, std::optional<data::Split> split,
                              data::Split otherwise);

// The list of documents (data/overlap.h) of what load_tokens made of these inputs; empty for a token file, of which it is not known.
std::string document_list(const std::vector<std::string>& inputs, const std::filesystem::path& cache);

}  // namespace coca::train
