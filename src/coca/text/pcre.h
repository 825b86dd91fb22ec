// coca/text/pcre.h - the only place that calls PCRE2. Patterns come from untrusted files, so compiling and
// matching have limits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace coca::text {

struct PcreRules {
  // kBytes: any bytes. kUnicode: valid UTF-8, Unicode's classes, ^ and $ at every line.
  enum class Text : uint8_t { kBytes, kUnicode };
  enum class Match : uint8_t { kAnywhere, kWhole };

  Text text = Text::kBytes;
  Match match = Match::kAnywhere;
  uint32_t max_steps = 0;  // of one match
  uint32_t max_kib = 0;    // of memory for one match
};

class Pcre {
 public:
  struct Span {
    size_t begin, end;
  };

  // `pattern` is in PCRE2's syntax; errors (kBadFile) name `origin` and show the pattern as `written` in the file.
  Pcre(std::string_view pattern, std::string origin, std::string written, const PcreRules&);
  ~Pcre();
  Pcre(const Pcre&) = delete;
  Pcre& operator=(const Pcre&) = delete;

  // Both throw Error kBadFile if a match takes too many steps or too much memory. Thread-safe.
  bool matches(std::string_view text) const;
  // Matches from left to right: `next` takes one and returns where to look for another; nothing ends the search.
  void scan(std::string_view text, const std::function<std::optional<size_t>(Span)>& next) const;

 private:
  struct Compiled;
  std::string origin_, written_;
  PcreRules::Text text_;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace coca::text
