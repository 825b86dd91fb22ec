// coca/io/json_file.h - JSON read strictly (depth limit, no duplicate keys, whole input) and written
// atomically.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace coca::io {

inline constexpr int kMaxJsonDepth = 64;

// `origin` names the text in errors ("config.json", "books.jsonl:17"). Error kBadFile says where and why.
nlohmann::json parse_json(std::string_view text, std::string_view origin);
nlohmann::ordered_json parse_ordered_json(std::string_view text, std::string_view origin);  // keys in their order
nlohmann::json read_json(const std::filesystem::path& file);

// The text of a value, indented by so many (-1: one line). Strings that are not UTF-8, as names of files may be, are
// written as name_from_bytes() of names.h gives them; all others as they are. Ordered values keep the order of their
// keys.
std::string json_text(const nlohmann::json& value, int indent = 2);
std::string json_text(const nlohmann::ordered_json& value, int indent = 2);
// json_text() and a final newline.
void write_json(const std::filesystem::path& file, const nlohmann::json& value);
void write_json(const std::filesystem::path& file, const nlohmann::ordered_json& value);

}  // namespace coca::io
