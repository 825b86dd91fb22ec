// coca/data/example_forms.cc - see example_forms.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/example_forms.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::data {

using nlohmann::ordered_json;

namespace {

std::string take_text(ordered_json& object, const char* field, const std::string& where) {
  const auto it = object.find(field);
  COCA_CHECK_AS(kBadFile, it != object.end(), "{}: field \"{}\" is missing", where, field);
  COCA_CHECK_AS(kBadFile, it->is_string(), "{}: field \"{}\" is {}; expected a string", where, field, it->type_name());
  return std::move(it->get_ref<std::string&>());
}

// "", when the field is not there or null.
std::string take_optional(ordered_json& object, const char* field, const std::string& where) {
  return object.contains(field) && !object[field].is_null() ? take_text(object, field, where) : "";
}

struct RoleName {
  const char* name;
  Role role;
  const char* written;  // for templates, where it is not the role's own
};
constexpr RoleName kRoles[] = {{"system", Role::kSystem, ""},
                               {"developer", Role::kSystem, "developer"},
                               {"user", Role::kUser, ""},
                               {"human", Role::kUser, ""},
                               {"assistant", Role::kAssistant, ""},
                               {"bot", Role::kAssistant, ""},
                               {"gpt", Role::kAssistant, ""},
                               {"chatgpt", Role::kAssistant, ""},
                               {"model", Role::kAssistant, ""},
                               {"function_call", Role::kAssistant, ""},
                               {"tool", Role::kTool, ""},
                               {"function", Role::kTool, ""},
                               {"ipython", Role::kTool, ""},
                               {"observation", Role::kTool, ""},
                               {"function_response", Role::kTool, ""}};

void set_role(Message& message, const std::string& name, const std::string& where) {
  const auto found = std::ranges::find(kRoles, name, &RoleName::name);
  COCA_CHECK_AS(
      kBadFile, found != std::end(kRoles),
      "{}: role \"{}\" is unknown; expected system (developer), user (human), assistant (bot, gpt, model) or tool "
      "(function, observation)",
      where, name);
  message.role = found->role;
  message.role_name = found->written;
}

// A text, null beside calls of tools, or a list of parts of which all are text.
void set_content(Message& message, ordered_json& object, const char* field, const std::string& where) {
  const auto it = object.find(field);
  const bool calls = object.contains("tool_calls") && object["tool_calls"].is_array() && !object["tool_calls"].empty();
  if (calls && (it == object.end() || it->is_null())) {
    if (it != object.end()) message.fields["content"] = nullptr;
    return;
  }
  if (it == object.end() || !it->is_array()) {
    message.content = take_text(object, field, where);
    return;
  }
  for (size_t i = 0; i < it->size(); ++i) {
    ordered_json& part = (*it)[i];
    const std::string place = fmt::format("{}: {}[{}]", where, field, i);
    const bool text = part.is_object() && part.value("type", ordered_json("text")) == "text";
    COCA_CHECK_AS(kBadFile, text || part.is_string(),
                  "{} is not a text part: {}; images and other media are not supported", place,
                  part.is_object() && part.contains("type") ? part["type"].dump() : part.type_name());
    message.content += (i > 0 ? "\n" : "") + (text ? take_text(part, "text", place) : part.get<std::string>());
  }
}

// "weight": 0 or 1, as OpenAI's files have it; "train": false, as others do.
Counts weight_of(const ordered_json& object, const std::string& where) {
  Counts counts = Counts::kYes;
  for (const char* field : {"weight", "train"}) {
    const auto it = object.find(field);
    if (it == object.end() || it->is_null()) continue;
    const bool number = it->is_number() && (*it == 0 || *it == 1);
    COCA_CHECK_AS(kBadFile, number || it->is_boolean(), "{}: field \"{}\" is {}; expected 0 or 1", where, field,
                  it->dump());
    if (*it == 0 || *it == false) counts = Counts::kNo;
  }
  return counts;
}

void need_answer(const std::vector<Message>& messages, const char* field, const std::string& name) {
  const bool answered = std::ranges::any_of(messages, [](const Message& m) { return m.role == Role::kAssistant; });
  COCA_CHECK_AS(kBadFile, answered, "{}: field \"{}\" has {} and none of an assistant: nothing to learn", name, field,
                counted(messages.size(), "message"));
}

bool has(const ordered_json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && !found->is_null();
}

// The first of the fields that the object has; null: none.
const char* first_of(const ordered_json& object, std::span<const char* const> fields) {
  const auto found = std::ranges::find_if(fields, [&](const char* field) { return has(object, field); });
  return found == fields.end() ? nullptr : *found;
}

// The fields that hold an example of each form, the first that an object has being read.
constexpr const char* kMessageFields[] = {"messages", "chat_rounds"};
constexpr const char* kShareGptFields[] = {"conversations", "conversation"};
constexpr const char* kAnyMessages[] = {"messages", "chat_rounds", "conversations", "conversation"};
constexpr const char* kAnyShareGpt[] = {"conversations", "conversation", "messages"};
constexpr const char* kOutputFields[] = {"output", "response"};
constexpr const char* kInputFields[] = {"input", "context"};
constexpr const char* kAnswerFields[] = {"answer", "completion", "response", "chosen"};
constexpr const char* kTextFields[] = {"content", "text"};

Example conversation(ordered_json& object, const std::string& name, ExampleForm form, const char* field) {
  Example example{.name = name, .form = form, .text = "", .messages = {}};
  const std::string system = take_optional(object, "system", name);
  example.messages = read_messages(object[field], field, name);
  need_answer(example.messages, field, name);
  if (!system.empty() && example.messages.front().role != Role::kSystem)
    example.messages.insert(example.messages.begin(), {.role = Role::kSystem, .content = system});
  if (const auto tools = object.find("tools"); tools != object.end() && tools->is_array() && !tools->empty())
    example.variables["tools"] = std::move(*tools);
  return example;
}

bool is_blank(const std::string& text) { return text.find_first_not_of(" \t\r\n") == std::string::npos; }

// The prompts of Stanford Alpaca, byte by byte.
Example alpaca(ordered_json& object, const std::string& name) {
  const std::string instruction = take_text(object, "instruction", name);
  const char* const context = first_of(object, kInputFields);
  const std::string input = context ? take_text(object, context, name) : "";
  const char* const answer = first_of(object, kOutputFields);
  const std::string output = take_text(object, answer ? answer : "output", name);
  const std::string prompt = input.empty()
                                 ? "Below is an instruction that describes a task. Write a response that appropriately "
                                   "completes the request.\n\n"
                                   "### Instruction:\n" +
                                       instruction + "\n\n### Response:"
                                 : "Below is an instruction that describes a task, paired with an input that provides "
                                   "further context. Write a "
                                   "response that appropriately completes the request.\n\n### Instruction:\n" +
                                       instruction + "\n\n### Input:\n" + input + "\n\n### Response:";
  return {.name = name,
          .form = ExampleForm::kAlpaca,
          .text = "",
          .messages = {{.role = Role::kUser, .content = prompt}, {.role = Role::kAssistant, .content = output}},
          .asked = instruction + "\n" + input,
          .joined = true,
          .blank = is_blank(instruction) && is_blank(input) && is_blank(output)};
}

// Texts, or lists of messages: the answers of the prompt do not count, and of a preference the chosen answer is learnt.
Example prompt_and_answer(ordered_json& object, const std::string& name) {
  Example example{.name = name, .form = ExampleForm::kPrompt, .text = "", .messages = {}};
  const char* const found = first_of(object, kAnswerFields);
  const char* const answer = found ? found : "answer";
  if (!has(object, "prompt") || !object["prompt"].is_array()) {
    if (has(object, answer) && object[answer].is_array() && !has(object, "prompt")) {
      example.messages = read_messages(object[answer], answer, name);
      need_answer(example.messages, answer, name);
      return example;
    }
    example.joined = true;
    if (has(object, "system"))
      example.messages.push_back({.role = Role::kSystem, .content = take_text(object, "system", name)});
    example.messages.push_back({.role = Role::kUser, .content = take_text(object, "prompt", name)});
    example.messages.push_back({.role = Role::kAssistant, .content = take_text(object, answer, name)});
    return example;
  }
  example.messages = read_messages(object["prompt"], "prompt", name);
  for (Message& message : example.messages) message.counts = Counts::kNo;
  COCA_CHECK_AS(kBadFile, object.contains(answer), "{}: field \"{}\" is missing", name, answer);
  std::vector<Message> learnt;
  if (object[answer].is_string())
    learnt.push_back({.role = Role::kAssistant, .content = take_text(object, answer, name)});
  else
    learnt = read_messages(object[answer], answer, name);
  need_answer(learnt, answer, name);
  std::ranges::move(learnt, std::back_inserter(example.messages));
  if (const auto tools = object.find("tools"); tools != object.end() && tools->is_array() && !tools->empty())
    example.variables["tools"] = std::move(*tools);
  return example;
}

std::optional<ExampleForm> form_of(const ordered_json& object) {
  if (first_of(object, kMessageFields)) return ExampleForm::kMessages;
  if (first_of(object, kShareGptFields)) return ExampleForm::kShareGpt;
  if (has(object, "instruction") && first_of(object, kOutputFields)) return ExampleForm::kAlpaca;
  if (has(object, "prompt") || has(object, "answer") || has(object, "completion") || has(object, "chosen"))
    return ExampleForm::kPrompt;
  if (first_of(object, kTextFields)) return ExampleForm::kText;
  return std::nullopt;
}

std::vector<const char*> fields_read(const ordered_json& object, ExampleForm form) {
  std::vector<const char*> fields;
  switch (form) {
    case ExampleForm::kMessages: fields = {first_of(object, kAnyMessages)}; break;
    case ExampleForm::kShareGpt: fields = {first_of(object, kAnyShareGpt)}; break;
    case ExampleForm::kAlpaca:
      fields = {"instruction", first_of(object, kInputFields), first_of(object, kOutputFields)};
      break;
    case ExampleForm::kPrompt: fields = {"prompt", first_of(object, kAnswerFields)}; break;
    default: fields = {first_of(object, kTextFields)};
  }
  std::erase_if(fields, [&](const char* field) { return !field || !has(object, field); });
  return fields;
}

std::string listed(const std::vector<const char*>& fields, const char* what) {
  std::string text;
  for (size_t i = 0; i < fields.size(); ++i)
    text += fmt::format("{}\"{}\"", i == 0 ? "" : i + 1 < fields.size() ? ", " : " and ", fields[i]);
  return fmt::format("{} {} {}", text, fields.size() == 1 ? "is" : "are", what);
}

// Names the fields that hold an example of their own, or a part of one, and are not read.
std::string ignored_text(const ordered_json& object, ExampleForm form) {
  const std::vector<const char*> read = fields_read(object, form);
  std::vector<const char*> ignored;
  const auto add = [&](std::span<const char* const> fields) {
    for (const char* field : fields)
      if (has(object, field) && std::ranges::find(read, std::string_view(field)) == read.end() &&
          std::ranges::find(ignored, std::string_view(field)) == ignored.end())
        ignored.push_back(field);
  };
  add(kAnyMessages);
  if (has(object, "instruction")) {
    constexpr const char* kInstruction[] = {"instruction"};
    add(kInstruction);
    add(kInputFields);
    add(kOutputFields);
  }
  constexpr const char *kPrompt[] = {"prompt"}, *kRejected[] = {"rejected"};
  add(kPrompt);
  add(kAnswerFields);
  add(kRejected);
  add(kTextFields);
  return read.empty() || ignored.empty() ? "" : listed(read, "read") + ", " + listed(ignored, "ignored");
}

[[noreturn]] void unknown(const ordered_json& object, const std::string& name) {
  std::string found;
  for (const auto& item : object.items())
    if (found.size() < 200) found += (found.empty() ? "" : ", ") + item.key();
  fail(ErrorKind::kBadFile,
       "{}: no \"messages\", \"conversations\", \"instruction\" and \"output\", \"prompt\" and \"answer\" (or "
       "\"completion\"), "
       "\"text\" or \"content\"; found {}",
       name, found.empty() ? "no fields" : found);
}

}  // namespace

std::vector<Message> read_messages(ordered_json& list, const char* field, const std::string& name) {
  COCA_CHECK_AS(kBadFile, list.is_array(), "{}: field \"{}\" is {}; expected a list of messages", name, field,
                list.type_name());
  std::vector<Message> messages;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("{}: {}[{}]", name, field, i);
    ordered_json& object = list[i];
    COCA_CHECK_AS(kBadFile, object.is_object(), "{} is {}; expected an object with role and content", where,
                  object.type_name());
    const bool share = object.contains("from") && !object.contains("role");
    Message message;
    set_role(message, take_text(object, share ? "from" : "role", where), where);
    set_content(message, object, share ? "value" : "content", where);
    message.counts = weight_of(object, where);
    for (const char* more : {"tool_calls", "tool_call_id", "name", "reasoning_content", "thinking"})
      if (object.contains(more) && !object[more].is_null()) message.fields[more] = std::move(object[more]);
    messages.push_back(std::move(message));
  }
  return messages;
}

namespace {

Example read_as(ordered_json& object, const std::string& name, ExampleForm form) {
  const auto need = [&](std::span<const char* const> fields) {
    const char* const found = first_of(object, fields);
    if (!found) unknown(object, name);
    return found;
  };
  switch (form) {
    case ExampleForm::kMessages: return conversation(object, name, form, need(kAnyMessages));
    case ExampleForm::kShareGpt: return conversation(object, name, form, need(kAnyShareGpt));
    case ExampleForm::kAlpaca: return alpaca(object, name);
    case ExampleForm::kPrompt: return prompt_and_answer(object, name);
    default:
      return {
          .name = name, .form = ExampleForm::kText, .text = take_text(object, need(kTextFields), name), .messages = {}};
  }
}

}  // namespace

Example read_example(ordered_json& object, const std::string& name, ExampleForm form) {
  if (object.is_array() && !object.empty() && object[0].is_object())  // a conversation without a name
    object = ordered_json{{object[0].contains("from") ? "conversations" : "messages", std::move(object)}};
  COCA_CHECK_AS(kBadFile, object.is_object(), "{}: found {}; expected an object", name, object.type_name());
  if (form == ExampleForm::kAuto) {
    const auto found = form_of(object);
    if (!found) unknown(object, name);
    form = *found;
  }
  std::string ignored = ignored_text(object, form);
  Example example = read_as(object, name, form);
  example.ignored = std::move(ignored);
  example.blank =
      example.blank || (is_blank(example.text) && std::ranges::all_of(example.messages, [](const Message& m) {
                          return is_blank(m.content) && m.fields.empty();
                        }));
  return example;
}

}  // namespace coca::data
