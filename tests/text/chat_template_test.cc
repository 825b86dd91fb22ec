// Chat templates: stored renderings of the jinja2 package, positions of answers, limits, and refused templates.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/chat_template.h"

#include "coca/io/json_file.h"
#include "coca/text/chat_choice.h"
#include "support/temp_dir.h"

namespace coca::text::chat_template_test {
namespace {

using nlohmann::json;
using test::error_of;
using test::get_file;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Messages = std::vector<ChatMessage>;

std::filesystem::path data(const std::string& name) {
  return std::filesystem::path(COCA_SOURCE_DIR) / "tests/stored/chat_templates" / name;
}

Messages messages_of(const json& list) {
  Messages out;
  for (const json& message : list) out.push_back({message["role"], message["content"]});
  return out;
}

ChatTemplate from_data(const std::string& name) {
  if (!name.ends_with(".jinja")) return ChatTemplate::named(name);
  ChatTemplate made = ChatTemplate::from_source(get_file(data(name)), name);
  made.set_token("bos_token", "<s>");
  made.set_token("eos_token", "</s>");
  return made;
}

TEST(ChatTemplate, RendersAsJinja2Does) {
  const json conversations = io::read_json(data("messages.json")), golden = io::read_json(data("golden.json"));
  ASSERT_GT(golden.size(), 100u);
  for (const json& row : golden) {
    const std::string name = row[0];
    SCOPED_TRACE(name + ", conversation " + row[1].dump() + ", prompt " + row[2].dump());
    const ChatTemplate made = from_data(name);
    const Messages messages = messages_of(conversations[row[1].get<size_t>()]);
    ChatOptions options;
    if (row[2].get<bool>()) options.prompt = GenerationPrompt::kAdd;
    if (row[3].is_string())
      EXPECT_EQ(made.render(messages, options), row[3].get<std::string>());
    else
      EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { made.render(messages, options); }),
                  HasSubstr(row[3]["refused"].get<std::string>()));
  }
}

TEST(ChatTemplate, RendersEachConstructAsJinja2Does) {
  const Messages messages = {{"user", "Hi there"}, {"assistant", "Yo"}};
  for (const json& row : io::read_json(data("constructs.json"))) {
    const std::string source = row[0];
    SCOPED_TRACE(source);
    EXPECT_EQ(ChatTemplate::from_source(source, "t.jinja").render(messages), row[1].get<std::string>());
  }
}

const Messages kTalk = {{"system", "S"}, {"user", "a"}, {"assistant", "first"}, {"user", "b"}, {"assistant", "second"}};

std::vector<std::string> answers_of(const ChatTemplate& made, const Messages& messages) {
  const RenderedChat chat = made.render_with_answers(messages);
  std::vector<std::string> out;
  for (const AnswerSpan& span : chat.answers) out.push_back(chat.text.substr(span.begin, span.end - span.begin));
  return out;
}

TEST(ChatTemplate, PlacesOfAnswers) {
  EXPECT_THAT(answers_of(from_data("chatml"), kTalk), ElementsAre("first<|im_end|>", "second<|im_end|>"));
  EXPECT_THAT(answers_of(from_data("llama-3"), kTalk), ElementsAre("first<|eot_id|>", "second<|eot_id|>"));
  EXPECT_THAT(answers_of(from_data("llama-2"), kTalk), ElementsAre(" first </s>", " second </s>"));
  EXPECT_THAT(answers_of(from_data("mistral"), kTalk), ElementsAre(" first</s>", " second</s>"));
  EXPECT_THAT(answers_of(from_data("vicuna"), kTalk), ElementsAre(" first</s>", " second</s>"));
  EXPECT_THAT(answers_of(from_data("alpaca"), kTalk), ElementsAre("first</s>", "second</s>"));
  EXPECT_THAT(answers_of(from_data("zephyr"), kTalk), ElementsAre("first</s>", "second</s>"));
  EXPECT_THAT(answers_of(from_data("qwen2_5.jinja"), kTalk), ElementsAre("first<|im_end|>", "second<|im_end|>"));
  EXPECT_THAT(answers_of(from_data("generation.jinja"), kTalk), ElementsAre("first</s>", "second</s>"));
  EXPECT_THAT(answers_of(from_data("chatml"), {{"user", "a"}, {"assistant", "ends blank \n"}}),
              ElementsAre("ends blank \n<|im_end|>"));
  EXPECT_THAT(answers_of(from_data("chatml"), {{"user", "a"}}), ElementsAre());
}

// Templates like published ones, which change earlier turns once later turns follow, or whose answers begin differently
// from the generation prompt.
constexpr const char* kQwen3 = R"({%- set ns = namespace(last=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}
{%- set content = m.content %}{% set thoughts = '' %}
{%- if '</think>' in content %}
{%- set thoughts = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\n') %}
{%- endif %}
{%- if loop.index0 > ns.last %}
{{- '<|im_start|>assistant\n<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
{%- else %}
{{- '<|im_start|>assistant\n' + content }}
{%- endif %}
{%- for call in m.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' ~ call.function.name ~ '", "arguments": ' ~ (call.function.arguments | tojson) ~ '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{% endif %}{% endif %})";

constexpr const char* kR1 =
    R"({{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}{{- '<|User|>' + m.content }}
{%- else %}{% set content = m.content %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<|Assistant|>' + content + '<|end_of_sentence|>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{- '<|Assistant|><think>\n' }}{% endif %})";

// The system message is part of the last user turn, and blanks around answers are removed.
constexpr const char* kMistralTekken =
    R"({%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}
{{- bos_token }}{% for m in rest %}
{%- if m.role == 'user' %}
{%- if system is defined and rest[loop.index0:] | selectattr('role', 'equalto', 'user') | list | length == 1 %}
{{- '[INST]' + system + '\n\n' + m.content + '[/INST]' }}
{%- else %}{{- '[INST]' + m.content + '[/INST]' }}{% endif %}
{%- elif m.role == 'assistant' %}{{- ' ' + m.content | trim + eos_token }}
{%- else %}{{- raise_exception('no such role') }}{% endif %}
{%- endfor %})";

// Another name for a role, a date, and a token that appears only between turns and therefore looks like the start of
// the next turn.
constexpr const char* kGemmaStyle =
    R"({{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim }}{% if not loop.last %}{{ '<end_of_turn>\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<end_of_turn>\n<start_of_turn>model\n' }}{% endif %})";

// Answers start with a tag that the generation prompt lacks, and a token ends the conversation.
constexpr const char* kCommandStyle =
    R"({% for m in messages %}<|START_OF_TURN|>{% if m.role == 'assistant' %}<|CHATBOT|><|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>{% else %}<|USER|>{{ m.content }}{% endif %}<|END_OF_TURN|>{% endfor %}
{%- if add_generation_prompt %}<|START_OF_TURN|><|CHATBOT|>{% else %}<eos>{% endif %})";

// The last turn ends with a different token.
constexpr const char* kReturnStyle =
    R"({% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}{% if loop.last and not add_generation_prompt and m.role == 'assistant' %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %})";

// The result of a tool names the function that was called.
constexpr const char* kResponseStyle =
    R"({% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}<|{{ m.role }}|>{% if m.tool_calls %}<call>{{ m.tool_calls[0].function.name }}</call>
{%- if not loop.last %}<response>{{ m.tool_calls[0].function.name }}={{ loop.nextitem.content }}</response>{% endif %}{% else %}{{ m.content }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %})";

ChatTemplate from_text(const char* source) {
  ChatTemplate made = ChatTemplate::from_source(source, "t.jinja");
  made.set_token("bos_token", "<s>");
  made.set_token("eos_token", "</s>");
  return made;
}

TEST(ChatTemplate, PlacesOfAnswersThatTheTemplateRewrites) {
  EXPECT_THAT(answers_of(from_data("thinking.jinja"),
                         {{"user", "a"}, {"assistant", "<think>x</think>y"}, {"user", "b"}, {"assistant", "z"}}),
              ElementsAre("y<|im_end|>", "<think>\n\n</think>\n\nz<|im_end|>"));
  const Messages thoughts = {{"user", "a"},
                             {"assistant", "<think>\nx y\n</think>\n\nfirst one"},
                             {"user", "b"},
                             {"assistant", "<think>\nu v\n</think>\n\nsecond"}};
  EXPECT_THAT(answers_of(from_text(kQwen3), kTalk),
              ElementsAre("first<|im_end|>", "<think>\n\n</think>\n\nsecond<|im_end|>"));
  EXPECT_THAT(answers_of(from_text(kQwen3), thoughts),
              ElementsAre("first one<|im_end|>", "<think>\nu v\n</think>\n\nsecond<|im_end|>"));
  EXPECT_THAT(answers_of(from_text(kR1), kTalk), ElementsAre("first<|end_of_sentence|>", "second<|end_of_sentence|>"));
  EXPECT_THAT(answers_of(from_text(kR1), thoughts),
              ElementsAre("\n\nfirst one<|end_of_sentence|>", "\n\nsecond<|end_of_sentence|>"));
  EXPECT_THAT(answers_of(from_text(kMistralTekken), kTalk), ElementsAre(" first</s>", " second</s>"));
  EXPECT_THAT(
      answers_of(
          from_text(kMistralTekken),
          {{"system", "S"}, {"user", "first"}, {"assistant", " first\n"}, {"user", "first"}, {"assistant", "first"}}),
      ElementsAre(" first</s>", " first</s>"));
  EXPECT_THAT(answers_of(from_text(kGemmaStyle), kTalk), ElementsAre("first", "second"));
  EXPECT_THAT(answers_of(from_text(kCommandStyle), kTalk),
              ElementsAre("<|START_RESPONSE|>first<|END_RESPONSE|><|END_OF_TURN|>",
                          "<|START_RESPONSE|>second<|END_RESPONSE|><|END_OF_TURN|><eos>"));
  EXPECT_THAT(answers_of(from_text(kReturnStyle), kTalk),
              ElementsAre("<|message|>first<|end|>", "<|message|>second<|return|>"));
  // Neither a question that repeats an answer nor an answer that looks like a turn is misinterpreted.
  EXPECT_THAT(
      answers_of(
          from_data("chatml"),
          {{"user", "yes"}, {"assistant", "yes"}, {"user", "yes"}, {"assistant", "<|im_start|>user\nyes<|im_end|>"}}),
      ElementsAre("yes<|im_end|>", "<|im_start|>user\nyes<|im_end|><|im_end|>"));
  EXPECT_THAT(answers_of(from_data("chatml"), {{"user", "a"}, {"assistant", ""}}), ElementsAre("<|im_end|>"));
  EXPECT_THAT(answers_of(from_data("chatml"), {{"user", "a"}, {"assistant", "\xf3\xb0\x80\x80 x"}}),
              ElementsAre("\xf3\xb0\x80\x80 x<|im_end|>"));
}

TEST(ChatTemplate, AnswersThatCallTools) {
  const nlohmann::ordered_json calls = {
      {{"type", "function"}, {"function", {{"name", "add"}, {"arguments", {{"x", 1}, {"y", 2}}}}}}};
  const Messages talk = {
      {"user", "1+2?"}, {"assistant", "", {{"tool_calls", calls}}}, {"tool", "3"}, {"assistant", "It is 3."}};
  EXPECT_THAT(answers_of(from_text(kQwen3), talk),
              ElementsAre("<think>\n\n</think>\n\n\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"x\": 1, \"y\": "
                          "2}}\n</tool_call><|im_end|>",
                          "<think>\n\n</think>\n\nIt is 3.<|im_end|>"));
  EXPECT_THAT(answers_of(from_text(kResponseStyle), talk), ElementsAre("<call>add</call>", "It is 3."));
  const ChatTemplate none =
      ChatTemplate::from_source("{% for m in messages %}{{ m.content is none }}{% endfor %}", "t");
  EXPECT_EQ(none.render(Messages{{"assistant", "", {{"content", nullptr}}}}), "True");
}

TEST(ChatTemplate, AmbiguousPositionsOfAnswersAreErrors) {
  // The lengths differ between marked and plain answers, so the positions cannot be determined.
  const ChatTemplate made = ChatTemplate::from_source(
      "{{ messages | length }}{% for m in messages %}{{ m.role ~ m.content ~ (m.content | length) }};{% endfor %}",
      "t.jinja");
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { made.render_with_answers(kTalk); }),
              AllOf(HasSubstr("t.jinja"), HasSubstr("message 3"), HasSubstr("generation")));
  const ChatTemplate deaf = ChatTemplate::from_source("{{ messages | length }}", "t.jinja");
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { deaf.render_with_answers(kTalk); }),
              HasSubstr("none of the answers"));
}

// Pieces of role names and the like are no answers, whether or not marks around answers stay where they are.
TEST(ChatTemplate, PlacesOfAnswersHoldTheirText) {
  const Messages talk = {{"user", "What?"}, {"assistant", "A cat \"sat\"."}};
  const auto refused_as = [&](const char* source) {
    return error_of(ErrorKind::kInvalidArgument, [&] { from_text(source).render_with_answers(talk); });
  };
  for (const char* source : {"{% for m in messages %}{{ m.role }}{% endfor %}",
                             "{% for m in messages %}{{ m.role ~ loop.index }}\n{% endfor %}",
                             "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
                             "{% for m in messages %}{{ m.content[:0] ~ m.role }}{% endfor %}",
                             "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}"})
    EXPECT_THAT(refused_as(source), HasSubstr("none of the answers")) << source;
  EXPECT_THAT(refused_as("{% for m in messages %}{{ m.role ~ (m.content | length) }}{% endfor %}"),
              HasSubstr("cannot be told"));
  EXPECT_THAT(answers_of(from_text("{% for m in messages %}{{ m.role ~ ':' ~ (m.content | upper) }}\n{% endfor %}"
                                   "{% if add_generation_prompt %}assistant:{% endif %}"),
                         talk),
              ElementsAre("A CAT \"SAT\"."));
  EXPECT_THAT(answers_of(from_text("{% for m in messages %}{{ m.content }};{% endfor %}"),
                         {{"user", "a"}, {"assistant", "<br>"}}),
              ElementsAre("<br>;"));
}

TEST(ChatTemplate, VariablesAndTime) {
  const ChatTemplate made = ChatTemplate::from_source("{{ strftime_now('%Y') }} {{ x.y[1] }}{{ tools is none }}", "t");
  ChatOptions options;
  options.now = 1'700'000'000;
  options.variables = {{"x", {{"y", {1, 2}}}}};
  EXPECT_EQ(made.render({}, options), "2023 2True");
}

std::string refused(const std::string& source, ErrorKind kind = ErrorKind::kBadFile) {
  const Messages messages = {{"user", "a"}};
  return error_of(kind, [&] { ChatTemplate::from_source(source, "t.jinja").render(messages); });
}

TEST(ChatTemplate, NamesUndefinedVariables) {
  for (const char* use : {"'a' + eos_token", "eos_token + 'a'", "2 * eos_token", "-eos_token", "eos_token < 1",
                          "eos_token - 1", "eos_token.x", "eos_token[0]", "eos_token | abs", "[eos_token, 1] | sort",
                          "'%d' % eos_token", "'a' * eos_token", "eos_token[1:2]", "range(eos_token)"})
    EXPECT_THAT(refused(fmt::format("{{% if true %}}\n{{{{ {} }}}}{{% endif %}}", use)),
                AllOf(HasSubstr("line 2: "), HasSubstr("\"eos_token\" is not defined"),
                      HasSubstr("define it with --chat-var eos_token=VALUE, or in tokenizer_config.json")))
        << use;
  EXPECT_THAT(refused("{{ 'a' + messages[0]['text'] }}"),
              AllOf(HasSubstr("line 1: \"text\" is not defined"), testing::Not(HasSubstr("--chat-var"))));
  EXPECT_THAT(refused("{{ 1 + date }}"),
              AllOf(HasSubstr("--chat-var date=VALUE"), testing::Not(HasSubstr("tokenizer"))));
}

TEST(ChatTemplate, RefusesWhatItDoesNotKnowByNameAndPlace) {
  EXPECT_THAT(refused("a\n{% include 'x' %}"),
              AllOf(HasSubstr("t.jinja: line 2"), HasSubstr("{% include %} is not supported")));
  for (const char* name : {"extends", "block", "import", "from", "do", "autoescape", "trans"})
    EXPECT_THAT(refused(std::string("{% ") + name + " x %}"), HasSubstr(name));
  EXPECT_THAT(refused("\n\n{{ 'a' | xmlattr }}"), AllOf(HasSubstr("line 3"), HasSubstr("filter \"xmlattr\"")));
  EXPECT_THAT(refused("{{ 1 is prime }}"), HasSubstr("test \"prime\""));
  EXPECT_THAT(refused("{{ 'a'.encode() }}"), HasSubstr("encode"));
  EXPECT_THAT(refused("{{ [1].append(2) }}"), HasSubstr("append"));
  EXPECT_THAT(refused("{{ cycler('a') }}"), HasSubstr("cycler"));
  EXPECT_THAT(refused("{{ nothing.at_all }}"), HasSubstr("\"nothing\" is not defined"));
  EXPECT_THAT(refused("{{ dict(**[1]) }}"), HasSubstr("** of list"));
  EXPECT_THAT(refused("{% for x in [1] %}{{ loop([1]) }}{% endfor %}"), HasSubstr("recursive"));
  EXPECT_THAT(refused("{{ 'a' + 1 }}"), HasSubstr("str + int"));
  EXPECT_THAT(refused("{{ 'a' * 'b' }}"), HasSubstr("str * str"));
  EXPECT_THAT(refused("{{ {[1]: 2} }}"), HasSubstr("list cannot be a key"));
  EXPECT_THAT(refused("{{ [1, 'a'] | sort }}"), HasSubstr("no order"));
  EXPECT_THAT(refused("{{ '%d' % 'a' }}"), HasSubstr("not a number"));
  EXPECT_THAT(refused("{{ '%s %s' % 'a' }}"), HasSubstr("more places"));
  EXPECT_THAT(refused("{{ '{}'.format() }}"), HasSubstr("no value"));
  EXPECT_THAT(refused("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}"), HasSubstr("too many arguments"));
  EXPECT_THAT(refused("{% macro m(a) %}{% endmacro %}{{ m(b=2) }}"), HasSubstr("no parameter"));
  EXPECT_THAT(refused("{{ 1 // 0 }}"), HasSubstr("division"));
  EXPECT_THAT(refused("{{ 'a' < 1 }}"), HasSubstr("str < int"));
  EXPECT_THAT(refused("{{ messages[99]['content'] }}"), HasSubstr("messages has 1 item; there is no item 99"));
  EXPECT_THAT(refused("{{ messages[-2].content }}"), HasSubstr("messages has 1 item; there is no item -2"));
  EXPECT_THAT(refused("{{ [1, 2][2] + 1 }}"), HasSubstr("the list has 2 items; there is no item 2"));
  EXPECT_THAT(refused("{{ messages[0].__class__.__mro__ }}"), HasSubstr("not defined"));
}

// A float in its place would write other digits than Python, whose whole numbers have no end.
TEST(ChatTemplate, RefusesWholeNumbersBeyond64Bits) {
  constexpr const char* kLeast = "(-9223372036854775807 - 1)";
  EXPECT_THAT(refused("{{ 2 ** 100 }}"), HasSubstr("2 ** 100 is too large"));
  EXPECT_THAT(refused("{{ 2 ** 63 }}"), HasSubstr("2 ** 63 is too large"));
  EXPECT_THAT(refused("{{ (-3) ** 41 }}"), HasSubstr("-3 ** 41 is too large"));
  EXPECT_THAT(refused(fmt::format("{{{{ -{} }}}}", kLeast)), HasSubstr("is too large"));
  EXPECT_THAT(refused(fmt::format("{{{{ {} | abs }}}}", kLeast)), HasSubstr("is too large"));
  EXPECT_THAT(refused("{{ [9223372036854775807, 1] | sum }}"), HasSubstr("too large"));
  EXPECT_THAT(refused("{{ 1e30 | int }}"), HasSubstr("int: 1e+30 is too large"));
  EXPECT_THAT(refused("{{ '9223372036854775808' | int }}"), HasSubstr("is too large"));
  EXPECT_EQ(from_text("{{ '9223372036854775807' | int }}").render(Messages{}), "9223372036854775807");
  EXPECT_THAT(refused("{{ 0 ** -1 }}"), HasSubstr("division by zero"));
  EXPECT_EQ(from_text("{{ 2 ** 62 }} {{ (-2) ** 63 }} {{ 7 ** 0 }} {{ 1 ** 9000000000 }} {{ 2 ** -1 }}").render({}),
            "4611686018427387904 -9223372036854775808 1 1 0.5");
}

TEST(ChatTemplate, RefusesWrongSyntax) {
  for (const char* source : {"{{",
                             "{{ 1",
                             "{{ 'a }}",
                             "{% if true %}",
                             "{% if %}{% endif %}",
                             "{% endif %}",
                             "{% else %}",
                             "{% for x in %}{% endfor %}",
                             "{% for x in [1] %}",
                             "{% set %}",
                             "{% set x %}",
                             "{{ (1 }}",
                             "{{ [1, }}",
                             "{{ {1 }}",
                             "{{ 1 2 }}",
                             "{{ a. }}",
                             "{# open",
                             "{% raw %}",
                             "{% break %}",
                             "{% macro m( %}",
                             "{{ x ! y }}",
                             "{% %}",
                             "{{ }}",
                             "{{ 99999999999999999999 }}",
                             "{{ '\\xzz' }}",
                             "{% if true %}{% endfor %}",
                             "{{ a[] }}",
                             "{{ f(a=1, 2) }}",
                             "\xff"})
    EXPECT_THAT(refused(source), HasSubstr("t.jinja")) << source;
}

TEST(ChatTemplate, HostileTemplatesEnd) {
  EXPECT_THAT(refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
              HasSubstr("steps"));
  EXPECT_THAT(
      refused(
          "{% set n = namespace(s='0123456789abcdef') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}"),
      HasSubstr("line 1"));
  EXPECT_THAT(
      refused("{% set n = namespace(l=[1]) %}{% for a in range(99) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}"),
      HasSubstr("at most"));
  EXPECT_THAT(refused("{% set n = namespace(l=[1]) %}{% for a in range(999) %}{% set n.l = [n.l] %}{% endfor %}"),
              HasSubstr("nested"));
  EXPECT_THAT(refused("{% set n = namespace() %}{% set n.me = n %}"), HasSubstr("namespace"));
  EXPECT_THAT(refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("macros"));
  EXPECT_THAT(refused("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"), HasSubstr("deep"));
  EXPECT_THAT(refused("{{ 'ab' * 999999999 }}"), HasSubstr("line 1"));
  EXPECT_THAT(refused("{{ [1] * 999999999 }}"), HasSubstr("steps"));
  EXPECT_THAT(refused("{{ '%999999999d' % 1 }}"), HasSubstr("width"));
  EXPECT_THAT(refused("{{ '{:999999999}'.format(1) }}"), HasSubstr("width"));
  EXPECT_THAT(refused("{{ 'a'.center(999999999) }}"), HasSubstr("width"));
  EXPECT_THAT(
      refused(
          "{% macro m() %}{% set n.f = caller %}{% endmacro %}{% set n = namespace() %}{% call m() %}{% endcall %}"),
      HasSubstr("namespace"));
  EXPECT_THAT(refused("{{ range(1000000000) }}"), HasSubstr("range"));
  EXPECT_THAT(refused("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}"), HasSubstr("deeper"));
  EXPECT_THAT(refused("{{ " + std::string(5000, '-') + "1 }}"), HasSubstr("deeper"));
  EXPECT_THAT(refused("{{ " + std::string(20000, '[') + std::string(20000, ']') + " }}"), HasSubstr("deeper"));
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += "{% if true %}";
  EXPECT_THAT(refused(nested), HasSubstr("deeper"));
  EXPECT_THAT(refused(std::string(2 << 20, 'x')), HasSubstr("at most"));
  EXPECT_THAT(refused("{{ raise_exception('no ' ~ 'thanks') }}", ErrorKind::kInvalidArgument), HasSubstr("no thanks"));
}

TEST(ChatTemplate, OfAFolder) {
  TempDir dir;
  EXPECT_FALSE(load_chat_template(dir.path()));
  put_file(dir / "tokenizer_config.json", R"({"bos_token": "<b>", "eos_token": {"content": "<e>"}, "pad_token": null,
    "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"})");
  const Messages messages = {{"user", "x"}};
  EXPECT_EQ(load_chat_template(dir.path())->render(messages), "<b>x<e>");
  put_file(dir / "chat_template.jinja", "file {{ bos_token }}\n");
  EXPECT_EQ(load_chat_template(dir.path())->render(messages), "file <b>");
  std::filesystem::remove(dir / "chat_template.jinja");
  put_file(dir / "tokenizer_config.json",
           R"({"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]})");
  EXPECT_EQ(load_chat_template(dir.path())->render(messages), "D");
  EXPECT_EQ(load_chat_template(dir.path(), "tool_use")->render(messages), "T");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_chat_template(dir.path(), "rag"); }),
              AllOf(HasSubstr("rag"), HasSubstr("tool_use")));
  // chat_template.json takes precedence over tokenizer_config.json, and chat_template.jinja over both. The tokens come
  // from the folder.
  put_file(dir / "tokenizer_config.json", R"({"bos_token": "<b>", "chat_template": "C"})");
  put_file(dir / "chat_template.json", R"({"chat_template": "json {{ bos_token }}"})");
  EXPECT_EQ(load_chat_template(dir.path())->render(messages), "json <b>");
  put_file(dir / "chat_template.json",
           R"({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  EXPECT_EQ(load_chat_template(dir.path())->render(messages), "D");
  EXPECT_EQ(load_chat_template(dir.path(), "tool_use")->render(messages), "T");
  put_file(dir / "chat_template.jinja", "J");
  EXPECT_EQ(load_chat_template(dir.path())->render(messages), "J");
  std::filesystem::remove(dir / "chat_template.jinja");
  std::filesystem::rename(dir / "tokenizer_config.json", dir / "elsewhere.json");
  EXPECT_EQ(load_chat_template(dir.path())->render(messages), "D");
  std::filesystem::rename(dir / "elsewhere.json", dir / "tokenizer_config.json");
  for (const char* nothing : {R"({})", R"({"chat_template": null})"}) {
    put_file(dir / "chat_template.json", nothing);
    EXPECT_EQ(load_chat_template(dir.path())->render(messages), "C") << nothing;
  }
  put_file(dir / "chat_template.json", R"({"chat_template": 3})");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_chat_template(dir.path()); }), HasSubstr("chat_template.json"));
  put_file(dir / "chat_template.json", R"({"chat_template": [{"name": "rag", "template": "R"}]})");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_chat_template(dir.path()); }),
              AllOf(HasSubstr("default"), HasSubstr("rag")));
  put_file(dir / "own.json", R"({"chat_template": "own"})");
  EXPECT_EQ(choose_chat_template((dir / "own.json").string(), dir.path())->render(messages), "own");
  put_file(dir / "own.jinja", "{{ eos_token }}");
  put_file(dir / "other/tokenizer_config.json", R"({"eos_token": {"content": "it's\\"}})");
  const ChatTemplate chosen = *choose_chat_template((dir / "own.jinja").string(), dir / "other");
  EXPECT_EQ(chosen.render(messages), "it's\\") << "with the tokens of the folder";
  EXPECT_EQ(ChatTemplate::from_source(chosen.source_with_tokens(), "t").render(messages), "it's\\");
  put_file(dir / "other/chat_template.jinja", "O");
  EXPECT_EQ(choose_chat_template("auto", dir.path(), dir / "other")->render(messages), "O") << "an adapter's first";
  EXPECT_EQ(choose_chat_template("auto", dir / "other", dir / "none")->render(messages), "O");
  put_file(dir / "own.json", R"({"template": "own"})");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { choose_chat_template((dir / "own.json").string(), dir.path()); }),
              AllOf(HasSubstr("own.json"), HasSubstr("chat_template")));
  std::filesystem::remove(dir / "chat_template.json");
  put_file(dir / "tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_chat_template(dir.path()); }), HasSubstr("chat_template"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [] { ChatTemplate::named("none"); }),
              AllOf(HasSubstr("none"), HasSubstr("chatml")));
}

}  // namespace
}  // namespace coca::text::chat_template_test
