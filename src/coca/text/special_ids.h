// coca/text/special_ids.h - which ids begin and end a text, from the files that stand beside a tokenizer.json.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coca/text/json_field.h"
#include "coca/text/tokenizer.h"

namespace coca::text {

// Read with a tokenizer.json's folder, and saved with it.
inline constexpr const char* kFilesBesideTokenizer[] = {"tokenizer_config.json", "special_tokens_map.json",
                                                        "generation_config.json", "chat_template.jinja"};

struct SpecialIds {
  std::optional<int32_t> bos, eos;
  std::vector<int32_t> ends;  // eos first
};
// The first file that names a token counts: tokenizer_config.json, special_tokens_map.json, generation_config.json.
// `files` holds their content by name.
SpecialIds read_special_ids(const std::map<std::string, std::string>& files, const std::string& origin,
                            const std::function<std::optional<int32_t>(std::string_view)>& id_of);

// The ids that a "post_processor" puts around one text: TemplateProcessing, ByteLevel (none) and Sequence of them.
SequenceFrame read_frame(const JsonField& post_processor);

}  // namespace coca::text
