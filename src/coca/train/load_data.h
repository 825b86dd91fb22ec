// coca/train/load_data.h - makes a TokenFile from the text or token files given to `coca train` and `coca study`.
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

// The inputs that are read: of a folder in PG-19's layout, one split (`split`, which only such folders have, else
// `otherwise`). Error for inputs that cannot be found, and for a .tok file of another tokenizer.
std::vector<std::string> text_inputs(const std::vector<std::string>& inputs, const text::Tokenizer&,
                                     std::optional<data::Split> split, data::Split otherwise);

// Loads these inputs. A single .tok file is mapped. Anything else is tokenized into `cache`, with a list of its
// documents beside it; the cache is reused if the inputs, their sizes and times, and the tokenizer have not changed.
data::TokenFile load_tokens(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer,
                            const std::filesystem::path& cache,
                            const std::function<void(int64_t done, int64_t total)>& progress = {},
                            std::optional<data::Split> split = {}, data::Split otherwise = data::Split::kTrain);

// The first documents of these inputs, or all of a .tok file, as load_tokens gives them, but in memory and without
// writing anything. They have at least this many tokens and documents, if the text has. With `list`, all of the text is
// read, although no more of it is tokenized: for the list of its documents, as document_list gives it, and for the
// warnings of load_tokens.
struct SampleSize {
  int64_t tokens = 0, documents = 1;
};
data::TokenFile sample_tokens(const std::vector<std::string>& inputs, const text::Tokenizer&, SampleSize enough,
                              std::optional<data::Split> split, data::Split otherwise, std::string* list = nullptr);

// About the bytes of the token file that load_tokens makes of these inputs, from their size and the tokens of the first
// part of the text; 0 for a token file, which is used as it is.
int64_t cache_bytes(const std::vector<std::string>& inputs, const text::Tokenizer&, std::optional<data::Split> split,
                    data::Split otherwise);

// The list of documents (data/overlap.h) of these inputs, which load_tokens gave: the one it wrote beside the cache; of
// a .tok file, what its documents decode to. Of more than kMostCompared tokens the list is empty, and a note says so.
std::string document_list(const std::vector<std::string>& inputs, const data::TokenFile&, const text::Tokenizer&,
                          const std::filesystem::path& cache);
inline constexpr int64_t kMostCompared = int64_t{1} << 28;  // seconds to decode

}  // namespace coca::train
