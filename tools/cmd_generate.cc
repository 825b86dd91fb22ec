// coca generate: continue a text.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <cstdio>

#include "cli.h"
#include "coca/base/stop.h"
#include "coca/eval/protocol.h"
#include "coca/infer/generate.h"
#include "coca/model/generation_config.h"
#include "coca/report/table.h"
#include "coca/text/chat_choice.h"
#include "coca/text/stop_strings.h"
#include "model_flags.h"

namespace coca::tools {

namespace {

struct Options : ModelFlags {
  std::optional<std::string> prompt;
  int64_t max_new_tokens = 128, seed = 0;
  std::optional<int64_t> top_k;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::vector<std::string> stop;
  std::optional<std::string> system;
  std::string chat_template = "auto";
  eval::Bos bos = eval::Bos::kAuto;
  infer::DynamicBase dynamic_base = infer::DynamicBase::kStep;
  KvType cache = KvType::kF32;
  bool chat = false, ignore_eos = false, echo = false, json = false;  // flags without a value, not in --config

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    v("dynamic_base",
      "length that dynamic NTK reckons with: the one so far (step), or the planned one (request)",
      dynamic_base);
    v("cache", "how the cache stores keys and values: as they are, or rounded to take half or about a quarter", cache);
    v.group("Text");
    v("prompt", "text to continue; default: standard input, without its last newline", prompt);
    v("system", "with --chat: the system message", system);
    v("chat_template", "with --chat: auto (the model's), a template's name, or a file", chat_template);
    v("bos", "whether a bos token leads the prompt; auto: if config.json names one", bos);
    v("max_new_tokens", "stop after so many", max_new_tokens);
    v.group("Sampling (what is not given comes from the model's generation_config.json)");
    v("temperature",
      "0: always the likeliest token; default 1, or 0 where generation_config.json does not say do_sample true",
      temperature);
    v("top_k", "draw from the k likeliest tokens; 0, the default: all", top_k);
    v("top_p", "draw from the fewest tokens that reach this probability; default 1: all", top_p);
    v("min_p", "draw from tokens at least so many times as likely as the likeliest; default 0: all", min_p);
    v("repetition_penalty", "divides the logits of tokens that have come before; default 1: none", repetition_penalty);
    v("seed", "the same seed gives the same text", seed);
  }
};

std::vector<int32_t> prompt_ids(const Options& o, const LoadedModel& m, const std::string& prompt) {
  COCA_CHECK(o.chat || !o.system, "--system: needs --chat");
  if (o.chat) {
    const auto chat = text::choose_chat_template(o.chat_template, o.model);
    COCA_CHECK(chat, "--chat: {} has no chat template; name one with --chat-template", o.model);
    std::vector<text::ChatMessage> messages;
    if (o.system) messages.push_back({"system", *o.system});
    messages.push_back({"user", prompt});
    return m.tokenizer->encode(chat->render(messages, {.prompt = text::GenerationPrompt::kAdd}), text::SpecialTokens::kParse);
  }
  std::vector<int32_t> ids = m.tokenizer->encode(prompt);
  if (const auto bos = eval::bos_token(m.model.spec, o.bos)) ids.insert(ids.begin(), *bos);
  COCA_CHECK(!ids.empty(), "the prompt is empty, and there is no bos token to begin with");
  return ids;
}

std::string rate(size_t tokens, double seconds) {
  return seconds > 0 ? fmt::format("{:.0f} tokens/s", static_cast<double>(tokens) / seconds) : "-";
}

// Flags before the model's own settings before ours. A flag that only matters in sampling asks for it.
infer::SamplingOptions sampling_of(const Options& o, const model::GenerationConfig& c) {
  const bool asked = o.top_k || o.top_p || o.min_p;
  const double warmth = c.do_sample == false && !asked ? 0.0 : c.temperature.value_or(1.0);
  return {.temperature = o.temperature.value_or(warmth),
          .top_k = o.top_k ? *o.top_k : c.top_k.value_or(0),
          .top_p = o.top_p ? *o.top_p : c.top_p.value_or(1.0),
          .min_p = o.min_p ? *o.min_p : c.min_p.value_or(0.0),
          .repetition_penalty = o.repetition_penalty ? *o.repetition_penalty : c.repetition_penalty.value_or(1.0)};
}

// generation_config.json, else config.json, else the tokenizer.
std::vector<int32_t> stop_ids_of(const LoadedModel& m, const model::GenerationConfig& c) {
  std::vector<int32_t> ids;
  for (const int64_t id : c.eos_ids.empty() ? m.model.spec.eos_ids : c.eos_ids) ids.push_back(static_cast<int32_t>(id));
  if (ids.empty() && m.tokenizer->eos_id()) ids.push_back(*m.tokenizer->eos_id());
  return ids;
}

constexpr std::string_view finish_text(infer::Finish finish, bool stop_string) {
  if (stop_string) return "stop string";
  switch (finish) {
    case infer::Finish::kLength: return "length";
    case infer::Finish::kStopId: return "end of text";
    default: return "interrupted";
  }
}

void name_lacking(const Options& o, const model::GenerationConfig& c) {
  if (c.lacking.empty()) return;
  std::fprintf(stderr, "%s\n", fmt::format("{}/generation_config.json: coca generate does not have {}; the text is made without",
                                          o.model, fmt::join(c.lacking, ", ")).c_str());
}

int run(const Options& o) {
  const model::GenerationConfig config = model::load_generation_config(o.model);
  const infer::SamplingOptions sampling = sampling_of(o, config);
  infer::check_sampling(sampling);
  name_lacking(o, config);
  text::StopStrings stops(o.stop);
  const LoadedModel m = load_with_flags(o);
  const std::string prompt = text_or_stdin(o.prompt);
  const std::vector<int32_t> ids = prompt_ids(o, m, prompt);
  infer::GenerateOptions options{.max_new_tokens = o.max_new_tokens,
                                 .sampling = sampling,
                                 .seed = static_cast<uint64_t>(o.seed),
                                 .dynamic_base = o.dynamic_base,
                                 .cache = o.cache};
  if (!o.ignore_eos) options.stop_ids = stop_ids_of(m, config);
  const model::ModelSpec spec = eval::with_scaling(m.model.spec, m.scaling);

  text::StreamDecoder stream(*m.tokenizer);
  std::string text;
  const auto emit = [&](const std::string& piece) {
    text += piece;
    if (!o.json) print_bytes(piece);
  };
  if (o.echo) emit(prompt);
  Context cx;
  const infer::GenerateResult result =
      infer::generate(cx, spec, m.model.params->weights(), ids, options, [&](int32_t id) {
        if (id < m.tokenizer->vocab_size())
          emit(stops.push(stream.push(id)));                   // beyond are padding rows of the embedding: no text
        return !output_is_lost() && !stops.matched();
      });
  if (!stops.matched()) emit(stops.push(stream.finish()));
  emit(stops.finish());
  if (o.json) {
    nlohmann::ordered_json j;
    j["prompt_ids"] = ids;
    j["ids"] = result.ids;
    j["text"] = text;
    j["finish"] = finish_text(result.finish, stops.matched());
    j["sampling"] = {{"temperature", sampling.temperature}, {"top_k", sampling.top_k}, {"top_p", sampling.top_p},
                     {"min_p", sampling.min_p}, {"repetition_penalty", sampling.repetition_penalty}};
    j["prefill_seconds"] = result.prefill_seconds;
    j["decode_seconds"] = result.decode_seconds;
    j["cache_bytes"] = result.cache_bytes;
    print(j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  } else {
    print("\n");
  }
  std::fprintf(stderr, "%s\n",
               fmt::format("prefill {} tokens, {}; decode {} tokens, {}; cache {}", ids.size(),
                           rate(ids.size(), result.prefill_seconds), result.ids.size(),
                           rate(result.ids.size(), result.decode_seconds),
                           report::format_bytes(static_cast<int64_t>(result.cache_bytes)))
                   .c_str());
  return stop_requested() ? kExitInterrupted : 0;
}

}  // namespace

void add_generate(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("generate", "Continue a text");
  auto options = std::make_shared<Options>();
  auto flags = std::make_shared<OptionFlags>(*app, *options);
  flags->add_config_flag();
  app->add_option("--stop", options->stop, "end the text in front of this; may be given several times")
      ->type_name("TEXT")->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->group("Text");
  app->add_flag("--chat", options->chat, "the prompt is a user's message; the model's chat template frames it")->group("Text");
  app->add_flag("--ignore-eos", options->ignore_eos, "go on after the end-of-text token")->group("Text");
  app->add_flag("--echo", options->echo, "print the prompt first")->group("Output");
  app->add_flag("--json", options->json, "print one JSON object instead of the text as it comes")
      ->group("Output");
  app->footer(
      "Example: coca generate --model out/model --prompt \"It was a\" --max-new-tokens 100 --temperature "
      "0.8");
  app->callback([=] {
    *action = [=] {
      flags->finish();
      return run(*options);
    };
  });
}

}  // namespace coca::tools
