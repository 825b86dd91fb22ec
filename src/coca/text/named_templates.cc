// coca/text/named_templates.cc - see named_templates.h. Newlines after blocks and blanks before them are not written.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/named_templates.h"

namespace coca::text {

namespace {

constexpr std::string_view kPlain = R"({% for message in messages %}
{% set text = message['content'] or '' %}
{% if message['tool_calls'] %}
{% set text = text + ('\n' if text else '') + message['tool_calls'] | tojson(separators=(',', ':')) %}
{% endif %}
{{ message['role'] + ': ' + text + (eos_token | default('') if message['role'] == 'assistant' else '\n') }}
{%- endfor %}
{% if add_generation_prompt %}
{{ 'assistant:' }}
{%- endif %})";

constexpr std::string_view kChatml = R"({% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{%- endif %})";

constexpr std::string_view kLlama2 = R"({% if messages and messages[0]['role'] == 'system' %}
{% set rest = messages[1:] %}
{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}
{% else %}
{% set rest = messages %}
{% set system = '' %}
{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate: user, assistant, user, ...') }}
{%- endif %}
{% set content = system + message['content'] if loop.index0 == 0 else message['content'] %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}
{{ ' ' + content.strip() + ' ' + eos_token }}
{%- else %}
{{ raise_exception('only user and assistant may follow the system message') }}
{%- endif %}
{% endfor %})";

constexpr std::string_view kLlama3 = R"({{ bos_token }}
{%- for message in messages %}
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %})";

constexpr std::string_view kMistral = R"({{ bos_token }}
{%- if messages and messages[0]['role'] == 'system' %}
{% set rest = messages[1:] %}
{% set system = messages[0]['content'] + '\n\n' %}
{% else %}
{% set rest = messages %}
{% set system = '' %}
{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate: user, assistant, user, ...') }}
{%- endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}
{%- else %}
{{ ' ' + message['content'] + eos_token }}
{%- endif %}
{% endfor %})";

constexpr std::string_view kZephyr = R"({% for message in messages %}
{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|assistant|>\n' }}
{%- endif %})";

constexpr std::string_view kGemma = R"({{ bos_token }}
{%- if messages and messages[0]['role'] == 'system' %}
{{ raise_exception('there is no system role') }}
{%- endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate: user, assistant, user, ...') }}
{%- endif %}
{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<start_of_turn>model\n' }}
{%- endif %})";

constexpr std::string_view kVicuna = R"({% if messages and messages[0]['role'] == 'system' %}
{% set rest = messages[1:] %}
{{ messages[0]['content'] }}
{%- else %}
{% set rest = messages %}
{{ "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions." }}
{%- endif %}
{% for message in rest %}
{% if message['role'] == 'user' %}
{{ (' ' if loop.first else '') + 'USER: ' + message['content'] }}
{%- else %}
{{ ' ASSISTANT: ' + message['content'] + eos_token }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ ' ASSISTANT:' }}
{%- endif %})";

constexpr std::string_view kAlpaca = R"({% if messages and messages[0]['role'] == 'system' %}
{% set rest = messages[1:] %}
{{ messages[0]['content'] + '\n\n' }}
{%- else %}
{% set rest = messages %}
{{ 'Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n' }}
{%- endif %}
{% for message in rest %}
{% if message['role'] == 'user' %}
{{ '### Instruction:\n' + message['content'] + '\n\n' }}
{%- else %}
{{ '### Response:\n' + message['content'] + eos_token + '\n\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '### Response:\n' }}
{%- endif %})";

constexpr NamedTemplate kTemplates[] = {
    {kPlainName, "", "", kPlain},         {"chatml", "", "<|im_end|>", kChatml},
    {"llama-2", "<s>", "</s>", kLlama2},  {"llama-3", "<|begin_of_text|>", "<|eot_id|>", kLlama3},
    {"mistral", "<s>", "</s>", kMistral}, {"zephyr", "<s>", "</s>", kZephyr},
    {"gemma", "<bos>", "<eos>", kGemma},  {"vicuna", "<s>", "</s>", kVicuna},
    {"alpaca", "<s>", "</s>", kAlpaca}};

}  // namespace

std::span<const NamedTemplate> named_templates() { return kTemplates; }

}  // namespace coca::text
