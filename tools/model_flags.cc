// SPDX-License-Identifier: Apache-2.0
#include "model_flags.h"

#include <cstdio>

#include "coca/eval/protocol.h"
#include "coca/text/leading_id.h"
#include "coca/model/adapter.h"

namespace coca::tools {

namespace {

std::optional<model::RopeScaling> scaling_of(const ModelFlags& flags, const model::ModelSpec& spec) {
  if (!flags.rope_scaling) {
    COCA_CHECK(!flags.factor, "--factor {}: needs --rope-scaling", *flags.factor);
    return std::nullopt;
  }
  COCA_CHECK(!flags.factor || *flags.factor >= 1, "--factor {}: must be at least 1", *flags.factor);
  try {
    return model::with_scaling(spec, *flags.rope_scaling, flags.factor).rope_scaling;
  } catch (const Error& error) {
    fail(error.kind(), "--rope-scaling {}: {} (--factor)", enum_name(*flags.rope_scaling), error.what());
  }
}

}  // namespace

LoadedModel load_with_flags(const ModelFlags& flags) {
  COCA_CHECK(!flags.model.empty(), "--model: no model folder given");
  const model::ModelSpec spec = model::load_spec(flags.model);  // mistakes show before the weights are read
  LoadedModel out;
  out.scaling = scaling_of(flags, spec);
  out.used_scaling = out.scaling.value_or(spec.rope_scaling);
  out.tokenizer = text::load_tokenizer(flags.tokenizer.empty() ? flags.model : flags.tokenizer);
  eval::check_tokenizer(*out.tokenizer, spec);
  const auto adapter = flags.adapter.empty() ? nullptr : model::load_adapter(flags.adapter, spec);
  out.model = model::load_model(flags.model, flags.precision);
  if (adapter) model::merge_adapter(*adapter, *out.model.params);
  const std::optional<int32_t> leading = text::leading_id(*out.tokenizer, out.model.spec.bos_id);
  out.model.spec.bos_id = leading ? std::optional<int64_t>(*leading) : std::nullopt;
  return out;
}

std::string scaling_text(const model::RopeScaling& scaling) {
  if (scaling.type == model::Scaling::kNone) return "none";
  return fmt::format("{} x{:g}", enum_name(scaling.type), scaling.factor);
}

std::string text_or_stdin(const std::optional<std::string>& given) {
  if (given) return *given;
  std::string text;
  char block[65536];
  while (const size_t n = std::fread(block, 1, sizeof block, stdin)) text.append(block, n);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

nlohmann::ordered_json number_json(double value) {
  return io::detail::scalar_to_json(value);
}

}  // namespace coca::tools
