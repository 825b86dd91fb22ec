// coca/data/words.h - names for synthetic tasks, made by rule: no word list is needed, and no model has met them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>

#include "coca/base/rng.h"

namespace coca::data {

// Two or three syllables of consonant, vowel and now and then a closing consonant: "tamor", "belusin".
std::string made_up_word(Rng&);
std::string random_letters(Rng&, int64_t count, char first);  // first is 'a' or 'A'
std::string random_number(Rng&, int64_t digits);              // none leading zero
std::string random_uuid(Rng&);                                // version 4

// Draws until one is new, and remembers it.
template <typename Draw>
std::string distinct(std::set<std::string>& seen, const Draw& draw) {
  std::string text = draw();
  while (!seen.insert(text).second) text = draw();
  return text;
}

}  // namespace coca::data
