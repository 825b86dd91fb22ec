// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/name_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>

#include "coca/base/error.h"

namespace coca::formats {

namespace {

constexpr size_t kMaxPattern = 4096;       // bytes
constexpr uint32_t kMatchLimit = 100'000;  // steps of one match
constexpr uint32_t kHeapLimit = 1024;      // KiB

std::string message_of(int code) {
  PCRE2_UCHAR8 text[200];
  pcre2_get_error_message_8(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};

}  // namespace

struct NamePattern::Compiled {
  std::unique_ptr<pcre2_code_8, Free<pcre2_code_free_8>> code;
  std::unique_ptr<pcre2_match_context_8, Free<pcre2_match_context_free_8>> limits;
  std::unique_ptr<pcre2_match_data_8, Free<pcre2_match_data_free_8>> data;
};

NamePattern::NamePattern(std::string pattern, std::string where)
    : pattern_(std::move(pattern)), where_(std::move(where)), compiled_(std::make_unique<Compiled>()) {
  COCA_CHECK_AS(kBadFile, pattern_.size() <= kMaxPattern, "{}: a pattern of {} bytes; at most {}", where_, pattern_.size(), kMaxPattern);
  int error = 0;
  size_t offset = 0;
  constexpr uint32_t kOptions = PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_BACKSLASH_C;
  compiled_->code.reset(
      pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(pattern_.data()), pattern_.size(), kOptions, &error, &offset, nullptr));
  COCA_CHECK_AS(kBadFile, compiled_->code, "{}: \"{}\" is not a regular expression that can be read here: {}", where_, pattern_,
                message_of(error));
  compiled_->limits.reset(pcre2_match_context_create_8(nullptr));
  compiled_->data.reset(pcre2_match_data_create_8(1, nullptr));
  if (!compiled_->limits || !compiled_->data) throw std::bad_alloc();
  pcre2_set_match_limit_8(compiled_->limits.get(), kMatchLimit);
  pcre2_set_heap_limit_8(compiled_->limits.get(), kHeapLimit);
}

NamePattern::~NamePattern() = default;

bool NamePattern::matches(std::string_view name) const {
  const int result = pcre2_match_8(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR8>(name.data()), name.size(), 0, 0,
                                   compiled_->data.get(), compiled_->limits.get());
  if (result == PCRE2_ERROR_NOMATCH) return false;
  COCA_CHECK_AS(kBadFile, result >= 0, "{}: \"{}\" cannot be matched against \"{}\": {}", where_, pattern_, name, message_of(result));
  return true;
}

}  // namespace coca::formats
