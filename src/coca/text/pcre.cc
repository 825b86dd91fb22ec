// SPDX-License-Identifier: Apache-2.0
#include "coca/text/pcre.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::text {

namespace {

constexpr size_t kMaxCompiled = 1 << 18;  // bytes of a pattern's program
constexpr uint32_t kMaxDepth = 100'000;
constexpr size_t kJitStack = 8 * 1024 * 1024;  // bytes, at most
constexpr size_t kShown = 200;                 // bytes of a text that errors quote

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

uint32_t options_of(const PcreRules& rules) {
  uint32_t options = PCRE2_NEVER_BACKSLASH_C;
  if (rules.text == PcreRules::Text::kUnicode) options |= PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_DUPNAMES;
  if (rules.match == PcreRules::Match::kWhole) options |= PCRE2_ANCHORED | PCRE2_ENDANCHORED;
  return options;
}

}  // namespace

struct Pcre::Compiled {
  Code code;
  MatchContext limits;
};

Pcre::Pcre(std::string_view pattern, std::string origin, std::string written, const PcreRules& rules)
    : origin_(std::move(origin)),
      written_(std::move(written)),
      text_(rules.text),
      compiled_(std::make_unique<Compiled>()) {
  const auto context = owned<CompileContext>(pcre2_compile_context_create_8(nullptr));
  pcre2_set_newline_8(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit_8(context.get(), 100);
  int error = 0;
  size_t offset = 0;
  compiled_->code.reset(pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(pattern.data()), pattern.size(),
                                        options_of(rules), &error, &offset, context.get()));
  COCA_CHECK_AS(kBadFile, compiled_->code, "{}: \"{}\" is not a regular expression that can be used: {}", origin_,
                written_, message_of(error));
  size_t size = 0;
  pcre2_pattern_info_8(compiled_->code.get(), PCRE2_INFO_SIZE, &size);
  COCA_CHECK_AS(kBadFile, size <= kMaxCompiled, "{}: \"{}\" becomes a program of {}; at most {}", origin_, written_,
                counted(size, "byte"), grouped(kMaxCompiled));
  pcre2_jit_compile_8(compiled_->code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter runs
  compiled_->limits = owned<MatchContext>(pcre2_match_context_create_8(nullptr));
  pcre2_set_match_limit_8(compiled_->limits.get(), rules.max_steps);
  pcre2_set_depth_limit_8(compiled_->limits.get(), kMaxDepth);
  pcre2_set_heap_limit_8(compiled_->limits.get(), rules.max_kib);
  pcre2_jit_stack_assign_8(compiled_->limits.get(), &thread_jit_stack, nullptr);
}

Pcre::~Pcre() = default;

bool Pcre::matches(std::string_view text) const {
  bool found = false;
  scan(text, [&](Span) {
    found = true;
    return std::nullopt;
  });
  return found;
}

void Pcre::scan(std::string_view text, const std::function<std::optional<size_t>(Span)>& next) const {
  const auto data = owned<MatchData>(pcre2_match_data_create_8(1, nullptr));
  const uint32_t options = text_ == PcreRules::Text::kUnicode ? PCRE2_NO_UTF_CHECK : 0;
  for (std::optional<size_t> from = 0; from && *from <= text.size();) {
    const int result = pcre2_match_8(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(),
                                     *from, options, data.get(), compiled_->limits.get());
    if (result == PCRE2_ERROR_NOMATCH) return;
    COCA_CHECK_AS(
        kBadFile, result >= 0, "{}: \"{}\" cannot be matched against {}: {}", origin_, written_,
        text.size() <= kShown ? fmt::format("\"{}\"", text) : fmt::format("a text of {}", counted(text.size(), "byte")),
        message_of(result));
    const size_t* span = pcre2_get_ovector_pointer_8(data.get());
    from = next({.begin = span[0], .end = span[1]});
  }
}

}  // namespace coca::text
