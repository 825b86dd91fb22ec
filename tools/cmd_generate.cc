// coca generate: continue a text.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "cli.h"
#include "coca/base/stop.h"
#include "coca/eval/protocol.h"
#include "coca/infer/generate.h"
#include "coca/report/table.h"
#include "model_flags.h"

namespace coca::tools {

namespace {

struct Options : ModelFlags {
  std::optional<std::string> prompt;
  int64_t max_new_tokens = 128, top_k = 0, seed = 0;
  double temperature = 1.0, top_p = 1.0;
  eval::Bos bos = eval::Bos::kAuto;
  infer::DynamicBase dynamic_base = infer::DynamicBase::kStep;
  KvType cache = KvType::kF32;
  bool ignore_eos = false, echo = false, json = false;  // flags without a value, not in --config

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    v("dynamic_base",
      "length that dynamic NTK reckons with: the one so far (step), or the planned one (request)",
      dynamic_base);
    v("cache", "how the cache stores keys and values: as they are, or rounded to take half or about a quarter", cache);
    v.group("Text");
    v("prompt", "text to continue; default: standard input, without its last newline", prompt);
    v("bos", "whether a bos token leads the prompt; auto: if config.json names one", bos);
    v("max_new_tokens", "stop after so many", max_new_tokens);
    v.group("Sampling");
    v("temperature", "0: always the likeliest token", temperature);
    v("top_k", "draw from the k likeliest tokens; 0: all", top_k);
    v("top_p", "draw from the fewest tokens that reach this probability", top_p);
    v("seed", "the same seed gives the same text", seed);
  }
};

std::vector<int32_t> prompt_ids(const Options& o, const LoadedModel& m, const std::string& prompt) {
  std::vector<int32_t> ids = m.tokenizer->encode(prompt);
  if (const auto bos = eval::bos_token(m.model.spec, o.bos)) ids.insert(ids.begin(), *bos);
  COCA_CHECK(!ids.empty(), "the prompt is empty, and there is no bos token to begin with");
  return ids;
}

std::string rate(size_t tokens, double seconds) {
  return seconds > 0 ? fmt::format("{:.0f} tokens/s", static_cast<double>(tokens) / seconds) : "-";
}

int run(const Options& o) {
  const infer::SamplingOptions sampling{.temperature = o.temperature, .top_k = o.top_k, .top_p = o.top_p};
  infer::check_sampling(sampling);
  const LoadedModel m = load_with_flags(o);
  const std::string prompt = text_or_stdin(o.prompt);
  const std::vector<int32_t> ids = prompt_ids(o, m, prompt);
  infer::GenerateOptions options{.max_new_tokens = o.max_new_tokens,
                                 .sampling = sampling,
                                 .seed = static_cast<uint64_t>(o.seed),
                                 .dynamic_base = o.dynamic_base,
                                 .cache = o.cache};
  if (!o.ignore_eos) {
    if (const auto eos = m.model.spec.eos_id())
      options.stop_id = static_cast<int32_t>(*eos);
    else
      options.stop_id = m.tokenizer->eos_id();
  }
  const model::ModelSpec spec = eval::with_scaling(m.model.spec, m.scaling);

  text::StreamDecoder stream(*m.tokenizer);
  std::string text;
  const auto emit = [&](const std::string& piece) {
    text += piece;
    if (!o.json) print(piece);
  };
  if (o.echo) emit(prompt);
  Context cx;
  const infer::GenerateResult result =
      infer::generate(cx, spec, m.model.params->weights(), ids, options, [&](int32_t id) {
        if (id < m.tokenizer->vocab_size())
          emit(stream.push(id));          // beyond are padding rows of the embedding: no text
        return std::ferror(stdout) == 0;  // nobody reads any more
      });
  emit(stream.finish());
  if (o.json) {
    nlohmann::ordered_json j;
    j["prompt_ids"] = ids;
    j["ids"] = result.ids;
    j["text"] = text;
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
