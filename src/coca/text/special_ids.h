// coca/text/special_ids.h - the ids that begin and end a text, from the files beside a tokenizer's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coca/text/json_field.h"
#include "coca/text/tokenizer.h"

namespace coca::text {

// Files about tokens that are beside a tokenizer's and are saved with it: their content by name.
std::map<std::string, std::string> read_files_beside(const std::filesystem::path& dir);

struct SpecialIds {
  std::optional<int32_t> bos, eos;
  std::vector<int32_t> ends;  // eos first
};
// The first file that names a token counts: those of `order`, then generation_config.json. `files` holds their content
// by name; `origin` is the tokenizer's file beside them.
SpecialIds read_special_ids(const std::map<std::string, std::string>& files, const std::string& origin,
                            const std::vector<const char*>& order,
                            const std::function<std::optional<int32_t>(std::string_view)>& id_of);

// The ids that a "post_processor" puts around one text: TemplateProcessing, RobertaProcessing,
// BertProcessing, ByteLevel (none) and Sequence of them.
SequenceFrame read_frame(const JsonField& post_processor);

}  // namespace coca::text
