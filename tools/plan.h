// tools/plan.h - the memory that a training needs, from its configuration alone (coca info --plan).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "coca/report/table.h"

namespace coca::tools {

struct Plan {
  report::Table table;
  nlohmann::ordered_json json;
};

// file: the options of `coca train` or `coca finetune`, as for their --config. model: a model folder or a config.json
// whose model is fine-tuned, if the one named in the file is not here; "": that one. vocabulary: of a model trained
// from scratch whose tokenizer is not here; 0: the tokenizer's. Reads no weights and allocates nothing of the model's
// size.
Plan memory_plan(const std::string& file, const std::string& model, int64_t vocabulary);

}  // namespace coca::tools
