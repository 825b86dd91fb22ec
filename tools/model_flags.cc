// SPDX-License-Identifier: Apache-2.0
#include "model_flags.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/eval/protocol.h"
#include "coca/formats/adapter_file.h"
#include "coca/model/t_width.h"
#include "coca/text/leading_id.h"
#include "coca/text/utf16.h"
#include "coca/text/utf8.h"

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

model::AttentionPattern pattern_of(const ModelFlags& flags, const model::ModelSpec& spec) {
  model::AttentionPattern p = model::default_pattern(flags.pattern.value_or(model::Pattern::kFull), spec.max_position);
  const auto take = [&](const char* flag, const std::optional<int64_t>& given, int64_t& value, bool known) {
    if (!given) return;
    COCA_CHECK(known, "--{} {}: --pattern {} has none", flag, *given, enum_name(p.type));
    value = *given;
  };
  const bool infinite = p.type == model::Pattern::kLmInfinite;
  take("window", flags.window, p.window, p.far());
  if (infinite) p.distance = p.window;  // the published setting: both equal the trained length
  if (p.far() && p.window > spec.max_position)
    log_warning(
        "--window {}: the model was trained on {}; distances beyond these are new to it, and the pattern is meant to "
        "avoid them",
        p.window, counted(spec.max_position, "token"));
  take("sinks", flags.sinks, p.sinks, p.keeps_first());
  take("distance", flags.distance, p.distance, infinite);
  take("middle-top-k", flags.middle_top_k, p.middle_top_k, infinite);
  take("middle-from-layer", flags.middle_from_layer, p.middle_from_layer, infinite && p.middle_top_k > 0);
  take("group", flags.group, p.group, p.type == model::Pattern::kSelfExtend);
  if (flags.slack_frame) {
    COCA_CHECK(p.far() && spec.attention == model::AttentionKind::kCocaSlack,
               "--slack-frame {}: only patterns of coca-slack models have one", enum_name(*flags.slack_frame));
    p.frame = *flags.slack_frame;
  }
  return p;
}

}  // namespace

ModelShape load_shape(const ModelFlags& flags) {
  COCA_CHECK(!flags.model.empty(), "--model: no model folder given");
  auto folder = std::make_unique<formats::ModelFolder>(flags.model);
  ModelShape shape{.spec = folder->spec()};
  shape.scaling = scaling_of(flags, shape.spec);
  model::ModelSpec patterned = shape.spec;
  patterned.pattern = pattern_of(flags, shape.spec);
  model::validate(patterned);
  shape.tokenizer = text::load_tokenizer(flags.tokenizer.empty() ? flags.model : flags.tokenizer);
  eval::check_tokenizer(*shape.tokenizer, shape.spec);
  folder->weights();
  if (!flags.adapter.empty()) shape.adapter = formats::load_adapter(flags.adapter, shape.spec, folder->fingerprint());
  if (!shape.adapter)
    shape.spec = model::folded_t(shape.spec);  // an adapter's tensors match the width of T in the folder
  shape.spec.pattern = patterned.pattern;
  const std::optional<int32_t> leading = text::leading_id(*shape.tokenizer, shape.spec.bos_id);
  shape.spec.bos_id = leading ? std::optional<int64_t>(*leading) : std::nullopt;
  shape.folder = std::move(folder);
  return shape;
}

LoadedModel load_with_flags(const ModelFlags& flags) { return load_with_flags(flags, load_shape(flags)); }

LoadedModel load_with_flags(const ModelFlags& flags, ModelShape shape) {
  const formats::LoadT t = shape.adapter ? formats::LoadT::kAsStored : formats::LoadT::kFolded;
  model::Model model;
  run_interruptible([&] { return fmt::format("stopped while loading {}", flags.model); },
                    [&] { model = formats::load_model(*shape.folder, flags.precision, t); });
  LoadedModel out{.model = std::move(model),
                  .adapter = flags.adapter,
                  .tokenizer = std::move(shape.tokenizer),
                  .scaling = shape.scaling,
                  .used_scaling = shape.scaling.value_or(shape.spec.rope_scaling)};
  if (shape.adapter) model::merge_adapter(*shape.adapter, *out.model.params);
  out.model.params->move_to(Context().memory());
  out.model.spec = std::move(shape.spec);
  return out;
}

std::string scaling_text(const model::RopeScaling& scaling) {
  if (scaling.type == model::Scaling::kNone) return "none";
  return fmt::format("{} x{:g}", enum_name(scaling.type), scaling.factor);
}

std::string pattern_text(const model::AttentionPattern& p) {
  if (!p.far()) return std::string(enum_name(p.type));
  std::string text = fmt::format("{}, window {}", enum_name(p.type), p.window);
  if (p.keeps_first()) text += fmt::format(", {}", counted(p.sinks, "sink"));
  if (p.type == model::Pattern::kLmInfinite) text += fmt::format(", distance {}", p.distance);
  if (p.looks_back())
    text += fmt::format(", the {} of the middle from layer {} on", counted(p.middle_top_k, "best key"),
                        p.middle_from_layer);
  if (p.type == model::Pattern::kSelfExtend) text += fmt::format(", groups of {}", p.group);
  if (p.frame == model::SlackFrame::kAbsolute) text += ", absolute positions";
  return text;
}

std::string text_or_stdin(const std::optional<std::string>& given) {
  if (given) return *given;
  if (::isatty(STDIN_FILENO)) print_note("the text is read from the terminal; Ctrl-D on an empty line ends it");
  std::string text;
  char block[65536];
  while (!std::feof(stdin) && !std::ferror(stdin))  // reading past the end would wait for input again on a terminal
    text.append(block, std::fread(block, 1, sizeof block, stdin));
  COCA_CHECK_AS(kIo, !std::ferror(stdin), "standard input: cannot read: {}", std::strerror(errno));
  text = utf8_of(std::move(text), "standard input");
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::string utf8_of(std::string bytes, std::string_view name) {
  std::optional<text::WideText> wide = text::read_wide(bytes);
  if (!wide) {
    text::strip_bom(bytes);
    return bytes;
  }
  log_warning("{}: {} text read as UTF-8", name, wide->encoding);
  return std::move(wide->text);
}

nlohmann::ordered_json number_json(double value) { return io::detail::scalar_to_json(value); }

nlohmann::ordered_json number_or_null(std::optional<double> value) {
  return value ? number_json(*value) : nlohmann::ordered_json(nullptr);
}

}  // namespace coca::tools
