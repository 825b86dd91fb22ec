// Model folders and adapters whose numbers promise more than the files hold. They must be refused before anything is
// computed or memory is allocated.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/formats/adapter_file.h"
#include "coca/formats/config.h"
#include "coca/formats/model_folder.h"
#include "coca/formats/tensor_source.h"
#include "coca/io/json_file.h"
#include "support/paths.h"
#include "support/tiny_model.h"

namespace coca::formats::hostile_files_test {
namespace {

using namespace model;
namespace fs = std::filesystem;
using nlohmann::json;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

json small_config() {
  return {{"model_type", "llama"},  {"vocab_size", 23},         {"hidden_size", 24},
          {"num_hidden_layers", 2}, {"num_attention_heads", 2}, {"intermediate_size", 36}};
}

TEST(HostileConfig, ExtentsWhoseProductsOverflow) {
  const auto expect = [](const json& changes, const std::string& text) {
    json config = small_config();
    config.update(changes);
    EXPECT_THAT([&] { spec_from_json(config, "config.json"); },
                ThrowsMessage<Error>(AllOf(HasSubstr("config.json"), HasSubstr(text))));
  };
  constexpr int64_t k2_40 = int64_t{1} << 40;
  expect({{"hidden_size", k2_40}}, "a head dim of 549755813888; expected at most 16777216");
  expect({{"hidden_size", k2_40}, {"head_dim", 2}}, "width 1099511627776; at most 16777216");
  expect({{"intermediate_size", k2_40}}, "mlp width 1099511627776");
  expect({{"head_dim", k2_40}}, "a head dim of 1099511627776");
  expect({{"num_attention_heads", k2_40}, {"num_key_value_heads", k2_40}, {"head_dim", 2}}, "heads 1099511627776");
  // 2^33 heads of 2^31 dims: the product overflows to 0 in 64 bits.
  expect({{"num_attention_heads", int64_t{1} << 33}, {"head_dim", int64_t{1} << 31}}, "at most");
  expect({{"num_attention_heads", 1 << 20}, {"head_dim", 1 << 20}}, "heads times head dim");
  expect({{"hidden_size", 1 << 24}, {"intermediate_size", 1 << 24}, {"num_hidden_layers", 10'000}},
         "parameters; at most 2^56");
}

class HostileFolder : public testing::Test {
 protected:
  TempDir temp;
  fs::path dir = temp.path();
  test::TinyModel m{test::tiny_llama(AttentionKind::kRope)};

  HostileFolder() { save_model(dir, m.spec, m.params); }
  void expect_refused(const json& changes, const std::string& text) const {
    json config = io::read_json(dir / "config.json");
    config.update(changes);
    io::write_json(dir / "config.json", config);
    EXPECT_THAT([&] { load_model(dir); }, ThrowsMessage<Error>(HasSubstr(text)));
    EXPECT_THAT([&] { open_source(dir, std::nullopt); }, ThrowsMessage<Error>(HasSubstr(text)));
  }
};

TEST_F(HostileFolder, ConfigAsksForMissingTensors) {
  expect_refused({{"vocab_size", (int64_t{1} << 31) - 1}, {"intermediate_size", 1 << 24}},
                 "config.json asks for [2147483647, 24]");
}

TEST_F(HostileFolder, ConfigAsksForMissingLayers) {
  expect_refused({{"num_hidden_layers", 10'000}}, "tensors for a model of 10,000 layers");
}

TEST(HostileMetaFolder, ErrorsNameTheFile) {
  const TempDir temp;
  const fs::path dir = temp.path() / std::string(100, 'd');
  fs::create_directory(dir);
  io::write_json(dir / "params.json", json{{"dim", 24}, {"n_layers", 2}, {"n_heads", 2}, {"odd", "field"}});
  // A regression test: the file's name used to be read after it was freed.
  EXPECT_THAT([&] { open_source(dir, std::nullopt); },
              ThrowsMessage<Error>(HasSubstr((dir / "params.json").string() + ": field \"odd\"")));
}

TEST(HostileMetaFolder, MissingLayers) {
  const TempDir temp;
  const test::TinyModel m(test::tiny_llama(AttentionKind::kRope));
  save_params(temp.path() / "consolidated.safetensors", m.params, {});
  io::write_json(temp.path() / "params.json", json{{"dim", 24}, {"n_layers", 10'000}, {"n_heads", 2}});
  EXPECT_THAT([&] { open_source(temp, std::nullopt); },
              ThrowsMessage<Error>(HasSubstr("tensors for a model of 10,000 layers")));
}

class HostileAdapter : public testing::Test {
 protected:
  TempDir temp;
  fs::path dir = temp.path();
  ModelSpec spec = test::tiny_llama(AttentionKind::kRope);

  HostileAdapter() {
    const LoraSettings settings{.rank = 2};
    Adapter adapter(spec, settings, select_lora_targets(spec, settings, {"*q_proj"}));
    adapter.initialise(1);
    save_adapter(dir, adapter);
  }
  void change(const json& changes) const {
    json config = io::read_json(dir / "adapter_config.json");
    config.update(changes);
    io::write_json(dir / "adapter_config.json", config);
  }
  void expect_refused(const json& changes, const std::string& text) const {
    change(changes);
    EXPECT_THAT([&] { load_adapter(dir, spec); }, ThrowsMessage<Error>(HasSubstr(text)));
  }
};

TEST_F(HostileAdapter, RanksThatTheTensorsDoNotHave) {
  expect_refused({{"r", int64_t{1} << 40}}, "expected [1099511627776, ");
  expect_refused({{"r", std::numeric_limits<int64_t>::max()}}, "has shape [2, ");
  expect_refused({{"r", 0}}, "expected at least 1");
  expect_refused({{"r", 2}, {"rank_pattern", {{"q_proj", int64_t{1} << 40}}}}, "expected [1099511627776, ");
}

TEST_F(HostileAdapter, PatternsThatAreNotMeantToBeMatched) {
  expect_refused({{"target_modules", std::string(200'000, '(')}}, "at most 4,096");
  expect_refused({{"target_modules", std::string(2000, '(') + std::string(2000, ')')}}, "not a regular expression");
  expect_refused({{"target_modules", "(([a-z._0-9]|.)+)+[^a-z]"}},
                 "cannot be matched");  // takes exponential time to match
  expect_refused({{"target_modules", "((a{1000}){1000}){1000}"}}, "not a regular expression");
  expect_refused({{"target_modules", ".*q_proj"}, {"rank_pattern", {{"[", 2}}}}, "rank_pattern");
}

TEST_F(HostileAdapter, PatternsAsPythonReadsThem) {
  change({{"target_modules", R"((?P<any>model\.layers\.\d+)\.self_attn\.(q|zz)_proj)"},
          {"alpha_pattern", {{R"(layers\.\d+\.self_attn\.q_proj)", 3.0}}}});
  const auto adapter = load_adapter(dir, spec);
  EXPECT_EQ(static_cast<int64_t>(adapter->targets().size()), spec.L);
  EXPECT_EQ(adapter->targets()[0].alpha, 3.0);
  expect_refused({{"target_modules", "q_proj|self_attn"}}, "fits no module");  // the whole name must match
}

}  // namespace
}  // namespace coca::formats::hostile_files_test
