// Shards and their index, and errors in them.
// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/weight_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "coca/formats/convert.h"
#include "coca/formats/model_folder.h"
#include "coca/io/json_file.h"
#include "coca/model/architecture.h"
#include "support/faults.h"
#include "support/paths.h"
#include "support/tiny_model.h"

namespace coca::formats::weight_files_test {
namespace {

using namespace model;
namespace fs = std::filesystem;
using nlohmann::json;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

class Shards : public testing::Test {
 protected:
  TempDir temp;
  fs::path dir = temp.path(), index = dir / "model.safetensors.index.json";
  test::TinyModel m{test::tiny_llama(AttentionKind::kCocaSlack)};

  Shards() { save_model(dir, m.spec, m.params, {.max_shard_bytes = 8000}); }
  json read_index() const { return io::read_json(index); }
  void change_index(const auto& change) {
    json j = read_index();
    change(j);
    io::write_json(index, j);
  }
  void expect_error(const std::string& text) const {
    EXPECT_THAT([&] { load_model(dir); }, ThrowsMessage<Error>(HasSubstr(text)));
  }
  std::string first_name() const { return m.params.infos()[0].name; }
};

TEST_F(Shards, LoadAsOneFileDoes) {
  const Model loaded = load_model(dir);
  EXPECT_TRUE(std::equal(m.params.flat().as<float>(), m.params.flat().as<float>() + m.params.flat().numel(),
                         loaded.params->flat().as<float>()));
  EXPECT_EQ(static_cast<int64_t>(read_index()["metadata"]["total_size"]), parameter_count(m.spec) * 4);
}

TEST_F(Shards, TheSingleFileWins) {
  fs::remove(index);
  save_model(dir, m.spec, m.params);
  io::write_json(index, json{{"weight_map", {{"odd", "nowhere.safetensors"}}}});
  EXPECT_NO_THROW(load_model(dir));
}

TEST_F(Shards, MistakesAreNamed) {
  const std::string shard = read_index()["weight_map"][first_name()];
  const json good = read_index();
  const auto with = [&](const auto& change, const std::string& text) {
    io::write_json(index, good);
    change_index(change);
    expect_error(text);
  };
  for (const char* name : {"../elsewhere.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "..\\x"})
    with([&](json& j) { j["weight_map"][first_name()] = name; }, "is not the name of a file in this folder");
  with([&](json& j) { j["weight_map"][first_name()] = 3; }, "expected a name");
  with([&](json& j) { j["weight_map"][first_name()] = "gone.safetensors"; }, "shard gone.safetensors does not exist");
  with([&](json& j) { j["weight_map"]["extra.weight"] = shard; }, "tensor \"extra.weight\" should be in");
  with([&](json& j) { j["weight_map"].erase(first_name()); }, "is not in the index");
  with([&](json& j) { j.erase("weight_map"); }, "expected an object with \"weight_map\"");
  with([&](json& j) { j["weight_map"] = json::array(); }, "expected an object with \"weight_map\"");
  std::string other;
  for (const auto& [name, file] : good["weight_map"].items())
    if (file != shard) other = file;
  with([&](json& j) { j["weight_map"][first_name()] = other; }, "but is in " + shard);
  io::write_json(index, good);
  fs::copy_file(dir / shard, dir / "copy.safetensors");
  with([&](json& j) { j["weight_map"]["x"] = "copy.safetensors"; }, "is in");  // present in two files
}

TEST_F(Shards, AMissingShardIsNamed) {
  fs::remove(dir / std::string(read_index()["weight_map"][first_name()]));
  expect_error("does not exist");
}

// config.json says that the embeddings are tied, but the weights include a head. A different head is used, with one
// warning, and is saved and converted as untied. An equal head changes nothing.
TEST(WeightFiles, AHeadOfItsOwnUntiesATiedModel) {
  for (const ModelSpec& tied_spec : {test::tiny_llama(AttentionKind::kRope), test::tiny_neox(AttentionKind::kRope)})
    for (const size_t shard_bytes : {size_t{1} << 30, size_t{8000}})
      for (const bool equal : {false, true}) {
        const TempDir temp;
        const fs::path dir = temp.path() / "source";
        fs::create_directories(dir);
        ModelSpec spec = tied_spec;
        spec.embeddings = Embeddings::kUntied;
        test::TinyModel m(spec);
        const auto named = [&](const std::string& name) {
          return *std::ranges::find(m.params.infos(), name + ".weight", &ParamInfo::name);
        };
        const ParamInfo embed = named(tensor_names(spec).embed), head = named(tensor_names(spec).head);
        if (equal)
          std::copy_n(std::as_const(m.params).at(embed).as<float>(), embed.shape.product(),
                      m.params.at(head).as<float>());
        save_model(dir, spec, m.params, {.max_shard_bytes = shard_bytes});
        json config = io::read_json(dir / "config.json");
        config["tie_word_embeddings"] = true;
        io::write_json(dir / "config.json", config);

        const test::Warnings warnings;
        ModelFolder folder(dir);
        folder.weights();
        fs::rename(dir, temp.path() / "elsewhere");  // the folder has been read and is not opened again
        const Model loaded = load_model(folder);
        fs::rename(temp.path() / "elsewhere", dir);
        EXPECT_EQ(load_spec(dir).embeddings, loaded.spec.embeddings);
        fs::create_directories(temp.path() / "out");
        const ConvertReport report = convert_model(dir, temp.path() / "out", {.dtype = DType::kBF16});
        const json converted = io::read_json(temp.path() / "out" / "config.json");
        EXPECT_EQ(loaded.spec.embeddings, equal ? Embeddings::kTied : Embeddings::kUntied);
        EXPECT_EQ(converted["tie_word_embeddings"], equal);
        EXPECT_EQ(report.tensors, std::ssize(m.params.infos()) - (equal ? 1 : 0));
        EXPECT_EQ(load_model(temp.path() / "out", Precision::kBF16).spec.embeddings, loaded.spec.embeddings);
        if (equal) {
          EXPECT_THAT(warnings.texts(), testing::IsEmpty());
          continue;
        }
        EXPECT_THAT(warnings.texts(),
                    testing::ElementsAre(AllOf(HasSubstr(head.name), HasSubstr("tie_word_embeddings"))));
        EXPECT_EQ(std::memcmp(loaded.params->at(head).data, std::as_const(m.params).at(head).data,
                              std::as_const(m.params).at(head).bytes()),
                  0);
      }
}

TEST(WeightFiles, OtherFormatsAreNamed) {
  const TempDir temp;
  const test::TinyModel m(test::tiny_llama(AttentionKind::kRope));
  save_model(temp, m.spec, m.params);
  fs::rename(temp.path() / "model.safetensors", temp.path() / "pytorch_model.bin");
  EXPECT_THAT([&] { load_model(temp); },
              ThrowsMessage<Error>(AllOf(HasSubstr("pytorch_model.bin"), HasSubstr("save the model as safetensors"))));
}

TEST(WeightFiles, BadTensorsAreNamed) {
  const TempDir temp;
  const ModelSpec spec = test::tiny_llama(AttentionKind::kRope);
  test::TinyModel m(spec);
  const auto expect = [&](const std::string& text) {
    EXPECT_THAT([&] { load_model(temp); },
                ThrowsMessage<Error>(AllOf(HasSubstr("model.safetensors"), HasSubstr(text))));
  };
  ModelSpec other = spec;
  other.F = 44;
  save_model(temp, spec, m.params);
  io::write_json(temp.path() / "config.json", [&] {
    json j = io::read_json(temp.path() / "config.json");
    j["intermediate_size"] = 44;
    return j;
  }());
  expect("has shape [36, 24]; config.json asks for [44, 24]");
  io::write_json(temp.path() / "config.json", [&] {
    json j = io::read_json(temp.path() / "config.json");
    j["intermediate_size"] = 36;
    j["num_hidden_layers"] = 3;
    return j;
  }());
  expect("\"model.layers.2.input_layernorm.weight\" is missing");
  io::write_json(temp.path() / "config.json", [&] {
    json j = io::read_json(temp.path() / "config.json");
    j["num_hidden_layers"] = 1;
    return j;
  }());
  expect("does not belong to a llama model");
  m.params.at(m.params.infos()[4]).as<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  save_model(temp, spec, m.params);
  expect(m.params.infos()[4].name + "\" holds nan at element 7; expected finite values");
}

}  // namespace
}  // namespace coca::formats::weight_files_test
