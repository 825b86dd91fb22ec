// CSV text. Rows that were read can be written and read again.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/csv.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.per_byte = 200}) {  // a field of one letter becomes a std::string
  using namespace coca;
  size_t complete = 0;
  const auto records = io::parse_csv(input, &complete);
  fuzz::require(complete <= input.size(), "more bytes than there are");
  for (const auto& record : records) {
    const auto again = io::parse_csv(io::csv_line(record));
    fuzz::require(again.size() == 1 && again[0] == record, "a record that does not read back as it was written");
  }
}
