// coca/io/json_file.cc - see json_file.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/json_file.h"

#include <set>
#include <string>
#include <vector>

#include "coca/base/error.h"
#include "coca/io/fs.h"

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

  bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        COCA_CHECK_AS(kBadFile, depth < kMaxJsonDepth, "{}: JSON nested deeper than {} levels", origin_,
                      kMaxJsonDepth);
        keys_.emplace_back();
        break;
      case Event::key: {
        const std::string& key = value.get_ref<const std::string&>();
        COCA_CHECK_AS(kBadFile, keys_.back().insert(key).second, "{}: key \"{}\" occurs twice in one object",
                      origin_, key);
        break;
      }
      case Event::object_end:
      case Event::array_end:
        keys_.pop_back();
        break;
      case Event::value:
        break;
    }
    return true;
  }

 private:
  std::string_view origin_;
  std::vector<std::set<std::string>> keys_;
};

template <typename Json>
void write_any(const std::filesystem::path& file, const Json& value) {
  std::string text;
  try {
    text = value.dump(2);
  } catch (const nlohmann::json::exception& error) {  // strings that are not UTF-8
    fail(ErrorKind::kInvalidArgument, "{}: cannot write as JSON: {}", file.string(), reason(error));
  }
  write_file_atomic(file, text + "\n");
}

}  // namespace

nlohmann::json parse_json(std::string_view text, std::string_view origin) {
  StrictCallback strict(origin);
  try {
    return nlohmann::json::parse(text.begin(), text.end(), std::ref(strict));
  } catch (const nlohmann::json::parse_error& error) {
    fail(ErrorKind::kBadFile, "{}: not valid JSON at byte {} of {}: {}", origin, error.byte, text.size(),
         reason(error));
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::kBadFile, "{}: not valid JSON: {}", origin, reason(error));
  }
}

nlohmann::json read_json(const std::filesystem::path& file) {
  return parse_json(read_file(file), file.string());
}

void write_json(const std::filesystem::path& file, const nlohmann::json& value) {
  write_any(file, value);
}
void write_json(const std::filesystem::path& file, const nlohmann::ordered_json& value) {
  write_any(file, value);
}

}  // namespace coca::io
