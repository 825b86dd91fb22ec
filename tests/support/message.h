// tests/support/message.h - the full message of an error, for tests that compare it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "coca/base/error.h"

namespace coca::test {

// The message of the Error that body throws.
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
