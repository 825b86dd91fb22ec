// A model in Meta's layout: params.json and two consolidated parts (parts 0 to 2).
// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/tensor_source.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.base = size_t{2} << 20, .per_byte = 256}) {
  using namespace coca;
  const auto parts = fuzz::parts_of(input);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  folder.write("params.json", fuzz::part(parts, 0));
  folder.write("consolidated.00.safetensors", fuzz::part(parts, 1));
  if (parts.size() > 2) folder.write("consolidated.01.safetensors", parts[2]);
  const auto source = formats::open_source(folder.path(), std::nullopt);
  for (const model::ParamInfo& info : model::parameter_list(source->spec())) {
    const std::vector<float> values = source->read(info);
    fuzz::require(static_cast<int64_t>(values.size()) == info.shape.product(), "values that are not of their shape");
  }
}
