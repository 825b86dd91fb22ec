// Saving and loading models: every kind of spec, both precisions, both widths of T, windows and CLEX.
// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/model_folder.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <utility>

#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"
#include "support/longformer_specs.h"
#include "support/paths.h"
#include "support/t_width.h"
#include "support/tiny_clex.h"
#include "support/tiny_model.h"

namespace coca::formats::model_folder_test {
namespace {

using namespace model;
using test::TinyModel;

std::vector<float> widened(TensorRef t) {
  std::vector<float> out(static_cast<size_t>(t.numel()));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = t.dtype == DType::kBF16 ? static_cast<float>(t.as<BF16>()[i]) : t.as<float>()[i];
  return out;
}

ParamStore rounded_store(const TinyModel& m) {
  Context cx;
  ParamStore rounded(m.spec, Precision::kBF16);
  copy_params(cx, m.params, rounded);
  return rounded;
}

// The official files hold exactly the tensors that our list names, with the same shapes.
TEST(ModelFolder, OfficialFilesHoldTheList) {
  for (const char* name : {"gpt_neox_coca", "gpt_neox_coca_sequential", "llama_coca_gqa"}) {
    const std::filesystem::path dir = test::golden_dir() / name;
    COCA_SKIP_WITHOUT(dir);
    const io::SafetensorsFile file(dir / "model.safetensors");
    std::set<std::string> ours;
    for (const ParamInfo& info : parameter_list(load_spec(dir))) {
      ours.insert(info.name);
      EXPECT_EQ(file.at(info.name).shape, info.shape) << info.name;
    }
    for (const io::StoredTensor& tensor : file.tensors()) EXPECT_TRUE(ours.contains(tensor.name)) << tensor.name;
  }
}

TEST(ModelFolder, RoundTrips) {
  for (const test::NamedSpec& named : test::all_specs()) {
    SCOPED_TRACE(named.name);
    const test::TempDir dir;
    const TinyModel m(named.spec, 4);
    save_model(dir.path(), m.spec, m.params);
    const Model loaded = load_model(dir.path());
    for (const ParamInfo& info : m.params.infos()) {
      const float *a = m.params.at(info).as<float>(), *b = std::as_const(*loaded.params).at(info).as<float>();
      EXPECT_TRUE(std::equal(a, a + info.shape.product(), b)) << info.name;
    }
  }
}

class Bf16Folder : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, Bf16Folder, testing::ValuesIn(test::all_specs()), test::spec_test_name);
INSTANTIATE_TEST_SUITE_P(Windows, Bf16Folder, testing::ValuesIn(test::few_window_specs()), test::spec_test_name);

TEST_P(Bf16Folder, HoldsWhatTheStoreHolds) {
  const test::TempDir dir;
  const ModelSpec& spec = GetParam().spec;
  const ParamStore rounded = rounded_store(TinyModel(spec));
  save_model(dir.path(), spec, rounded);
  EXPECT_EQ(io::read_json(dir.path() / "config.json").at("torch_dtype"), "bfloat16");
  const Model as_bf16 = load_model(dir.path(), Precision::kBF16), as_f32 = load_model(dir.path());
  for (const ParamInfo& info : rounded.infos()) {
    const bool matrix = info.role == model::ParamRole::kMatrix || info.role == model::ParamRole::kEmbedding;
    EXPECT_EQ(rounded.at(info).dtype, matrix ? DType::kBF16 : DType::kF32) << info.name;
    EXPECT_EQ(as_bf16.params->at(info).dtype, rounded.at(info).dtype) << info.name;
    EXPECT_EQ(as_f32.params->at(info).dtype, DType::kF32) << info.name;
    EXPECT_TRUE(widened(as_bf16.params->at(info)) == widened(rounded.at(info))) << info.name;
    EXPECT_TRUE(widened(as_f32.params->at(info)) == widened(rounded.at(info))) << info.name;
  }
}

TEST(ModelFolder, AnFp32FileIsRoundedOnLoading) {
  const test::TempDir dir;
  const TinyModel m(test::tiny_neox(AttentionKind::kCocaSlack));
  save_model(dir.path(), m.spec, m.params);
  const Model loaded = load_model(dir.path(), Precision::kBF16);
  const ParamStore rounded = rounded_store(m);
  for (const ParamInfo& info : rounded.infos())
    EXPECT_TRUE(widened(loaded.params->at(info)) == widened(rounded.at(info))) << info.name;
}

TEST(ModelFolder, ValuesBf16CannotHoldAreNamed) {
  const test::TempDir dir;
  TinyModel m(test::tiny_llama(AttentionKind::kRope));
  const ParamInfo& matrix = m.params.infos().front();
  ASSERT_EQ(matrix.shape.rank, 2);
  m.params.at(matrix).as<float>()[5] = 3.4e38f;
  save_model(dir.path(), m.spec, m.params);
  EXPECT_NO_THROW(load_model(dir.path()));
  EXPECT_THAT(
      [&] { load_model(dir.path(), Precision::kBF16); },
      testing::ThrowsMessage<Error>(testing::HasSubstr(
          matrix.name + "\" holds 3.4e+38 at element 5; expected at most 3.38953e38, as --precision bf16 needs")));
}

TEST(ModelFolder, ClexNetworkIsReadBack) {
  const test::TempDir dir;
  const TinyModel m = test::clex_model(test::clex_spec(test::tiny_llama(AttentionKind::kCocaSlack)));
  save_model(dir.path(), m.spec, m.params);
  const Model back = load_model(dir.path(), Precision::kBF16);  // the CLEX network stays fp32
  EXPECT_EQ(back.spec.rope_scaling.type, Scaling::kClex);
  EXPECT_EQ(back.spec.rope_scaling.max_factor, 4);
  const ParamInfo& up = back.params->infos()[back.params->infos().size() - 2];
  EXPECT_EQ(up.name, "model.clex_layer.proj_func.ode_up_proj");
  EXPECT_EQ(widened(back.params->weights().clex_up), widened(m.params.weights().clex_up));
  EXPECT_EQ(widened(back.params->weights().clex_down), widened(m.params.weights().clex_down));
}

class WindowedFolder : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, WindowedFolder, testing::ValuesIn(test::trained_window_specs()), test::spec_test_name);

TEST_P(WindowedFolder, IsReadBack) {
  const TinyModel m(GetParam().spec);
  const test::TempDir dir;
  save_model(dir.path(), m.spec, m.params);
  const Model loaded = load_model(dir.path());
  EXPECT_EQ(loaded.spec.layer_window, m.spec.layer_window);
  EXPECT_EQ(loaded.spec.dilation, m.spec.dilation);
  EXPECT_EQ(loaded.spec.global_tokens, m.spec.global_tokens);
  EXPECT_EQ(loaded.spec.direction, m.spec.direction);
  EXPECT_EQ(std::memcmp(loaded.params->flat().data, m.params.flat().data, m.params.flat().bytes()), 0);
}

class HalfTFolder : public testing::TestWithParam<test::NamedSpec> {
 protected:
  ModelSpec half = GetParam().spec, full = with_t_width(half, TWidth::kFull);
};
INSTANTIATE_TEST_SUITE_P(Specs, HalfTFolder, testing::ValuesIn(test::half_t_and_window_specs()), test::spec_test_name);

TEST_P(HalfTFolder, AFullTIsFoldedWhileLoading) {
  const test::TempDir dir;
  const TinyModel m(full);
  save_model(dir.path(), full, m.params);
  const Model folded = load_model(dir.path(), Precision::kF32, LoadT::kFolded), stored = load_model(dir.path());
  EXPECT_EQ(stored.spec.t_width, TWidth::kFull);
  EXPECT_EQ(folded.spec.t_width, TWidth::kHalf);
  EXPECT_EQ(widened(folded.params->flat()), widened(test::with_width(full, m.params, TWidth::kHalf).flat()));
  const Model rounded = load_model(dir.path(), Precision::kBF16, LoadT::kFolded);
  for (const ParamInfo& info : folded.params->infos()) {
    if (param_dtype(info.role, Precision::kBF16) != DType::kBF16) continue;
    const TensorRef exact = std::as_const(*folded.params).at(info), bf16 = std::as_const(*rounded.params).at(info);
    for (int64_t i = 0; i < exact.numel(); ++i)
      ASSERT_EQ(static_cast<float>(bf16.as<BF16>()[i]), static_cast<float>(BF16(exact.as<float>()[i]))) << info.name;
  }
}

TEST_P(HalfTFolder, AHalfTIsReadBack) {
  const test::TempDir dir;
  const TinyModel m(half);
  save_model(dir.path(), half, m.params);
  EXPECT_EQ(io::read_json(dir.path() / "config.json").at("coca_t_width"), "half");
  for (const LoadT load : {LoadT::kAsStored, LoadT::kFolded}) {
    const Model back = load_model(dir.path(), Precision::kF32, load);
    EXPECT_EQ(back.spec.t_width, TWidth::kHalf);
    EXPECT_EQ(widened(back.params->flat()), widened(m.params.flat()));
  }
}

}  // namespace
}  // namespace coca::formats::model_folder_test
