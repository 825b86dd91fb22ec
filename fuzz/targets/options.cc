// --config files of the program; the first byte selects the command. Options that were read can be written and read
// again.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/json_file.h"
#include "coca/study/config.h"
#include "coca/train/finetune_config.h"
#include "support/harness.h"

using namespace coca;

template <typename Options>
static void use(std::string_view text, const auto& check) {
  Options options;
  io::options_from_json(options, io::parse_json(text, "options"), "options");
  const auto written = io::options_to_json(options);
  Options again;
  io::options_from_json(again, io::parse_json(written.dump(), "written"), "written");
  fuzz::require(io::options_to_json(again) == written, "options that read back as others");
  check(options);
}

COCA_FUZZ_TARGET({.per_byte = 512}) {
  if (input.empty()) return;
  const std::string_view text = input.substr(1);
  switch (input[0]) {
    case 't':
      return use<train::TrainConfig>(text, [](const auto& options) {
        train::check_config(options);
        train::make_spec(options, 257, 256, 256);
      });
    case 'f': return use<train::FinetuneConfig>(text, [](const auto& options) { train::check_config(options); });
    default: return use<study::StudyConfig>(text, [](const auto&) {});
  }
}
