// A model folder: config.json, index, two shards (parts 0 to 3; without an index the first shard is model.safetensors).
// Only files in the folder are opened, and no memory is allocated for missing tensors.
// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/model_folder.h"
#include "coca/formats/tensor_source.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.base = size_t{2} << 20, .per_byte = 256}) {
  using namespace coca;
  const auto parts = fuzz::parts_of(input);
  const std::string_view index = fuzz::part(parts, 1);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  folder.write("config.json", fuzz::part(parts, 0));
  if (!index.empty()) folder.write("model.safetensors.index.json", index);
  folder.write(index.empty() ? "model.safetensors" : "a.safetensors", fuzz::part(parts, 2));
  folder.write("b.safetensors", fuzz::part(parts, 3));
  fuzz::attempt([&] {
    const formats::WeightFiles files(folder.path());
    for (const auto& [name, entry] : files.entries()) {
      fuzz::require(entry.file->path().parent_path() == folder.path(), "a weight file outside the folder");
      fuzz::require(files.at(name).tensor == entry.tensor, "a tensor that is not found by its name");
    }
  });
  fuzz::attempt([&] {
    const model::Model loaded = formats::load_model(folder.path());
    fuzz::require(loaded.params != nullptr, "a model without parameters");
  });
  fuzz::attempt([&] {
    const auto source = formats::open_source(folder.path(), std::nullopt);
    for (const model::ParamInfo& info : model::parameter_list(source->spec())) source->read(info);
  });
}
