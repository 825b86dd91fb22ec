// coca/text/regex.cc - see regex.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>
#include <optional>

#include "coca/base/error.h"
#include "coca/text/unicode.h"

namespace coca::text {

namespace {

constexpr size_t kMaxPattern = 16 * 1024;    // bytes of a pattern
constexpr size_t kMaxCompiled = 1 << 18;     // bytes of its program
constexpr uint32_t kMatchLimit = 1'000'000;  // steps of one match
constexpr uint32_t kDepthLimit = 100'000;
constexpr uint32_t kHeapLimit = 64 * 1024;         // KiB
constexpr size_t kJitStack = 8 * 1024 * 1024;      // bytes, at most

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
using Code = std::unique_ptr<pcre2_code_8, Free<pcre2_code_free_8>>;
using CompileContext = std::unique_ptr<pcre2_compile_context_8, Free<pcre2_compile_context_free_8>>;
using MatchContext = std::unique_ptr<pcre2_match_context_8, Free<pcre2_match_context_free_8>>;
using MatchData = std::unique_ptr<pcre2_match_data_8, Free<pcre2_match_data_free_8>>;
using JitStack = std::unique_ptr<pcre2_jit_stack_8, Free<pcre2_jit_stack_free_8>>;

template <typename Owner, typename Made>
Owner owned(Made* made) {
  if (made == nullptr) throw std::bad_alloc();
  return Owner(made);
}

// Long matches need more than the machine stack's share; one a thread, made when first needed.
pcre2_jit_stack_8* thread_jit_stack(void*) {
  thread_local const JitStack stack(pcre2_jit_stack_create_8(32 * 1024, kJitStack, nullptr));
  return stack.get();  // null: PCRE2 falls back to 32 KiB of the machine stack
}

}  // namespace

struct Regex::Compiled {
  Code code;
  MatchContext limits;
};

Regex::Regex(std::string_view pattern, std::string origin)
    : pattern_(pattern), origin_(std::move(origin)), compiled_(std::make_unique<Compiled>()) {
  COCA_CHECK_AS(kBadFile, pattern.size() <= kMaxPattern, "{}: a pattern of {} bytes; at most {}", origin_,
                pattern.size(), kMaxPattern);
  const std::string translated = translate_oniguruma(pattern, origin_);
  const auto context = owned<CompileContext>(pcre2_compile_context_create_8(nullptr));
  pcre2_set_newline_8(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit_8(context.get(), 100);
  int error = 0;
  size_t offset = 0;
  // Ruby's ^ and $ match at every line.
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_DUPNAMES;
  compiled_->code.reset(pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(translated.data()), translated.size(), options,
                                        &error, &offset, context.get()));
  COCA_CHECK_AS(kBadFile, compiled_->code, "{}: \"{}\" is not a regular expression that can be used: {}", origin_,
                pattern_, message_of(error));
  size_t size = 0;
  pcre2_pattern_info_8(compiled_->code.get(), PCRE2_INFO_SIZE, &size);
  COCA_CHECK_AS(kBadFile, size <= kMaxCompiled, "{}: \"{}\" becomes a program of {} bytes; at most {}", origin_,
                pattern_, size, kMaxCompiled);
  pcre2_jit_compile_8(compiled_->code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter runs
  compiled_->limits = owned<MatchContext>(pcre2_match_context_create_8(nullptr));
  pcre2_set_match_limit_8(compiled_->limits.get(), kMatchLimit);
  pcre2_set_depth_limit_8(compiled_->limits.get(), kDepthLimit);
  pcre2_set_heap_limit_8(compiled_->limits.get(), kHeapLimit);
  pcre2_jit_stack_assign_8(compiled_->limits.get(), &thread_jit_stack, nullptr);
}

Regex::~Regex() = default;

void Regex::find_all(std::string_view text, const std::function<void(size_t, size_t)>& found) const {
  const auto data = owned<MatchData>(pcre2_match_data_create_8(1, nullptr));
  std::optional<size_t> last_end;
  for (size_t at = 0; at <= text.size();) {
    const int result = pcre2_match_8(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(), at,
                                     PCRE2_NO_UTF_CHECK, data.get(), compiled_->limits.get());
    if (result == PCRE2_ERROR_NOMATCH) return;
    COCA_CHECK_AS(kBadFile, result >= 0, "{}: \"{}\" cannot be matched against a text of {} bytes: {}", origin_,
                  pattern_, text.size(), message_of(result));
    const size_t* span = pcre2_get_ovector_pointer_8(data.get());
    const size_t begin = span[0], end = span[1];
    COCA_CHECK_AS(kBadFile, begin <= end && begin >= last_end.value_or(0),
                  "{}: \"{}\" matches backwards; \\K in a lookaround is not supported", origin_, pattern_);
    const bool touching = begin == end && last_end == end;
    if (!touching) found(begin, end);
    last_end = end;
    at = end;
    if (begin != end) continue;
    at += at < text.size() ? read_utf8(text.data() + at).length : 1;
  }
}

}  // namespace coca::text
