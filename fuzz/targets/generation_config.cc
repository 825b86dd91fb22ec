// generation_config.json of a model folder.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/generation_config.h"
#include "coca/io/json_file.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.per_byte = 256}) {
  using namespace coca;
  const auto config =
      text::generation_config_from_json(io::parse_json(input, "generation_config.json"), "generation_config.json");
  fuzz::require(config.ids.eos.size() <= input.size(), "more ids than there are");
}
