// coca/text/tokens_beside.h - tokens that files beside a tokenizer.model add to its pieces: added_tokens.json,
// tokenizer_config.json (added_tokens_decoder, named tokens, legacy, add_prefix_space, add_bos_token, add_eos_token)
// and special_tokens_map.json, read as transformers reads them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coca/text/added_tokens.h"
#include "coca/text/special_ids.h"

namespace coca::text {

// sentencepiece puts a blank before a text. Before which parts, if added tokens cut the text?
enum class PrefixSpace { kEveryPart, kFirstPart, kNever };

struct TokensBeside {
  std::vector<AddedToken> tokens;  // by id; those of the model's pieces among them
  PrefixSpace prefix = PrefixSpace::kEveryPart;
  std::optional<bool> add_bos, add_eos;
  SpecialIds special;  // from the files; empty if they name none
};

// The content of a model by id, and the id of a text.
struct PieceTable {
  int32_t size = 0;
  std::function<std::string_view(int32_t id)> text;
  std::function<std::optional<int32_t>(std::string_view)> find;
  std::function<bool(int32_t id)> replaceable;  // the id is free, or an unused piece
  std::function<bool(int32_t id)> control;      // may have another name if the files give that name a role
};

// `files`: their content by name; `model_file` is the tokenizer.model beside them. Error kBadFile naming the file for
// tokens that contradict the model or one another.
TokensBeside read_tokens_beside(const std::map<std::string, std::string>& files, const std::string& model_file,
                                const PieceTable& pieces);

}  // namespace coca::text
