// coca/base/count.h - how many of what, in words.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace coca {

std::string grouped(int64_t number);  // "851,968"
// "1 document", "1,203 documents", "0 documents"; `many` for what does not take an s: counted(2, "matrix", "matrices").
std::string counted(int64_t number, std::string_view one, std::string_view many = "");

}  // namespace coca
