// The folder of a LoRA adapter (adapter_config.json, adapter_model.safetensors), loaded for a small model.
// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "coca/formats/adapter_file.h"
#include "coca/formats/config.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.base = size_t{1} << 20, .per_byte = 256}) {
  using namespace coca;
  static const model::ModelSpec spec = formats::spec_from_json(
      nlohmann::json::parse(R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1,
                                "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 6})"),
      "spec");
  const auto parts = fuzz::parts_of(input);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  folder.write("adapter_config.json", fuzz::part(parts, 0));
  folder.write("adapter_model.safetensors", fuzz::part(parts, 1));
  const auto adapter = formats::load_adapter(folder.path(), spec);
  fuzz::require(!adapter->targets().empty(), "an adapter of nothing");
}
