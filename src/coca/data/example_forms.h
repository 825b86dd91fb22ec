// coca/data/example_forms.h - an example for fine-tuning, and the JSON forms in which examples are stored.
// docs/data.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"

namespace coca::data {

enum class Role : uint8_t { kSystem, kUser, kAssistant, kTool };
enum class Counts : uint8_t { kNo, kYes };  // in the loss

struct Message {
  Role role = Role::kUser;
  std::string content;
  Counts counts = Counts::kYes;  // of an answer: its weight, 0 or 1
  std::string role_name;         // the name in the file, if it is not the role's own ("developer")
  // Other fields that a chat template may use: "tool_calls", "name", "reasoning_content"; "content" if it is null.
  nlohmann::ordered_json fields = nlohmann::ordered_json::object();
};

enum class ExampleForm : uint8_t {
  kAuto,      // by the fields of each example
  kMessages,  // messages (or chat_rounds) with role and content
  kShareGpt,  // conversations (or conversation) with from and value
  kAlpaca,    // instruction, input, output, in the published prompts
  kPrompt,    // prompt and answer, completion, response or chosen
  kText,      // text or content
};

struct Example {
  std::string name;  // "file.jsonl:17"
  ExampleForm form = ExampleForm::kText;
  std::string text;               // kText only
  std::vector<Message> messages;  // kAlpaca, and kPrompt of texts: [system,] user, assistant
  std::string asked;              // kAlpaca: instruction and input, without the prompt around them
  bool joined = false;            // whether the texts of the messages are joined as they are: no chat template
  bool blank = false;             // whether there is nothing but white space in all its texts
  std::string ignored;            // where other fields could be meant: "\"messages\" is read, \"prompt\" is ignored"
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();  // for the chat template: "tools"
};

// The messages of a list; `field` is its name in errors. The strings are moved out of the list.
std::vector<Message> read_messages(nlohmann::ordered_json& list, const char* field, const std::string& name);

// `name` is the example's; errors (kBadFile) begin with it and name the field. kAuto selects the first of the forms
// above that has the object's fields; a field that is null counts as absent. The object's strings are moved out.
Example read_example(nlohmann::ordered_json& object, const std::string& name, ExampleForm form);

}  // namespace coca::data

COCA_ENUM_NAMES(coca::data::ExampleForm, "format", {coca::data::ExampleForm::kAuto, "auto"},
                {coca::data::ExampleForm::kMessages, "messages"}, {coca::data::ExampleForm::kShareGpt, "sharegpt"},
                {coca::data::ExampleForm::kAlpaca, "alpaca"}, {coca::data::ExampleForm::kPrompt, "prompt"},
                {coca::data::ExampleForm::kText, "text"})
