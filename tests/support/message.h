// tests/support/message.h - what an error says, for tests that compare all of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "coca/base/error.h"

namespace coca::test {

// Of the Error that body throws.
template <typename Body>
std::string message(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace coca::test
