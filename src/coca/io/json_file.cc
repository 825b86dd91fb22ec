// coca/io/json_file.cc - see json_file.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/json_file.h"

#include <set>
#include <string>
#include <vector>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/names.h"

namespace coca::io {

namespace {

// nlohmann's messages repeat "[json.exception...]" and the position; keep what follows.
std::string reason(const nlohmann::json::exception& error) {
  const std::string text = error.what();
  const size_t at = text.find("] ");
  return at == std::string::npos ? text : text.substr(at + 2);
}

// Sees each event of the parser; refuses depth and duplicate keys, which nlohmann accepts silently.
class StrictCallback {
 public:
  explicit StrictCallback(std::string_view origin) : origin_(origin) {}

  template <typename Json>
  bool operator()(int depth, typename Json::parse_event_t event, const Json& value) {
    using Event = typename Json::parse_event_t;
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        COCA_CHECK_AS(kBadFile, depth < kMaxJsonDepth, "{}: JSON nested deeper than {} levels", origin_, kMaxJsonDepth);
        keys_.emplace_back();
        break;
      case Event::key: {
        const std::string& key = value.template get_ref<const std::string&>();
        COCA_CHECK_AS(kBadFile, keys_.back().insert(key).second, "{}: key \"{}\" occurs twice in one object", origin_,
                      key);
        break;
      }
      case Event::object_end:
      case Event::array_end: keys_.pop_back(); break;
      case Event::value: break;
    }
    return true;
  }

 private:
  std::string_view origin_;
  std::vector<std::set<std::string>> keys_;
};

template <typename Json>
Json parse_any(std::string_view text, std::string_view origin) {
  StrictCallback strict(origin);
  const auto see = [&](int depth, typename Json::parse_event_t event, Json& value) {
    return strict(depth, event, std::as_const(value));
  };
  try {
    return Json::parse(text.begin(), text.end(), see);
  } catch (const nlohmann::json::parse_error& error) {
    COCA_CHECK_AS(kBadFile, error.byte <= text.size(), "{}: not valid JSON: it ends too early, after {}: {}", origin,
                  counted(text.size(), "byte"), reason(error));
    fail(ErrorKind::kBadFile, "{}: not valid JSON at byte {} of {}: {}", origin, error.byte, text.size(),
         reason(error));
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::kBadFile, "{}: not valid JSON: {}", origin, reason(error));
  }
}

template <typename Json>
void escape_names(Json& value) {
  if (value.is_string()) {
    value = shown_name(value.template get_ref<const std::string&>());
  } else if (value.is_array()) {
    for (Json& item : value) escape_names(item);
  } else if (value.is_object()) {
    Json object = Json::object();
    for (auto& [key, item] : value.items()) {
      escape_names(item);
      object[shown_name(key)] = std::move(item);
    }
    value = std::move(object);
  }
}

template <typename Json>
std::string text_of(const Json& value, int indent) {
  try {
    return value.dump(indent);
  } catch (const nlohmann::json::exception&) {  // a string that is not UTF-8
    Json escaped = value;
    escape_names(escaped);
    return escaped.dump(indent);
  }
}

}  // namespace

nlohmann::json parse_json(std::string_view text, std::string_view origin) {
  return parse_any<nlohmann::json>(text, origin);
}
nlohmann::ordered_json parse_ordered_json(std::string_view text, std::string_view origin) {
  return parse_any<nlohmann::ordered_json>(text, origin);
}

nlohmann::json read_json(const std::filesystem::path& file) { return parse_json(read_file(file), file.string()); }

std::string json_text(const nlohmann::json& value, int indent) { return text_of(value, indent); }
std::string json_text(const nlohmann::ordered_json& value, int indent) { return text_of(value, indent); }

void write_json(const std::filesystem::path& file, const nlohmann::json& value) {
  write_file_atomic(file, json_text(value) + "\n");
}
void write_json(const std::filesystem::path& file, const nlohmann::ordered_json& value) {
  write_file_atomic(file, json_text(value) + "\n");
}

}  // namespace coca::io
