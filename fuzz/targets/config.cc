// config.json of a model folder, with rope_scaling or rope_parameters. An accepted file can be written and read again
// with the same result, and its angles can be computed. Memory: a config.json may state up to 10000 layers in one
// number.
// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/config.h"
#include "coca/io/json_file.h"
#include "coca/model/rope_rotation.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.base = size_t{8} << 20, .per_byte = 256}) {
  using namespace coca;
  const model::ModelSpec spec = formats::spec_from_json(io::parse_json(input, "config.json"), "config.json");
  const std::string written = formats::spec_to_json(spec).dump();
  const model::ModelSpec again = formats::spec_from_json(io::parse_json(written, "written"), "written");
  fuzz::require(again.V == spec.V && again.C == spec.C && again.D == spec.D && again.R == spec.R && again.G == spec.G &&
                    again.attention == spec.attention && again.rope_scaling == spec.rope_scaling &&
                    again.layer_window == spec.layer_window,
                "a config.json that reads back as another model");
  if (spec.R > 4096 || spec.rope_scaling.type == model::Scaling::kClex) return;
  for (const int64_t length : {int64_t{1}, spec.max_position, int64_t{1} << 40})
    fuzz::attempt([&] { model::rope_rotation(spec, length); });
}
