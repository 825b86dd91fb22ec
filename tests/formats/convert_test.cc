// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "coca/base/rng.h"
#include "coca/formats/model_folder.h"
#include "coca/formats/tensor_source.h"
#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"
#include "coca/model/decoder.h"
#include "support/paths.h"
#include "support/t_width.h"
#include "support/tiny_model.h"

namespace coca::formats::convert_test {
namespace {

using namespace model;
namespace fs = std::filesystem;
using test::TempDir;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<float> values(TensorRef t) { return {t.as<float>(), t.as<float>() + t.numel()}; }
std::vector<float> values(const Model& m, const std::string& name) {
  for (const ParamInfo& info : m.params->infos())
    if (info.name == name) return values(std::as_const(*m.params).at(info));
  ADD_FAILURE() << name << " is missing";
  return {};
}

struct Folders {
  TempDir temp;
  fs::path source = temp.path() / "source", out = temp.path() / "out";

  explicit Folders(const ModelSpec& spec) {
    fs::create_directories(source);
    const test::TinyModel m(spec);
    save_model(source, spec, m.params);
  }
  ConvertReport convert(const ConvertOptions& options) {
    fs::remove_all(out);
    fs::create_directories(out);
    return convert_model(source, out, options);
  }
};

// Whether a row of a matrix or bias belongs to T.
bool is_t(const ModelSpec& s, const ParamInfo& info, int64_t row) {
  if (s.qkv == Qkv::kFused) return info.name.find("query_key_value") != std::string::npos && row / s.D % 3 == 1;
  return info.name.find("self_attn.t_") != std::string::npos;
}

class ConvertToCoca : public testing::TestWithParam<test::NamedSpec> {
 protected:
  ModelSpec spec = GetParam().spec;
};
std::vector<test::NamedSpec> rope_specs() {
  std::vector<test::NamedSpec> all = test::all_specs();
  std::erase_if(all, [](const test::NamedSpec& s) { return s.spec.attention != AttentionKind::kRope; });
  return all;
}
INSTANTIATE_TEST_SUITE_P(Specs, ConvertToCoca, testing::ValuesIn(rope_specs()), test::spec_test_name);

// T is a copy of K. Everything else keeps its bits.
TEST_P(ConvertToCoca, FromKKeepsEveryBit) {
  Folders f(spec);
  const ConvertReport report =
      f.convert({.attention = AttentionKind::kCocaSlack, .t_init = TInit::kFromK, .t_width = TWidth::kFull});
  EXPECT_EQ(report.to.attention, AttentionKind::kCocaSlack);
  const Model from = load_model(f.source), to = load_model(f.out);
  ASSERT_EQ(from.params->infos().size(), to.params->infos().size());
  for (size_t i = 0; i < from.params->infos().size(); ++i)
    EXPECT_EQ(values(std::as_const(*from.params).at(from.params->infos()[i])),
              values(std::as_const(*to.params).at(to.params->infos()[i])))
        << to.params->infos()[i].name;
}

// Draws inputs with independent normalised features. T's rows must be divided by the size of q_proj's output for such
// inputs.
TEST_P(ConvertToCoca, ScaledRowsAreDividedByTheSizeOfTheQueries) {
  Folders f(spec);
  f.convert({.attention = AttentionKind::kCocaStrict, .t_init = TInit::kFromKScaled, .t_width = TWidth::kFull});
  const Model from = load_model(f.source), to = load_model(f.out);
  const LayerTensors<TensorRef>& w = from.params->weights().layers[1];
  const LayerTensors<TensorRef>& wt = to.params->weights().layers[1];
  const bool fused = spec.qkv == Qkv::kFused, normed = spec.head_norm != HeadNorm::kNone;
  const std::vector<float> q = values(fused ? w.qkv_w : w.q_w), k = values(fused ? w.qkv_w : w.k_w),
                           t = values(fused ? wt.qkv_w : wt.k_w);
  const std::vector<float> bias =
      spec.attention_bias == Bias::kYes ? values(fused ? w.qkv_b : w.q_b) : std::vector<float>{};
  const std::vector<float> g = values(w.ln1_w), b = w.ln1_b.empty() ? std::vector<float>{} : values(w.ln1_b);
  constexpr int kDraws = 20000;
  Rng rng(1, 2);
  std::vector<double> squares(static_cast<size_t>(spec.H * spec.D));
  for (int draw = 0; draw < kDraws; ++draw) {
    std::vector<double> x(static_cast<size_t>(spec.C));
    for (size_t c = 0; c < x.size(); ++c)
      x[c] = static_cast<double>(g[c]) * rng.normal() + (b.empty() ? 0.0 : static_cast<double>(b[c]));
    for (int64_t i = 0; i < spec.H * spec.D; ++i) {
      const int64_t row = fused ? i / spec.D * 3 * spec.D + i % spec.D : i;
      double sum = bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<size_t>(row)]);
      for (int64_t c = 0; c < spec.C; ++c)
        sum += static_cast<double>(q[static_cast<size_t>(row * spec.C + c)]) * x[static_cast<size_t>(c)];
      squares[static_cast<size_t>(i)] += sum * sum / kDraws;
    }
    if (normed) break;  // see below
  }
  const int64_t group = spec.H / spec.G;
  const auto pair = [&](int64_t d) {
    if (d >= spec.plane_dims()) return -d;  // a content channel is no part of a pair
    return d < spec.R ? d % (spec.R / 2) : spec.R / 2 + (d - spec.R) % ((spec.plane_dims() - spec.R) / 2);
  };
  for (int64_t kv = 0; kv < spec.G; ++kv)
    for (int64_t d = 0; d < spec.D; ++d) {
      double size = 0;
      for (int64_t h = kv * group; h < (kv + 1) * group; ++h)
        for (int64_t e = 0; e < spec.D; ++e)
          if (pair(e) == pair(d)) size += squares[static_cast<size_t>(h * spec.D + e)] / static_cast<double>(group);
      const int64_t row = fused ? (3 * kv + 1) * spec.D + d : kv * spec.D + d;
      const auto at = static_cast<size_t>(row * spec.C);
      const double ratio = static_cast<double>(k[at]) / static_cast<double>(t[at]);
      // The mean of kDraws squares of normals has a relative error of sqrt(2 / kDraws) = 1 %, and its root half of
      // that.
      if (d >= spec.plane_dims())
        EXPECT_EQ(ratio, 1.0);
      else if (!normed)
        EXPECT_NEAR(ratio / std::sqrt(size), 1.0, 5 * 0.005) << d;
      else
        EXPECT_EQ(ratio, 1.0);
    }
  if (!normed) return;
  // With norms |q_j| follows from the norm weights, and T's norm weights are divided.
  const std::vector<float> gq = values(w.q_norm_w), gk = values(w.k_norm_w), gt = values(wt.k_norm_w);
  for (int64_t d = 0; d < spec.D; ++d) {
    double size = 0;
    for (int64_t e = 0; e < spec.D; ++e)
      if (pair(e) == pair(d)) size += std::pow(static_cast<double>(gq[static_cast<size_t>(e)]), 2);
    EXPECT_NEAR(static_cast<double>(gk[static_cast<size_t>(d)]) / static_cast<double>(gt[static_cast<size_t>(d)]),
                std::sqrt(size), 1e-5 * std::sqrt(size));
  }
}

// A RoPE model does not change if its queries are multiplied by four and its keys divided by four. The CoCA model made
// from it must not change either; powers of two make that exact. A plain copy of T would give scores four times as
// large.
TEST(Convert, ScaledTDoesNotDependOnHowSizeIsSharedByQAndK) {
  const ModelSpec spec = test::tiny_llama(AttentionKind::kRope);
  const auto logits = [&](float factor, TInit init) {
    Folders f(spec);
    test::TinyModel m(spec);
    for (const ParamInfo& info : m.params.infos()) {
      const bool q = info.name.find("q_proj") != std::string::npos, k = info.name.find("k_proj") != std::string::npos;
      if (!q && !k) continue;
      float* x = m.params.at(info).as<float>();
      for (int64_t i = 0; i < info.shape.product(); ++i) x[i] *= q ? factor : 1 / factor;
    }
    save_model(f.source, spec, m.params);
    f.convert({.attention = AttentionKind::kCocaSlack, .t_init = init, .t_width = TWidth::kFull});
    const Model coca = load_model(f.out);
    Context cx;
    Decoder decoder(coca.spec, coca.params->weights());
    const std::vector<int32_t> ids = test::random_ids(16, spec.V, 4);
    return values(decoder.forward(cx, TensorRef(ids.data(), DType::kI32, {1, 16}, kHost)));
  };
  EXPECT_EQ(logits(4.0f, TInit::kFromKScaled), logits(1.0f, TInit::kFromKScaled));
  EXPECT_NE(logits(4.0f, TInit::kFromK), logits(1.0f, TInit::kFromK));
}

TEST_P(ConvertToCoca, RandomChangesOnlyT) {
  Folders f(spec);
  const ConvertOptions options{
      .attention = AttentionKind::kCocaSlack, .t_init = TInit::kRandom, .t_width = TWidth::kFull, .seed = 3};
  f.convert(options);
  const Model from = load_model(f.source), to = load_model(f.out);
  for (size_t i = 0; i < from.params->infos().size(); ++i) {
    const ParamInfo& info = to.params->infos()[i];
    const std::vector<float> a = values(std::as_const(*from.params).at(from.params->infos()[i])),
                             b = values(std::as_const(*to.params).at(info));
    const auto width = info.shape.rank == 2 ? info.shape[1] : 1;
    for (int64_t row = 0; row < info.shape[0]; ++row) {
      const auto at = static_cast<size_t>(row * width);
      EXPECT_EQ(a[at] != b[at], is_t(spec, info, row)) << info.name << " row " << row;
    }
  }
  f.convert(options);
  EXPECT_EQ(values(load_model(f.out).params->flat()), values(to.params->flat())) << "the same seed";
}

TEST(Convert, KindsOfCocaHaveTheSameWeights) {
  Folders f(test::tiny_llama(AttentionKind::kCocaSlack));
  const ConvertReport report = f.convert({.attention = AttentionKind::kCocaStrict});
  EXPECT_EQ(report.made, 0);
  EXPECT_EQ(load_spec(f.out).attention, AttentionKind::kCocaStrict);
  EXPECT_EQ(values(load_model(f.out).params->flat()), values(load_model(f.source).params->flat()));
}

TEST(Convert, UnsupportedConversionsAreRefused) {
  Folders alibi(test::tiny_llama(AttentionKind::kAlibi)), coca(test::tiny_llama(AttentionKind::kCocaSlack));
  EXPECT_THAT([&] { alibi.convert({.attention = AttentionKind::kCocaSlack}); },
              ThrowsMessage<Error>(HasSubstr("no rotary positions")));
  EXPECT_THAT([&] { coca.convert({.attention = AttentionKind::kRope}); },
              ThrowsMessage<Error>(HasSubstr("cannot convert to attention \"rope\"")));
  EXPECT_THAT([&] { coca.convert({.dtype = DType::kI32}); },
              ThrowsMessage<Error>(HasSubstr("expected F32, F16 or BF16")));
}

// The config.json of an official GPT-NeoX model looks like that of a RoPE model.
TEST(Convert, TheSourceAttentionIsAnOption) {
  ModelSpec spec = test::tiny_neox(AttentionKind::kRope);
  spec.R = 4;
  Folders f(spec);
  f.convert({.source_attention = AttentionKind::kCocaSlack});
  const ModelSpec to = load_spec(f.out);
  EXPECT_EQ(to.attention, AttentionKind::kCocaSlack);
  EXPECT_EQ(to.fold, ops::Fold::kOfficial);
  EXPECT_EQ(values(load_model(f.out).params->flat()), values(load_model(f.source).params->flat()));
}

TEST(Convert, AnOfficialLlamaFolderIsRecognised) {
  Folders f(test::tiny_llama(AttentionKind::kCocaSlack));
  nlohmann::json config = io::read_json(f.source / "config.json");
  config.erase("attention_type");
  io::write_json(f.source / "config.json", config);
  EXPECT_THAT([&] { load_model(f.source); }, ThrowsMessage<Error>(HasSubstr("--source-attention coca-slack")));
  f.convert({.source_attention = AttentionKind::kCocaSlack});
  EXPECT_EQ(load_model(f.out).spec.attention, AttentionKind::kCocaSlack);
}

TEST(Convert, ElementTypes) {
  Folders f(test::tiny_neox(AttentionKind::kRope));
  const auto stored = [](const fs::path& dir) {
    std::vector<std::vector<float>> all;
    const WeightFiles files(dir);
    for (const auto& [name, entry] : files.entries()) all.push_back(io::to_f32(*entry.tensor));
    return all;
  };
  for (const DType type : {DType::kBF16, DType::kF16}) {
    f.convert({.dtype = type, .max_shard_bytes = 4000});
    EXPECT_TRUE(fs::exists(f.out / "model.safetensors.index.json"));
    const WeightFiles files(f.out);
    for (const auto& [name, entry] : files.entries()) EXPECT_EQ(entry.tensor->dtype, type) << name;
    EXPECT_EQ(io::read_json(f.out / "config.json")["torch_dtype"], type == DType::kBF16 ? "bfloat16" : "float16");
    const auto rounded = stored(f.out);
    const fs::path again = f.temp.path() / "again", back = f.temp.path() / "back";
    for (const fs::path& dir : {again, back}) {
      fs::remove_all(dir);
      fs::create_directories(dir);
    }
    convert_model(f.out, again, {.dtype = DType::kF32});  // widening and rounding again change nothing
    EXPECT_EQ(stored(again), rounded);
    convert_model(again, back, {.dtype = type});
    EXPECT_EQ(stored(back), rounded);
  }
}

TEST(Convert, ValuesATypeCannotHoldAreNamed) {
  const TempDir temp;
  const ModelSpec spec = test::tiny_llama(AttentionKind::kRope);
  test::TinyModel m(spec);
  m.params.at(m.params.infos()[3]).as<float>()[5] = 70000.0f;
  fs::create_directories(temp.path() / "a");
  fs::create_directories(temp.path() / "b");
  save_model(temp.path() / "a", spec, m.params);
  EXPECT_THAT(
      [&] { convert_model(temp.path() / "a", temp.path() / "b", {.dtype = DType::kF16}); },
      ThrowsMessage<Error>(HasSubstr(m.params.infos()[3].name +
                                     "\" holds 70000 at element 5, which F16 cannot hold; expected at most 65504")));
  m.params.at(m.params.infos()[3]).as<float>()[5] = -3.4e38f;  // rounds to infinity
  save_model(temp.path() / "a", spec, m.params);
  EXPECT_THAT([&] { convert_model(temp.path() / "a", temp.path() / "b", {.dtype = DType::kBF16}); },
              ThrowsMessage<Error>(HasSubstr("at element 5, which BF16 cannot hold")));
}

// Meta's layout, made from ours by inverting what the reader does: pairs next to each other, other names, split for
// model parallelism (rows of q, k, v, gate, up and the head; columns of o and down; the embedding either way).
void write_meta(const fs::path& dir, const Model& m, int64_t parts, int64_t embedding_dim) {
  const ModelSpec& s = m.spec;
  const auto interleave = [&](const std::vector<float>& x, int64_t heads) {
    std::vector<float> y(x.size());
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < s.D; ++i)
        std::copy_n(x.begin() + (h * s.D + i) * s.C, s.C,
                    y.begin() + (h * s.D + i % (s.D / 2) * 2 + i / (s.D / 2)) * s.C);
    return y;
  };
  struct Piece {
    std::string name;
    Tensor value;
  };
  for (int64_t p = 0; p < parts; ++p) {
    std::vector<Piece> pieces;
    const auto add = [&](const std::string& name, const std::vector<float>& x, Dims shape, int split) {
      Dims part = shape;
      if (split >= 0) part[split] /= parts;
      Tensor t(part);
      const int64_t rows = part[0], width = part.rank == 2 ? part[1] : 1, full = shape.rank == 2 ? shape[1] : 1;
      for (int64_t r = 0; r < rows; ++r)
        std::copy_n(x.begin() + (split == 0 ? p * rows + r : r) * full + (split == 1 ? p * width : 0), width,
                    t.values<float>().begin() + r * width);
      pieces.push_back({name, std::move(t)});
    };
    add("tok_embeddings.weight", values(m, "model.embed_tokens.weight"), {s.V, s.C}, static_cast<int>(embedding_dim));
    for (int64_t i = 0; i < s.L; ++i) {
      const std::string ours = "model.layers." + std::to_string(i) + ".", theirs = "layers." + std::to_string(i) + ".";
      add(theirs + "attention.wq.weight", interleave(values(m, ours + "self_attn.q_proj.weight"), s.H),
          {s.H * s.D, s.C}, 0);
      add(theirs + "attention.wk.weight", interleave(values(m, ours + "self_attn.k_proj.weight"), s.G),
          {s.G * s.D, s.C}, 0);
      add(theirs + "attention.wv.weight", values(m, ours + "self_attn.v_proj.weight"), {s.G * s.D, s.C}, 0);
      add(theirs + "attention.wo.weight", values(m, ours + "self_attn.o_proj.weight"), {s.C, s.H * s.D}, 1);
      add(theirs + "feed_forward.w1.weight", values(m, ours + "mlp.gate_proj.weight"), {s.F, s.C}, 0);
      add(theirs + "feed_forward.w2.weight", values(m, ours + "mlp.down_proj.weight"), {s.C, s.F}, 1);
      add(theirs + "feed_forward.w3.weight", values(m, ours + "mlp.up_proj.weight"), {s.F, s.C}, 0);
      add(theirs + "attention_norm.weight", values(m, ours + "input_layernorm.weight"), {s.C}, -1);
      add(theirs + "ffn_norm.weight", values(m, ours + "post_attention_layernorm.weight"), {s.C}, -1);
    }
    add("norm.weight", values(m, "model.norm.weight"), {s.C}, -1);
    add("output.weight", values(m, "lm_head.weight"), {s.V, s.C}, 0);
    add("rope.freqs", std::vector<float>(static_cast<size_t>(s.D / 2)), {s.D / 2}, -1);
    std::vector<io::TensorToSave> saved;
    for (const Piece& piece : pieces) saved.push_back({piece.name, piece.value.ref()});
    io::save_safetensors(dir / fmt::format("consolidated.{:02d}.safetensors", p), saved);
  }
  io::write_json(dir / "params.json", nlohmann::json{{"dim", s.C},
                                                     {"n_layers", s.L},
                                                     {"n_heads", s.H},
                                                     {"n_kv_heads", s.G},
                                                     {"head_dim", s.D},
                                                     {"vocab_size", -1},
                                                     {"multiple_of", 256},
                                                     {"norm_eps", s.norm_eps}});
}

TEST(Convert, MetasLayoutGivesTheOriginalModel) {
  ModelSpec spec = test::tiny_llama(AttentionKind::kRope);
  spec.V = 24;  // divisible by the number of parts
  for (const auto& [parts, embedding_dim] : {std::pair<int64_t, int64_t>{1, 0}, {2, 0}, {2, 1}}) {
    Folders f(spec);
    const Model m = load_model(f.source);
    fs::remove_all(f.source);
    fs::create_directories(f.source);
    write_meta(f.source, m, parts, embedding_dim);
    const ConvertReport report = f.convert({});
    EXPECT_EQ(report.layout, Layout::kMeta);
    const Model again = load_model(f.out);
    EXPECT_EQ(values(again.params->flat()), values(m.params->flat())) << parts;
    EXPECT_EQ(again.spec.rope_theta, spec.rope_theta);
    f.convert({.attention = AttentionKind::kCocaSlack,
               .t_init = TInit::kFromK,
               .t_width = TWidth::kFull});  // in a single conversion
    EXPECT_EQ(values(load_model(f.out), "model.layers.1.self_attn.t_proj.weight"),
              values(m, "model.layers.1.self_attn.k_proj.weight"));
  }
}

// params.json is the same for LLaMA 3.1 and 3.2, so an option decides.
TEST(Convert, TheLlamaVersionIsAnOption) {
  ModelSpec spec = test::tiny_llama(AttentionKind::kRope);
  spec.V = 300;
  Folders f(spec);
  const Model m = load_model(f.source);
  fs::remove_all(f.source);
  fs::create_directories(f.source);
  write_meta(f.source, m, 1, 0);
  const nlohmann::json params = io::read_json(f.source / "params.json");
  const auto with = [&](const nlohmann::json& more) {
    nlohmann::json changed = params;
    changed.update(more);
    io::write_json(f.source / "params.json", changed);
  };
  const auto converted = [&](const MetaSettings& meta) {
    f.convert({.meta = meta});
    return load_spec(f.out);
  };
  EXPECT_EQ(converted({}).max_position, 2048);
  EXPECT_EQ(converted({}).bos_id, 1);
  EXPECT_EQ(converted({.version = LlamaVersion::k2}).max_position, 4096);
  with({{"rope_theta", 500000.0}});
  EXPECT_EQ(converted({}).max_position, 8192) << "LLaMA 3";
  EXPECT_EQ(converted({}).bos_id, 300 - 256);
  EXPECT_THAT(converted({}).eos_ids, testing::ElementsAre(45, 53));
  with({{"rope_theta", 500000.0}, {"use_scaled_rope", true}});
  EXPECT_THAT([&] { converted({}); },
              ThrowsMessage<Error>(testing::AllOf(HasSubstr("params.json"), HasSubstr("--llama-version"))));
  for (const auto& [version, factor] :
       {std::pair{LlamaVersion::k31, 8.0}, {LlamaVersion::k32, 32.0}, {LlamaVersion::k33, 8.0}}) {
    const ModelSpec made = converted({.version = version});
    EXPECT_EQ(made.rope_scaling,
              (RopeScaling{.type = Scaling::kLlama3, .factor = factor, .original_max_position = 8192}));
    EXPECT_EQ(made.max_position, 131072);
    EXPECT_THAT(made.eos_ids, testing::ElementsAre(45, 52, 53));
  }
  const ModelSpec told = converted({.rope_factor = 4.0, .trained_length = 9000, .eos = {7}});
  EXPECT_EQ(told.rope_scaling.factor, 4.0);
  EXPECT_EQ(told.max_position, 9000);
  EXPECT_THAT(told.eos_ids, testing::ElementsAre(7));
  EXPECT_THAT([&] { converted({.version = LlamaVersion::k3}); },
              ThrowsMessage<Error>(HasSubstr("--llama-version 3: ")));
  const Folders ours(spec);
  fs::create_directories(ours.out);
  EXPECT_THAT([&] { convert_model(ours.source, ours.out, {.meta = {.version = LlamaVersion::k32}}); },
              ThrowsMessage<Error>(testing::StartsWith("--llama-version: given for ")));
  EXPECT_THAT([&] { convert_model(ours.source, ours.out, {.meta = {.rope_factor = 8.0, .eos = {1}}}); },
              ThrowsMessage<Error>(testing::StartsWith("--rope-factor, --eos: given for ")));
}

// New global projections are copies of the ordinary ones, also if the model becomes a CoCA model in the same
// conversion. Global projections of the source are kept, or dropped on request.
TEST(Convert, WindowsAndGlobalTokens) {
  for (const bool fused : {false, true}) {
    Folders f(fused ? test::tiny_neox(AttentionKind::kRope) : test::tiny_llama(AttentionKind::kRope));
    const std::vector<int64_t> dilation = fused ? std::vector<int64_t>{1, 2, 3} : std::vector<int64_t>{1, 1, 2, 2};
    const ConvertReport report =
        f.convert({.attention = AttentionKind::kCocaSlack,
                   .t_width = TWidth::kFull,
                   .windows = {.layer_window = {4}, .dilation = dilation, .global_tokens = 2}});
    const Model made = load_model(f.out);
    EXPECT_THAT(made.spec.layer_window, testing::ElementsAre(4, 4));
    EXPECT_EQ(made.spec.global_tokens, 2);
    int64_t copies = 0;
    for (const ParamInfo& info : made.params->infos()) {
      if (!is_global(info.name)) continue;
      std::string local = info.name;
      local.erase(local.find("_global"), 7);
      EXPECT_EQ(values(made, info.name), values(made, local)) << info.name;
      ++copies;
    }
    EXPECT_EQ(report.copied, copies);
    EXPECT_EQ(copies, fused ? 4 : 6);
    f.source = f.temp.path() / "global";
    fs::rename(f.out, f.source);
    EXPECT_EQ(f.convert({.windows = {.layer_window = {5}}}).copied, 0);
    EXPECT_EQ(values(load_model(f.out).params->flat()), values(made.params->flat()));
    f.convert({.windows = {.global_tokens = 0}});
    const Model dropped = load_model(f.out);
    EXPECT_EQ(dropped.spec.global_tokens, 0);
    for (const ParamInfo& info : dropped.params->infos())
      EXPECT_EQ(values(dropped, info.name), values(made, info.name)) << info.name;
    EXPECT_THAT([&] { f.convert({.attention = AttentionKind::kCocaStrict}); },
                ThrowsMessage<Error>(HasSubstr("the source has 2 global tokens")));
  }
}

TEST(Convert, PicklesAreNamed) {
  const TempDir temp;
  io::write_json(temp.path() / "params.json", nlohmann::json{{"dim", 24}, {"n_layers", 2}, {"n_heads", 4}});
  io::write_json(temp.path() / "consolidated.00.pth", nlohmann::json{});
  EXPECT_THAT([&] { convert_model(temp.path(), temp.path(), {}); }, ThrowsMessage<Error>(HasSubstr("pickle")));
}

// A new T of half width equals the fold of the full-width T. A CoCA model keeps its width by default.
TEST(Convert, TWidth) {
  for (const test::NamedSpec& source : {test::NamedSpec{"neox", test::tiny_neox(AttentionKind::kRope)},
                                        {"llama", test::tiny_llama(AttentionKind::kRope)}}) {
    const TempDir dir;
    const auto folder = [&](const char* name) {
      fs::create_directories(dir.path() / name);
      return dir.path() / name;
    };
    const test::TinyModel m(source.spec);
    save_model(folder("rope"), source.spec, m.params);
    convert_model(dir.path() / "rope", folder("full"),
                  {.attention = AttentionKind::kCocaSlack, .t_width = TWidth::kFull});
    const ConvertReport made =
        convert_model(dir.path() / "rope", folder("half"), {.attention = AttentionKind::kCocaSlack});
    EXPECT_EQ(made.to.t_width, TWidth::kHalf) << source.name;
    const Model full = load_model(dir.path() / "full"), half = load_model(dir.path() / "half");
    EXPECT_EQ(values(half.params->flat()), values(test::with_width(full.spec, *full.params, TWidth::kHalf).flat()))
        << source.name;
    EXPECT_EQ(convert_model(dir.path() / "full", folder("same"), {}).to.t_width, TWidth::kFull);
    const ConvertReport folded = convert_model(dir.path() / "full", folder("folded"), {.t_width = TWidth::kHalf});
    EXPECT_EQ(folded.made, 0);
    EXPECT_EQ(values(load_model(dir.path() / "folded").params->flat()), values(half.params->flat())) << source.name;
    convert_model(dir.path() / "half", folder("wide"), {.t_width = TWidth::kFull});
    EXPECT_EQ(values(load_model(dir.path() / "wide", Precision::kF32, LoadT::kFolded).params->flat()),
              values(half.params->flat()))
        << source.name;
  }
}

}  // namespace
}  // namespace coca::formats::convert_test
