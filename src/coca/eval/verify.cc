// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/verify.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "coca/base/count.h"
#include "coca/formats/config.h"
#include "coca/formats/model_folder.h"
#include "coca/infer/cached_decoder.h"
#include "coca/infer/sampling.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"
#include "coca/model/decoder.h"
#include "coca/ops/attention.h"
#include "coca/ops/cross_entropy.h"
#include "coca/ops/linear.h"
#include "coca/tensor/transfer.h"

namespace coca::eval {

namespace fs = std::filesystem;
using model::ModelSpec;

namespace {

std::string index_text(int64_t at, const Dims& shape) {
  Dims index = shape;
  for (int i = shape.rank - 1; i >= 0; --i) {
    index[i] = at % std::max<int64_t>(1, shape[i]);
    at /= std::max<int64_t>(1, shape[i]);
  }
  return index.text();
}

// ours may be strided; it is read in row-major order of `stored`'s shape.
TensorCheck compare(const std::string& name, std::span<const float> ours, const io::StoredTensor& stored,
                    double tolerance) {
  const std::vector<float> expected = io::to_f32(stored);
  COCA_CHECK_AS(kBadFile, expected.size() == ours.size(), "tensor \"{}\" has shape {}, {}; we computed {}", name,
                stored.shape.text(), counted(expected.size(), "value"), ours.size());
  double largest = 0, worst = -1;
  size_t at = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    double difference = std::abs(static_cast<double>(ours[i]) - static_cast<double>(expected[i]));
    if (!std::isfinite(difference)) difference = std::numeric_limits<double>::infinity();
    if (difference > worst) {
      worst = difference;
      at = i;
    }
  }
  TensorCheck check{name,
                    worst <= 0    ? 0
                    : largest > 0 ? worst / largest
                                  : worst,
                    index_text(static_cast<int64_t>(at), stored.shape)};
  check.verdict = check.error <= tolerance ? Verdict::kPass : Verdict::kFail;
  return check;
}

// The elements of a tensor on the host: contiguous, or with four dimensions.
std::vector<float> packed(TensorRef t) {
  if (t.contiguous()) return {t.as<float>(), t.as<float>() + t.numel()};
  std::vector<float> out;
  out.reserve(static_cast<size_t>(t.numel()));
  const auto v = t.view<float, 4>();
  for (int64_t a = 0; a < v.size(0); ++a)
    for (int64_t b = 0; b < v.size(1); ++b)
      for (int64_t c = 0; c < v.size(2); ++c) out.insert(out.end(), v.ptr(a, b, c), v.ptr(a, b, c) + v.size(3));
  return out;
}

// The softmax probabilities [B, H, N, N] from what attention saw; only here does an N x N tensor exist.
std::vector<float> probabilities(const ModelSpec& s, const std::vector<float>& q, const std::vector<float>& k,
                                 int64_t B, int64_t N, const std::vector<float>& slopes) {
  std::vector<float> out(static_cast<size_t>(B * s.H * N * N), 0.0f);
  const double scale = 1.0 / std::sqrt(static_cast<double>(s.D));
  std::vector<double> row(static_cast<size_t>(N));
  for (int64_t b = 0; b < B; ++b)
    for (int64_t h = 0; h < s.H; ++h)
      for (int64_t m = 0; m < N; ++m) {
        double largest = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int64_t n = 0; n <= m; ++n) {
          const float* qp = q.data() + ((b * N + m) * s.H + h) * s.D;
          const float* kp = k.data() + ((b * N + n) * s.G + h / (s.H / s.G)) * s.D;
          double dot = 0;
          for (int64_t d = 0; d < s.D; ++d) dot += static_cast<double>(qp[d]) * kp[d];
          row[static_cast<size_t>(n)] =
              dot * scale -
              (slopes.empty() ? 0.0 : static_cast<double>(slopes[static_cast<size_t>(h)]) * static_cast<double>(m - n));
          largest = std::max(largest, row[static_cast<size_t>(n)]);
        }
        for (int64_t n = 0; n <= m; ++n)
          sum += row[static_cast<size_t>(n)] = std::exp(row[static_cast<size_t>(n)] - largest);
        for (int64_t n = 0; n <= m; ++n)
          out[static_cast<size_t>(((b * s.H + h) * N + m) * N + n)] =
              static_cast<float>(row[static_cast<size_t>(n)] / sum);
      }
  return out;
}

std::vector<int32_t> read_ids(const io::StoredTensor& stored, int64_t V, const std::string& where) {
  COCA_CHECK_AS(kBadFile, stored.shape.rank == 2 && (stored.dtype == DType::kI64 || stored.dtype == DType::kI32),
                "{}: {} must be an I64 or I32 [B, N], not {} {}", where, stored.name, dtype_name(stored.dtype),
                stored.shape.text());
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < stored.shape.product(); ++i) {
    const int64_t id = stored.dtype == DType::kI64 ? stored.ref().as<int64_t>()[i] : stored.ref().as<int32_t>()[i];
    COCA_CHECK_AS(kBadFile, id >= 0 && id < V, "{}: {} holds {} at {}; the vocabulary has {}", where, stored.name, id,
                  i, V);
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

struct OneCase {
  const ModelSpec& spec;
  const model::ParamStore& params;
  const io::SafetensorsFile& file;
  std::string where;
  double tolerance;
  int64_t prompt_length;
  int64_t B = 0, N = 0;
  std::vector<int32_t> ids;
  std::map<std::string, std::vector<float>> ours;

  void forward() {
    Context cx;
    FetchedTensor fetched;
    std::map<std::string, std::vector<float>> traced;
    cx.set_trace([&](std::string_view name, TensorRef there) {
      const TensorRef value = fetched.now(cx, there);
      traced[std::string(name)] = packed(value);
    });
    model::Decoder decoder(spec, params.weights());
    const TensorRef hidden = decoder.forward(cx, TensorRef(ids.data(), DType::kI32, {B, N}, kHost));
    Tensor logits({B * N, spec.V}, DType::kF32, cx.memory());
    ops::linear_forward(cx, {.x = hidden, .w = params.weights().head, .y = logits});
    ours["logits"] = packed(fetched.now(cx, logits));
    const std::vector<float> slopes =
        model::uses_alibi(spec.attention) ? ops::alibi_slopes(spec.H) : std::vector<float>();
    for (int64_t i = 0; i <= spec.L; ++i) ours[fmt::format("hidden.{}", i)] = traced[fmt::format("hidden.{}", i)];
    for (int64_t i = 0; i < spec.L; ++i)
      if (file.find(fmt::format("attention.{}", i)))
        ours[fmt::format("attention.{}", i)] = probabilities(spec, traced[fmt::format("layer.{}.q_eff", i)],
                                                             traced[fmt::format("layer.{}.k_eff", i)], B, N, slopes);
  }

  void gradients() {
    Context cx;
    std::vector<int32_t> targets(ids.size(), ops::kIgnoreTarget);
    for (int64_t b = 0; b < B; ++b)
      for (int64_t n = 0; n + 1 < N; ++n)
        targets[static_cast<size_t>(b * N + n)] = ids[static_cast<size_t>(b * N + n + 1)];
    const double count = static_cast<double>(B * (N - 1));
    model::ParamStore grads(spec, model::Precision::kF32, cx.memory());
    model::TrainingDecoder decoder(spec, B, N, {.memory = cx.memory()});
    FetchedTensor fetched;
    const TensorRef there = decoder.forward_backward(
        cx, params.weights(), TensorRef(ids.data(), DType::kI32, {B, N}, kHost),
        TensorRef(targets.data(), DType::kI32, {B, N}, kHost), static_cast<float>(1.0 / count), grads.tensors());
    const TensorRef nll = fetched.now(cx, there);
    double loss = 0;
    for (int64_t i = 0; i < B * N; ++i) loss += nll.as<float>()[i];
    ours["loss"] = {static_cast<float>(loss / count)};
    for (const model::ParamInfo& info : grads.infos()) {
      ours["grad." + info.name] = packed(fetched.now(cx, std::as_const(grads).at(info)));
    }
  }

  // Greedy decoding with the cache from the stored prompts.
  TensorCheck greedy(const io::StoredTensor& stored) {
    const std::vector<int32_t> expected = read_ids(stored, spec.V, where);
    const int64_t rows = stored.shape[0], width = stored.shape[1];
    COCA_CHECK_AS(kBadFile, prompt_length >= 1 && prompt_length < width,
                  "{}: greedy_ids of width {} and a prompt of {}", where, width, counted(prompt_length, "token"));
    int64_t wrong = 0;
    TensorCheck check{"greedy_ids", 0, "[]"};
    Context cx;
    for (int64_t b = 0; b < rows; ++b) {
      infer::CachedDecoder decoder(spec, params.weights(), 1);
      decoder.append(cx, TensorRef(expected.data() + b * width, DType::kI32, {1, prompt_length}, kHost));
      for (int64_t n = prompt_length; n < width; ++n) {
        const TensorRef logits = decoder.last_logits(cx);
        const int32_t id = infer::argmax({logits.as<float>(), static_cast<size_t>(spec.V)});
        if (id != expected[static_cast<size_t>(b * width + n)] && wrong++ == 0)
          check.worst_index = fmt::format("[{}, {}]", b, n);
        decoder.append(cx, TensorRef(&id, DType::kI32, {1, 1}, kHost));
      }
    }
    check.error = static_cast<double>(wrong) / static_cast<double>(rows * (width - prompt_length));
    check.verdict = wrong == 0 ? Verdict::kPass : Verdict::kFail;
    return check;
  }

  CaseCheck run() {
    const io::StoredTensor& input = file.at("input_ids");
    ids = read_ids(input, spec.V, where);
    B = input.shape[0];
    N = input.shape[1];
    COCA_CHECK_AS(kBadFile, B >= 1 && N >= 2, "{}: input_ids {} must have a row and two tokens", where,
                  input.shape.text());
    forward();
    gradients();
    CaseCheck result;
    for (const io::StoredTensor& stored : file.tensors()) {
      if (stored.name == "input_ids") continue;
      TensorCheck check;
      if (stored.name == "greedy_ids") {
        check = greedy(stored);
      } else {
        std::string name = stored.name;
        const auto found = ours.find(name);
        COCA_CHECK_AS(kBadFile, found != ours.end(), "{}: tensor \"{}\" is not one that can be verified for this model",
                      where, name);
        check = compare(name, found->second, stored, tolerance);
      }
      if (check.verdict == Verdict::kFail) result.verdict = Verdict::kFail;
      result.tensors.push_back(std::move(check));
    }
    return result;
  }
};

}  // namespace

std::vector<CaseCheck> verify_folder(const fs::path& dir, const VerifyOptions& options) {
  COCA_CHECK(options.tolerance > 0, "tolerance {} must be positive", options.tolerance);
  const model::Model model = formats::load_model(dir);
  model.params->move_to(Context().memory());
  const fs::path manifest_path = dir / "manifest.json";
  COCA_CHECK_AS(kIo, io::exists(manifest_path), "{} has no manifest.json naming the cases", dir.string());
  const nlohmann::json manifest = io::read_json(manifest_path);
  COCA_CHECK_AS(
      kBadFile,
      manifest.is_object() && manifest.contains("cases") && manifest["cases"].is_array() && !manifest["cases"].empty(),
      "{}: expected an object with a non-empty list \"cases\"", manifest_path.string());
  std::vector<CaseCheck> results;
  for (const nlohmann::json& entry : manifest["cases"]) {
    COCA_CHECK_AS(kBadFile, entry.is_object() && entry.contains("file") && entry["file"].is_string(),
                  "{}: each case needs a \"file\", found {}", manifest_path.string(), entry.dump());
    const fs::path name = entry["file"].get<std::string>();
    COCA_CHECK_AS(kBadFile, io::is_file_name(name.string()), "{}: case file \"{}\" must be a plain name in the folder",
                  manifest_path.string(), name.string());
    ModelSpec spec = model.spec;
    if (entry.contains("rope_scaling"))
      spec.rope_scaling = formats::rope_scaling_from_json(entry["rope_scaling"], manifest_path.string(),
                                                          {.max_position = spec.max_position});
    int64_t prompt_length = 8;
    if (entry.contains("prompt_length")) {
      COCA_CHECK_AS(kBadFile, entry["prompt_length"].is_number_integer(), "{}: prompt_length must be an integer",
                    manifest_path.string());
      prompt_length = entry["prompt_length"].get<int64_t>();
    }
    const io::SafetensorsFile file(dir / name);
    OneCase one{spec, *model.params, file, (dir / name).string(), options.tolerance, prompt_length, 0, 0, {}, {}};
    CaseCheck check = one.run();
    check.file = name.string();
    check.scaling = spec.rope_scaling.type == model::Scaling::kNone
                        ? "none"
                        : fmt::format("{} x{:g}", enum_name(spec.rope_scaling.type), spec.rope_scaling.factor);
    if (options.on_case) options.on_case(check);
    results.push_back(std::move(check));
  }
  return results;
}

}  // namespace coca::eval
