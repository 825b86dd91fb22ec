// SPDX-License-Identifier: Apache-2.0
#include "coca/data/words.h"

#include <string_view>

#include "coca/base/error.h"

namespace coca::data {

std::string made_up_word(Rng& rng) {
  constexpr std::string_view kOnsets = "bdfghjklmnprstvz", kVowels = "aeiou", kEnds = "lmnrst";
  const auto pick = [&](std::string_view letters) { return letters[rng.below(letters.size())]; };
  std::string word;
  for (uint64_t syllables = 2 + rng.below(2); syllables > 0; --syllables) {
    word += pick(kOnsets);
    word += pick(kVowels);
    if (rng.below(3) == 0) word += pick(kEnds);
  }
  return word;
}

std::string random_letters(Rng& rng, int64_t count, char first) {
  std::string text;
  while (static_cast<int64_t>(text.size()) < count) text += static_cast<char>(first + static_cast<char>(rng.below(26)));
  return text;
}

std::string random_number(Rng& rng, int64_t digits) {
  std::string text(1, static_cast<char>('1' + rng.below(9)));
  while (static_cast<int64_t>(text.size()) < digits) text += static_cast<char>('0' + rng.below(10));
  return text;
}

std::string random_uuid(Rng& rng) {
  const uint64_t high = (rng.next() & ~0xf000ull) | 0x4000, low = (rng.next() & (~0ull >> 2)) | (1ull << 63);
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xffff, high & 0xffff, low >> 48,
                     low & 0xffffffffffff);
}

}  // namespace coca::data
