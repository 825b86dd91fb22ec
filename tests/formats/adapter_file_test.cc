// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/adapter_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "coca/base/rng.h"
#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"
#include "support/numerics.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace coca::formats::adapter_file_test {
namespace {

using namespace model;
using ::testing::HasSubstr;

void fill_randomly(Adapter& adapter, double size, uint64_t seed) {
  Rng rng(seed);
  for (const ParamInfo& info : adapter.tensors().infos()) {
    float* values = adapter.tensors().at(info).as<float>();
    for (int64_t i = 0; i < info.shape.product(); ++i) values[i] = static_cast<float>(size * rng.normal());
  }
}

TEST(AdapterFile, RoundTripsBitwise) {
  const test::TempDir dir;
  const ModelSpec spec = test::tiny_llama(AttentionKind::kCocaSlack);
  const LoraSettings settings{
      .rank = 3, .alpha = 5, .dropout = 0.25, .scaling = LoraSettings::Scaling::kByRootOfRank, .base = "some/model"};
  std::vector<LoraTarget> targets = select_lora_targets(spec, settings, {"*t_proj", "*.1.mlp.up_proj"});
  targets[0].rank = 2;
  targets[1].alpha = 7;
  Adapter saved(spec, settings, targets);
  fill_randomly(saved, 1.0, 2);
  save_adapter(dir.path(), saved);
  const auto loaded = load_adapter(dir.path(), spec);
  ASSERT_EQ(loaded->targets().size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(loaded->targets()[i].module, saved.targets()[i].module);
    EXPECT_EQ(loaded->targets()[i].rank, saved.targets()[i].rank);
    EXPECT_EQ(loaded->scale(loaded->targets()[i]), saved.scale(saved.targets()[i]));
  }
  EXPECT_EQ(loaded->settings().dropout, 0.25);
  EXPECT_EQ(loaded->settings().base, "some/model");
  const TensorRef a = saved.tensors().flat(), b = loaded->tensors().flat();
  EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0);
  const nlohmann::json config = io::read_json(dir / "adapter_config.json");
  EXPECT_EQ(config["target_modules"], (nlohmann::json{"model.layers.1.mlp.up_proj", "t_proj"}));
  const io::SafetensorsFile file(dir / "adapter_model.safetensors");
  EXPECT_NE(file.find("base_model.model.model.layers.0.self_attn.t_proj.lora_A.weight"), nullptr);
}

TEST(AdapterFile, RefusesValuesThatAreNotFinite) {
  const test::TempDir dir;
  const ModelSpec spec = test::tiny_llama(AttentionKind::kRope);
  const LoraSettings settings{.rank = 2, .alpha = 4};
  Adapter adapter(spec, settings, select_lora_targets(spec, settings, {"*q_proj"}));
  fill_randomly(adapter, 1.0, 2);
  const ParamInfo& last = adapter.tensors().infos().back();
  for (const auto& [value, shown] :
       {std::pair(std::nanf(""), "nan"), std::pair(-std::nanf(""), "nan"), std::pair(-HUGE_VALF, "-inf")}) {
    adapter.tensors().at(last).as<float>()[3] = value;
    save_adapter(dir.path(), adapter);
    const std::string message = (dir / "adapter_model.safetensors").string() + ": tensor \"base_model.model." +
                                last.name + "\" holds " + shown + " at element 3; expected finite values";
    EXPECT_EQ(test::error_of(ErrorKind::kBadFile, [&] { load_adapter(dir.path(), spec); }), message);
    EXPECT_EQ(test::error_of(ErrorKind::kBadFile, [&] { load_adapter_tensors(dir.path(), adapter); }), message);
  }
}

TEST(AdapterFile, ConfigsAsPeftWritesThem) {
  const test::TempDir dir;
  const ModelSpec spec = test::tiny_neox(AttentionKind::kCocaSlack);
  const LoraSettings settings{.rank = 2, .alpha = 4};
  Adapter saved(spec, settings, select_lora_targets(spec, settings, {}));
  fill_randomly(saved, 1.0, 2);
  save_adapter(dir.path(), saved);
  const nlohmann::json good = io::read_json(dir / "adapter_config.json");
  const auto with = [&](const char* field, const nlohmann::json& value) {
    nlohmann::json c = good;
    c[field] = value;
    io::write_json(dir / "adapter_config.json", c);
    return load_adapter(dir.path(), spec);
  };
  for (const nlohmann::json& all :
       {nlohmann::json("all-linear"), nlohmann::json(".*(query_key_value|dense.*)"), good["target_modules"]})
    EXPECT_EQ(with("target_modules", all)->targets().size(), 8u) << all;
  const nlohmann::json newest = {{"layers_to_transform", nullptr},   {"lora_bias", false},
                                 {"peft_version", "0.18.0"},         {"qalora_group_size", 16},
                                 {"megatron_core", "megatron.core"}, {"exclude_modules", nullptr}};
  for (const auto& [field, value] : newest.items()) EXPECT_NO_THROW(with(field.c_str(), value)) << field;
  EXPECT_EQ(with("alpha_pattern", {{"dense", 1.0}})->scale(load_adapter(dir.path(), spec)->targets()[1]), 0.5f);
  const auto refused = [&](const char* field, const nlohmann::json& value, const std::string& text) {
    EXPECT_THAT(test::error_of(ErrorKind::kBadFile, [&] { with(field, value); }), HasSubstr(text));
  };
  refused("use_dora", true, "use_dora");
  refused("modules_to_save", {"embed_in"}, "modules_to_save");
  refused("bias", "all", "bias \"all\"");
  refused("fan_in_fan_out", true, "fan_in_fan_out");
  refused("layers_to_transform", {0}, "layers_to_transform");
  refused("init_lora_weights", "pissa", "init_lora_weights");
  refused("peft_type", "IA3", "peft_type \"IA3\"");
  refused("target_modules", {"q_proj"}, "fits no module");
  refused("target_modules", {"dense"}, "belongs to no module");
  refused("target_modules", "(", "regular expression");
  refused("r", 3, "shape [2, 24]; expected [3, 24]: the adapter probably belongs to another model");
  refused("coca_attention", "coca-strict",
          "was trained on a model with attention \"coca-strict\" (base_model_name_or_path \"\"); this model has "
          "attention \"coca-slack\"");
  EXPECT_NO_THROW(with("coca_attention", nullptr)) << "PEFT writes none";
  refused("rank_pattern", {{"dense", "x"}}, "rank_pattern");
}

}  // namespace
}  // namespace coca::formats::adapter_file_test
