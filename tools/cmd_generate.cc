// coca generate: continues a text.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "cli.h"
#include "coca/base/stop.h"
#include "coca/data/instruct.h"
#include "coca/eval/protocol.h"
#include "coca/infer/generate.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/report/table.h"
#include "coca/text/chat_choice.h"
#include "coca/text/generation_config.h"
#include "coca/text/stop_strings.h"
#include "coca/text/utf8.h"
#include "eval_command.h"
#include "model_flags.h"
#include "output_flags.h"

namespace coca::tools {

namespace {

struct Options : ModelFlags {
  std::optional<std::string> prompt;
  std::string messages;
  int64_t seed = 0;
  std::optional<int64_t> max_new_tokens, top_k;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  Texts stop;
  std::optional<std::string> system;
  std::string chat_template = "auto";
  text::ChatVariables chat_var;
  eval::Bos bos = eval::Bos::kAuto;
  infer::DynamicBase dynamic_base = infer::DynamicBase::kStep;
  KvType cache = KvType::kF32;
  bool chat = false, ignore_eos = false, echo = false;
  std::string json;

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    v("dynamic_base",
      "length from which dynamic NTK computes its base: the length so far (step) or the planned one (request)",
      dynamic_base);
    v("cache", "type of keys and values in the cache; bf16 takes half the memory, int8 about a quarter", cache);
    v.group("Text");
    v("prompt", "text to continue; default: standard input, without its last newline", prompt);
    v("system", "with --chat: the system message", system);
    v("messages",
      "with --chat: a JSON file with the conversation so far, a list of messages or an object with \"messages\"",
      messages);
    v("chat_template", "with --chat: auto (the model's), a template's name, or a file", chat_template);
    v("chat_var",
      "NAME=VALUE for the chat template (enable_thinking=false); may be given several times; overrides the variables "
      "saved with the model",
      chat_var);
    v("bos", "whether the prompt begins with a bos token; auto: if config.json names one", bos);
    v("max_new_tokens",
      "most tokens to generate; 0: none, the prompt is only run; default: what generation_config.json says "
      "(max_new_tokens or max_length), else 128",
      max_new_tokens);
    v("stop",
      "end the text before this string; may be given several times; default: stop_strings of generation_config.json",
      stop);
    v("chat", "the prompt is a user's message, to which the model's chat template is applied", chat);
    v("ignore_eos", "continue after the end-of-text token", ignore_eos);
    v.group("Sampling (what is not given comes from the model's generation_config.json)");
    v("temperature",
      "divides the logits before a token is drawn; 0: always the most likely token; default: 1, or with a "
      "generation_config.json its temperature if it sets do_sample, else 0",
      temperature);
    v("top_k", "draw from the k most likely tokens; 0, the default: all", top_k);
    v("top_p", "draw from the smallest set of tokens with this total probability; default 1: all", top_p, kAboveZero);
    v("min_p", "draw from tokens whose probability is at least this share of the largest; default 0: all", min_p);
    v("repetition_penalty", "divides the logits of tokens that have already occurred; default 1: no penalty",
      repetition_penalty, kAboveZero);
    v("seed", "the same seed gives the same text", seed);
    v.group("Output");
    v("echo", "print the prompt first; with --chat, as the template makes it", echo);
    v("json", "write ids, text, settings and times to this file; -: to standard output, instead of the text", json);
  }
};

struct Prompt {
  std::string text;
  std::vector<int32_t> ids;
};

// A conversation and its chat template.
class Chat {
 public:
  explicit Chat(const Options& o)
      : template_(chosen(o)), bos_(o.bos), system_(o.system.has_value()), prompt_(o.prompt.has_value()) {
    options_ = {.prompt = text::GenerationPrompt::kAdd,
                .variables = text::saved_chat_variables(o.chat_template, o.model, o.adapter)};
    options_.variables.update(o.chat_var.values);
    if (o.system) say(data::Role::kSystem, *o.system);
    if (!o.messages.empty()) read(o.messages);
  }

  // Templates accept only UTF-8, and a small model's answer may not be. The plain template writes the answer's space.
  void say(data::Role role, const std::string& text) {
    const bool spaced = role == data::Role::kAssistant && template_.is_plain() && text.starts_with(' ');
    messages_.push_back({.role = role, .content = text::replace_invalid(spaced ? text.substr(1) : text)});
  }

  // As fine-tuning writes it.
  Prompt prompt(const LoadedModel& m) const {
    if (!template_.is_plain()) {
      std::string text = template_.render(data::chat_messages(messages_, template_), options_);
      std::vector<int32_t> ids = m.tokenizer->encode(text, text::SpecialTokens::kParse);
      COCA_CHECK(!ids.empty(),
                 "{}: the chat template writes nothing for this conversation; choose another with "
                 "--chat-template",
                 template_.origin());
      return {std::move(text), std::move(ids)};
    }
    const std::vector<data::Segment> segments = data::plain_prompt(messages_);
    Prompt out{.text = "",
               .ids = data::encode_segments(segments, *m.tokenizer, eval::bos_token(m.model.spec, bos_)).ids};
    for (const data::Segment& segment : segments) out.text += segment.text;
    return out;
  }

  // The text that the template writes after an answer, such as <|im_end|>; empty: eos, or it cannot be told.
  std::string end_of_answer() const {
    if (template_.is_plain()) return "";
    constexpr std::string_view kAnswer = "answer";
    const std::vector<text::ChatMessage> sample = {{"user", "question"}, {"assistant", std::string(kAnswer)}};
    try {
      const text::RenderedChat chat = template_.render_with_answers(sample);
      if (chat.answers.empty()) return "";
      const std::string answer = chat.text.substr(0, chat.answers.back().end);
      const size_t at = answer.rfind(kAnswer);
      if (at == std::string::npos || at < chat.answers.back().begin) return "";
      const std::string end = answer.substr(at + kAnswer.size());
      const size_t first = end.find_first_not_of(" \n"), last = end.find_last_not_of(" \n");
      return first == std::string::npos ? "" : end.substr(first, last + 1 - first);
    } catch (const Error&) {
      return "";  // a template that needs more than this; generation_config.json says where its answers end
    }
  }

 private:
  static text::ChatTemplate chosen(const Options& o) {
    auto chat = text::choose_chat_template(o.chat_template, o.model, o.adapter);
    COCA_CHECK(!chat || !chat->is_plain() || o.chat_var.values.empty(),
               "--chat-var: the template plain has no variables; choose another with --chat-template");
    COCA_CHECK(chat, "--chat: {} has no chat template; name one with --chat-template: a file, or {}", o.model,
               fmt::join(text::chat_template_names(), ", "));
    return std::move(*chat);
  }

  static constexpr std::string_view kConversation =
      "one conversation: a list of messages, or an object with \"messages\"";

  static nlohmann::ordered_json conversation(const std::string& file) {
    const std::string text = utf8_of(io::read_file(file), file);
    try {
      return io::parse_ordered_json(text, file);
    } catch (const Error& error) {
      const std::string first = text.substr(0, text.find('\n'));
      const bool lines = first.size() < text.size() && nlohmann::json::accept(first);
      fail(error.kind(), "{}; expected {}{}", error.what(), kConversation,
           lines ? ". This looks like JSON lines: put one of them into a file of its own" : "");
    }
  }

  void read(const std::string& file) {
    nlohmann::ordered_json json = conversation(file);
    if (json.is_object() && json.contains("tools") && json["tools"].is_array())
      options_.variables["tools"] = json["tools"];
    if (json.is_object()) json = nlohmann::ordered_json(json.contains("messages") ? json["messages"] : nullptr);
    COCA_CHECK_AS(kBadFile, json.is_array(), "{}: expected {}", file, kConversation);
    COCA_CHECK_AS(kBadFile, !json.empty(), "{}: the list of messages is empty; expected a user's message at least",
                  file);
    for (data::Message& message : data::read_messages(json, "messages", file)) {
      COCA_CHECK(message.role != data::Role::kSystem || !system_,
                 "--system: {} has a system message of its own; leave one of them out", file);
      messages_.push_back(std::move(message));
    }
    const data::Role last = messages_.back().role;
    COCA_CHECK(!prompt_ || last != data::Role::kUser,
               "--prompt: {} ends with a user's message already; leave --prompt out, or add the answer to the file",
               file);
    COCA_CHECK(
        prompt_ || last != data::Role::kAssistant,
        "{}: the conversation ends with an answer of the assistant; add a user's message, or give it as --prompt",
        file);
  }

  text::ChatTemplate template_;
  text::ChatOptions options_;
  eval::Bos bos_;         // of the plain template; the others write their own
  bool system_, prompt_;  // whether given
  std::vector<data::Message> messages_;
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

// Precedence: flags, then the model's own settings, then our defaults. A flag that affects only sampling turns sampling
// on.
infer::SamplingOptions sampling_of(const Options& o, const text::GenerationConfig& c) {
  const bool asked = o.top_k || o.top_p || o.min_p;
  const double warmth = c.do_sample == false && !asked ? 0.0 : c.temperature.value_or(1.0);
  return {.temperature = o.temperature.value_or(warmth),
          .top_k = o.top_k ? *o.top_k : c.top_k.value_or(0),
          .top_p = o.top_p ? *o.top_p : c.top_p.value_or(1.0),
          .min_p = o.min_p ? *o.min_p : c.min_p.value_or(0.0),
          .repetition_penalty = o.repetition_penalty ? *o.repetition_penalty : c.repetition_penalty.value_or(1.0)};
}

// Taken from generation_config.json, else from config.json, else from the tokenizer.
std::vector<int32_t> stop_ids_of(const LoadedModel& m, const text::GenerationConfig& c) {
  std::vector<int32_t> ids;
  if (!c.ids.eos.empty()) return c.ids.eos;
  for (const int64_t id : m.model.spec.eos_ids) ids.push_back(static_cast<int32_t>(id));
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

std::string generation_config_of(const Options& o) {
  return (std::filesystem::path(o.model) / "generation_config.json").string();
}

void name_lacking(const Options& o, const text::GenerationConfig& c) {
  if (c.lacking.empty()) return;
  print_note(fmt::format("{}: coca generate does not have {}; the text is made without", generation_config_of(o),
                         fmt::join(c.lacking, ", ")));
}

struct Answer {
  infer::GenerateResult result;
  std::string text;
  std::string_view finish;
};

// Continues prompts one at a time.
class Generator {
 public:
  explicit Generator(const Options& o)
      : o_(o), config_(text::load_generation_config(o.model)), sampling_(sampling_of(o, config_)) {
    infer::check_sampling(sampling_);
    name_lacking(o, config_);
    if (!o.stop.items.empty()) config_.stop_strings = o.stop.items;
    text::StopStrings(config_.stop_strings);  // reports mistakes before the model is loaded
    model_.emplace(load_with_flags(o));
    text::check_ids(config_.ids, model_->model.spec.V, generation_config_of(o));
    spec_ = eval::with_scaling(model_->model.spec, model_->scaling);
    decoder_.emplace(spec_, model_->model.params->weights(), infer::BatchOptions{.cache = o.cache});
  }

  const LoadedModel& model() const { return *model_; }
  const infer::SamplingOptions& sampling() const { return sampling_; }

  // Answers also end at this text, or if it is empty at the tokenizer's eos.
  void end_answers_at(const std::string& text) {
    if (o_.ignore_eos) return;
    const auto eos = model_->tokenizer->eos_id();
    const std::vector<int32_t> ids = text.empty() ? (eos ? std::vector{*eos} : std::vector<int32_t>{})
                                                  : model_->tokenizer->encode(text, text::SpecialTokens::kParse);
    if (ids.size() == 1)
      more_stop_ids_.push_back(ids[0]);
    else if (!text.empty())
      config_.stop_strings.push_back(text);
  }

  // turn: selects a separate random stream for each answer of a conversation.
  Answer run(const std::vector<int32_t>& ids, int64_t turn, const std::string& echo) {
    infer::Request request{.prompt = ids,
                           .max_new_tokens = new_tokens(static_cast<int64_t>(ids.size())),
                           .sampling = sampling_,
                           .seed = static_cast<uint64_t>(o_.seed + turn),
                           .stop_ids = {}};
    if (!o_.ignore_eos) request.stop_ids = stop_ids_of(*model_, config_);
    request.stop_ids.insert(request.stop_ids.end(), more_stop_ids_.begin(), more_stop_ids_.end());
    text::StopStrings stops(config_.stop_strings);
    text::StreamDecoder stream(*model_->tokenizer);
    Answer answer;
    const auto emit = [&](const std::string& piece) {
      answer.text += piece;
      if (!is_stdout(o_.json)) print_bytes(piece);
    };
    emit(echo);
    const auto on_token = [&](int32_t id) {
      if (id < model_->tokenizer->vocab_size())
        emit(stops.push(stream.push(id)));  // larger ids are padding rows of the embedding and have no text
      return !output_is_lost() && !stops.matched();
    };
    try {
      answer.result = infer::generate(cx_, *decoder_, request, {.dynamic_base = o_.dynamic_base}, on_token);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNumeric) throw;
      fail(ErrorKind::kNumeric, "{}: {}", o_.model, error.what());
    }
    if (!stops.matched()) emit(stops.push(stream.finish()));
    emit(stops.finish());
    if (!is_stdout(o_.json)) print("\n");
    answer.finish = finish_text(answer.result.finish, stops.matched());
    if (request.max_new_tokens == 0)
      print_note(fmt::format(
          "nothing was generated, as {}; the prompt was run",
          o_.max_new_tokens ? "--max-new-tokens is 0" : generation_config_of(o_) + " allows no new tokens"));
    return answer;
  }

 private:
  int64_t new_tokens(int64_t prompt) const {
    if (o_.max_new_tokens) return *o_.max_new_tokens;
    return text::new_tokens_after(prompt, config_, generation_config_of(o_)).value_or(128);
  }

  const Options& o_;
  text::GenerationConfig config_;
  std::vector<int32_t> more_stop_ids_;
  infer::SamplingOptions sampling_;
  std::optional<LoadedModel> model_;
  model::ModelSpec spec_;
  std::optional<infer::BatchDecoder> decoder_;
  Context cx_;
};

void print_speed(const std::vector<int32_t>& ids, const infer::GenerateResult& r) {
  std::fprintf(
      stderr, "%s\n",
      fmt::format("prefill {}, {}; decode {}, {}; cache {}", counted(ids.size(), "token"),
                  rate(ids.size(), r.prefill_seconds), counted(r.ids.size(), "token"),
                  rate(r.ids.size(), r.decode_seconds), report::format_bytes(static_cast<int64_t>(r.cache_bytes)))
          .c_str());
}

void write_result(const Options& o, const LoadedModel& m, const std::vector<int32_t>& ids, const Answer& answer,
                  const infer::SamplingOptions& sampling) {
  Options options = o;  // its visitor is not const
  nlohmann::ordered_json j = header_json(o.model, m, result_options(options));
  j["prompt_ids"] = ids;
  j["ids"] = answer.result.ids;
  j["text"] = answer.text;
  j["finish"] = answer.finish;
  j["sampling"] = {{"temperature", sampling.temperature},
                   {"top_k", sampling.top_k},
                   {"top_p", sampling.top_p},
                   {"min_p", sampling.min_p},
                   {"repetition_penalty", sampling.repetition_penalty}};
  j["prefill_seconds"] = answer.result.prefill_seconds;
  j["decode_seconds"] = answer.result.decode_seconds;
  j["cache_bytes"] = answer.result.cache_bytes;
  write_json_output(o.json, j);
}

// Reads messages from the terminal until Ctrl-D. Empty lines are ignored.
void converse(Generator& generator, Chat& chat) {
  std::fprintf(stderr, "Ctrl-D ends the conversation.\n");
  std::string line;
  for (int64_t turn = 0; !stop_requested() && !output_is_lost();) {
    std::fprintf(stderr, "> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    chat.say(data::Role::kUser, line);
    chat.say(data::Role::kAssistant, generator.run(chat.prompt(generator.model()).ids, turn++, "").text);
  }
  std::fprintf(stderr, "\n");
}

int run(const Options& o) {
  COCA_CHECK(o.chat || !o.system, "--system: needs --chat");
  COCA_CHECK(o.chat || o.messages.empty(), "--messages: needs --chat");
  COCA_CHECK(o.chat || o.chat_template == Options{}.chat_template, "--chat-template {}: needs --chat", o.chat_template);
  COCA_CHECK(o.chat || o.chat_var.values.empty(), "--chat-var: needs --chat");
  for (const auto& [flag, given] :
       {std::pair("--top-k", o.top_k.has_value()), {"--top-p", o.top_p.has_value()}, {"--min-p", o.min_p.has_value()}})
    if (given && o.temperature == 0.0)
      print_note(fmt::format("{} has no effect with --temperature 0, which always takes the most likely token", flag));
  std::optional<Chat> chat;
  if (o.chat) chat.emplace(o);
  Generator generator(o);
  if (chat) generator.end_answers_at(chat->end_of_answer());
  if (chat && !o.prompt && o.messages.empty() && o.json.empty() && ::isatty(STDIN_FILENO)) {
    converse(generator, *chat);
    if (stop_requested()) fail(ErrorKind::kInterrupted, "stopped");
    return 0;
  }
  // With --messages the file already holds the message to answer, so standard input is not read.
  Prompt prompt;
  if (!chat || o.prompt || o.messages.empty()) prompt.text = text_or_stdin(o.prompt);
  COCA_CHECK(!chat || !o.messages.empty() || !prompt.text.empty(),
             "--chat: the user's message is empty; give one as --prompt, or on standard input");
  if (chat && (o.prompt || o.messages.empty())) chat->say(data::Role::kUser, prompt.text);
  if (chat)
    prompt = chat->prompt(generator.model());
  else
    prompt.ids = prompt_ids(o, generator.model(), prompt.text);
  const Answer answer = generator.run(prompt.ids, 0, o.echo ? prompt.text : "");
  if (!o.json.empty()) write_result(o, generator.model(), prompt.ids, answer, generator.sampling());
  print_speed(prompt.ids, answer.result);
  const auto reached = static_cast<int64_t>(prompt.ids.size() + answer.result.ids.size());
  std::fputs(extrapolation_text(generator.model(), reached).c_str(), stderr);
  if (stop_requested()) fail(ErrorKind::kInterrupted, "stopped after {}", counted(answer.result.ids.size(), "token"));
  return 0;
}

}  // namespace

void add_generate(CLI::App& root, Action* action) {
  add_command<Options>(
      root, action, "generate", "Continue a text",
      "Example: coca generate --model out/model --prompt \"It was a\" --max-new-tokens 100 --temperature 0.8", run);
}

}  // namespace coca::tools
