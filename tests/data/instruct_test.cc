// SPDX-License-Identifier: Apache-2.0
#include "coca/data/instruct.h"
#include "coca/data/overlap.h"

#include "support/faults.h"
#include "support/temp_dir.h"

namespace coca::data::instruct_test {
namespace {

using test::error_of;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<Example> read(const std::filesystem::path& file, ReadReport* report = nullptr,
                          ExampleForm form = ExampleForm::kAuto) {
  std::vector<Example> all;
  const ReadReport r =
      read_examples({.inputs = {file.string()}, .form = form}, [&](Example&& e) { all.push_back(std::move(e)); });
  if (report) *report = r;
  return all;
}

// The example's text with [ ] around the tokens that count, | for eos and ^ for bos.
std::string shown(const Example& example, std::optional<int32_t> bos = std::nullopt,
                  const ChatTemplate& chat = plain_chat) {
  const auto tokenizer = text::make_byte_tokenizer();
  const TokenDocument d = encode_segments(segments_of(example, chat), *tokenizer, bos);
  std::string out;
  bool inside = false;
  for (size_t i = 0; i < d.ids.size(); ++i) {
    if (d.counts[i] != inside) out += d.counts[i] ? "[" : "]";
    inside = d.counts[i];
    out += d.ids[i] < 256 ? static_cast<char>(d.ids[i]) : i == 0 ? '^' : '|';
  }
  return out + (inside ? "]" : "");
}

TEST(Instruct, EveryFormAndWhatCounts) {
  TempDir dir;
  put_file(dir / "x.jsonl",
           "{\"prompt\":\"2+2=\",\"answer\":\" 4\"}\n"
           "{\"system\":\"Be brief.\",\"prompt\":\"Hi\",\"answer\":\"!\",\"id\":7}\n\n"
           "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"},"
           "{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"v\"},{\"role\":\"assistant\","
           "\"content\":\"b\"},"
           "{\"role\":\"user\",\"content\":\"unanswered\"}]}\n"
           "{\"id\":1,\"data_name\":\"d\",\"chat_rounds\":[{\"role\":\"human\",\"content\":\"u\"},{\"role\":\"bot\","
           "\"content\":\"a\"}]}\n"
           "{\"text\":\"plain\"}\n{\"content\":\"same\"}\n");
  ReadReport report;
  const std::vector<Example> all = read(dir / "x.jsonl", &report);
  ASSERT_EQ(all.size(), 6u);
  EXPECT_EQ(shown(all[0]), "2+2=[ 4|]");
  EXPECT_EQ(shown(all[1]), "Be brief.\nHi[!|]");
  EXPECT_EQ(shown(all[2]), "system: s\nuser: u\nassistant:[ a|]user: v\nassistant:[ b|]");
  EXPECT_EQ(shown(all[3]), "user: u\nassistant:[ a|]");
  EXPECT_EQ(shown(all[4]), "[plain|]");
  EXPECT_EQ(shown(all[5]), "[same|]");
  EXPECT_EQ(shown(all[0], 256), "^2+2=[ 4|]");
  EXPECT_EQ(all[2].name, (dir / "x.jsonl").string() + ":4");
  EXPECT_EQ(report.files, 1);
  EXPECT_EQ(report.examples, 6);
  EXPECT_EQ(report.skipped_lines, 1);
}

TEST(Instruct, AChatTemplateSaysWhichPlacesAreAnswers) {
  const Example example{
      .name = "x.jsonl:1",
      .form = ExampleForm::kMessages,
      .text = "",
      .messages = {{Role::kUser, "u"}, {Role::kAssistant, "a"}, {Role::kUser, "v"}, {Role::kAssistant, "b"}}};
  const auto segments = segments_of(example, chat_by(text::ChatTemplate::named("chatml")));
  std::string shown;
  for (const Segment& s : segments) shown += s.counts == Counts::kYes ? "[" + s.text + "]" : s.text;
  EXPECT_THAT(shown, HasSubstr("<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>"));
  EXPECT_THAT(shown, HasSubstr("<|im_start|>assistant\n[b<|im_end|>"));
  EXPECT_EQ(segments.size(), 4u);
  const auto tokenizer = text::make_byte_tokenizer();
  EXPECT_NE(encode_segments(segments, *tokenizer, 256).ids.front(), 256);  // the template writes its own bos
  const auto refuses = chat_by(text::ChatTemplate::from_source("{{ raise_exception('no') }}", "t.jinja"));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { segments_of(example, refuses); }), HasSubstr("x.jsonl:1: "));
}

// Other programs read the plain template's source; it writes what plain_chat writes.
TEST(Instruct, ThePlainTemplateAsJinja) {
  const std::vector<Message> talk = {
      {Role::kSystem, "s"},
      {Role::kUser, "u"},
      {.role = Role::kAssistant, .content = "a", .fields = {{"tool_calls", {{{"name", "f"}, {"value", {1, 2}}}}}}},
      {Role::kTool, "t"},
      {Role::kAssistant, "b"}};
  auto jinja = text::ChatTemplate::named("plain");
  EXPECT_TRUE(jinja.is_plain());
  EXPECT_FALSE(text::ChatTemplate::named("chatml").is_plain());
  jinja.set_token("eos_token", "$");
  std::string written;
  for (const Segment& s : plain_chat(talk)) written += s.text + (s.close == Close::kEos ? "$" : "");
  EXPECT_THAT(written, HasSubstr(R"(a)"
                                 "\n"
                                 R"([{"name":"f","value":[1,2]}]$tool: t)"));
  EXPECT_EQ(jinja.render(chat_messages(talk, jinja)), written);
  std::string prompt;
  for (const Segment& s : plain_prompt({{Role::kUser, "u"}})) prompt += s.text;
  EXPECT_EQ(prompt, "user: u\nassistant:");
  EXPECT_EQ(jinja.render(std::vector<text::ChatMessage>{{"user", "u"}}, {.prompt = text::GenerationPrompt::kAdd}),
            prompt);
}

TEST(Instruct, CommonForms) {
  TempDir dir;
  const auto one = [&](const std::string& json, ExampleForm form = ExampleForm::kAuto) {
    put_file(dir / "x.json", json);
    const std::vector<Example> all = read(dir / "x.json", nullptr, form);
    EXPECT_EQ(all.size(), 1u);
    return all.at(0);
  };
  // ShareGPT
  EXPECT_EQ(
      shown(one(
          R"({"conversations":[{"from":"system","value":"s"},{"from":"human","value":"u"},{"from":"gpt","value":"a"}]})")),
      "system: s\nuser: u\nassistant:[ a|]");
  EXPECT_EQ(one(R"({"system":"s","conversations":[{"from":"human","value":"u"},{"from":"gpt","value":"a"}]})").form,
            ExampleForm::kShareGpt);
  EXPECT_EQ(
      shown(one(
          R"({"system":"s","conversations":[{"from":"human","value":"u"},{"from":"function_call","value":"call f"},{"from":"observation","value":"3"},{"from":"gpt","value":"a"}]})")),
      "system: s\nuser: u\nassistant:[ call f|]tool: 3\nassistant:[ a|]");
  // Alpaca, with the published prompts
  EXPECT_EQ(shown(one(R"({"instruction":"Add.","input":"1 2","output":"3"})")),
            "Below is an instruction that describes a task, paired with an input that provides further context. Write "
            "a response that "
            "appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:[3|]");
  EXPECT_EQ(shown(one(R"({"instruction":"Hi.","input":"","output":"Ho","text":"other"})")),
            "Below is an instruction that describes a task. Write a response that appropriately completes the "
            "request.\n\n### "
            "Instruction:\nHi.\n\n### Response:[Ho|]");
  EXPECT_EQ(shown(one(R"({"instruction":"Hi.","output":"Ho","text":"other"})", ExampleForm::kText)), "[other|]");
  // prompt and completion, as texts and as messages; answers within the prompt do not count
  EXPECT_EQ(shown(one(R"({"prompt":"p","completion":"c"})")), "p[c|]");
  EXPECT_EQ(shown(one(R"({"prompt":"p","chosen":"c","rejected":"r"})")), "p[c|]");
  EXPECT_EQ(
      shown(one(
          R"({"prompt":[{"role":"user","content":"u"},{"role":"assistant","content":"a"},{"role":"user","content":"v"}],"completion":[{"role":"assistant","content":"b"}]})")),
      "user: u\nassistant: a|user: v\nassistant:[ b|]");
  EXPECT_EQ(
      shown(one(R"({"chosen":[{"role":"user","content":"u"},{"role":"assistant","content":"a"}],"rejected":[]})")),
      "user: u\nassistant:[ a|]");
  // content in parts, null content beside tool calls, tools of the example, developer messages
  EXPECT_EQ(
      shown(one(
          R"({"messages":[{"role":"user","content":[{"type":"text","text":"u"},{"type":"text","text":"v"}]},{"role":"assistant","content":"a"}]})")),
      "user: u\nv\nassistant:[ a|]");
  const Example calls =
      one(R"({"tools":[{"name":"f"}],"messages":[{"role":"developer","content":"d"},{"role":"user","content":"u"},
    {"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{"z":1,"a":2}}}]},{"role":"tool","content":"3"},{"role":"assistant","content":"a"}]})");
  const auto chat = chat_by(text::ChatTemplate::from_source(
                                "{{ tools[0].name }}{{ x }};{% for m in messages %}{{ m.role }}:{{ m.content if "
                                "m.content is not none }}{% for c in m.tool_calls or [] %}{{ c.function.arguments | "
                                "tojson }}{% endfor %};{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
                                "t"),
                            {{"x", true}});
  EXPECT_EQ(shown(calls, std::nullopt, chat),
            "fTrue;system:d;user:u;assistant:[{\"z\": 1, \"a\": 2};]tool:3;assistant:[a;]");
  // Weights of messages
  EXPECT_EQ(
      shown(one(
          R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a","weight":0},{"role":"user","content":"v"},{"role":"assistant","content":"b","weight":1}]})")),
      "user: u\nassistant: a|user: v\nassistant:[ b|]");
  const Example masked = one(
      R"({"conversations":[{"from":"human","value":"u"},{"from":"gpt","value":"a","train":false},{"from":"human","value":"v"},{"from":"gpt","value":"b"}]})");
  EXPECT_EQ(shown(masked, std::nullopt,
                  chat_by(text::ChatTemplate::from_source("{% for m in messages %}{{ m.content }}.{% endfor %}", "t"))),
            "u.a.v.[b.]");
}

TEST(Instruct, ArraysAndOtherEncodings) {
  TempDir dir;
  ReadReport report;
  put_file(dir / "a.json",
           "[\n  {\"prompt\": \"p ]\\\" ,\",\n   \"answer\": \"a\"},\n  {\"text\": \"t\"}, {\"messages\": [{\"role\": "
           "\"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"a\", \"weight\": 0}]}\n]\n");
  const std::vector<Example> all = read(dir / "a.json", &report);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(shown(all[0]), "p ]\" ,[a|]");
  EXPECT_EQ(all[1].name, (dir / "a.json").string() + ": item 2");
  EXPECT_EQ(report.answers, 2);
  EXPECT_EQ(report.masked_answers, 1);
  EXPECT_EQ(report.forms.at(ExampleForm::kText), 1);
  put_file(dir / "b.jsonl",
           "[{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"a\"}]\n");
  EXPECT_EQ(shown(read(dir / "b.jsonl").at(0)), "user: u\nassistant:[ a|]");
  put_file(dir / "c.json", "[{\"text\": \"t\"}, {\"text\"]");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read(dir / "c.json"); }), HasSubstr("c.json"));
  std::string wide = "\xff\xfe";
  for (const char c : std::string("{\"text\": \"wide\"}\n")) (wide += c) += '\0';
  put_file(dir / "w.jsonl", wide);
  {
    const test::Warnings warnings;
    for (int time = 0; time < 2; ++time) EXPECT_EQ(shown(read(dir / "w.jsonl").at(0)), "[wide|]");
    EXPECT_THAT(warnings.texts(), ElementsAre(HasSubstr("w.jsonl: UTF-16LE text read as UTF-8")));
  }
  std::filesystem::create_directory(dir / "only");
  put_file(dir / "only/x.json", "[{\"text\": \"t\"}]");
  EXPECT_EQ(read(dir / "only").size(), 1u);
}

TEST(Instruct, FieldsThatCouldBeMeantAreNamedOnceForEachFile) {
  TempDir dir;
  const auto warned = [&](const std::string& line, ExampleForm form = ExampleForm::kAuto) {
    static int number = 0;
    const std::filesystem::path file = dir / fmt::format("{}.jsonl", ++number);
    put_file(file, line + "\n" + line + "\n");
    const test::Warnings warnings;
    EXPECT_EQ(read(file, nullptr, form).size(), 2u);
    EXPECT_LE(warnings.texts().size(), 1u);
    return warnings.texts().empty() ? "" : warnings.texts()[0].substr(file.string().size());
  };
  const std::string talk = R"("messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a"}])";
  EXPECT_EQ(warned("{" + talk + R"(,"id":1,"source":"x"})"), "");
  EXPECT_EQ(warned("{" + talk + R"(,"prompt":null})"), "") << "columns of a table that this row does not have";
  EXPECT_EQ(warned(R"({"messages":null,"prompt":"p","completion":"c"})"), "");
  const std::string advice = "; --format reads another form of examples";
  EXPECT_EQ(warned("{" + talk + R"(,"prompt":"p"})"), ": \"messages\" is read, \"prompt\" is ignored" + advice);
  EXPECT_EQ(warned("{" + talk + R"(,"prompt":"p","chosen":"c","rejected":"r"})"),
            ": \"messages\" is read, \"prompt\", \"chosen\" and \"rejected\" are ignored" + advice);
  EXPECT_EQ(warned(R"({"prompt":"p","chosen":"c","rejected":"r"})"),
            ": \"prompt\" and \"chosen\" are read, \"rejected\" is ignored" + advice);
  EXPECT_EQ(warned(R"({"prompt":"p","chosen":"c","rejected":"r"})", ExampleForm::kPrompt),
            ": \"prompt\" and \"chosen\" are read, \"rejected\" is ignored");
  EXPECT_EQ(warned(R"({"prompt":"p","answer":"a","completion":"c"})"),
            ": \"prompt\" and \"answer\" are read, \"completion\" is ignored" + advice);
  EXPECT_EQ(warned(R"({"instruction":"i","output":"o","text":"t"})"),
            ": \"instruction\" and \"output\" are read, \"text\" is ignored" + advice);
  EXPECT_EQ(warned(R"({"text":"t","content":"c"})"), ": \"content\" is read, \"text\" is ignored" + advice);
}

TEST(Instruct, ExamplesWithoutTextAreSkippedAndCounted) {
  TempDir dir;
  const std::vector<std::string> blank = {
      R"({"prompt":"","completion":""})", R"({"prompt":" \n","answer":""})", R"({"text":""})",
      R"({"instruction":"","input":"","output":""})",
      R"({"messages":[{"role":"user","content":""},{"role":"assistant","content":" "}]})"};
  std::string lines = "{\"prompt\":\"\",\"answer\":\"a\"}\n{\"prompt\":\"p\",\"answer\":\"\"}\n";
  for (const std::string& line : blank) lines += line + "\n";
  put_file(dir / "x.jsonl", lines);
  ReadReport report;
  const test::Warnings warnings;
  EXPECT_EQ(read(dir / "x.jsonl", &report).size(), 2u);
  EXPECT_EQ(report.examples, 2);
  EXPECT_EQ(report.blank, 5);
  EXPECT_THAT(warnings.texts(), ElementsAre(HasSubstr("x.jsonl: 5 examples without any text skipped, the first at ")));
  EXPECT_THAT(warnings.texts()[0], HasSubstr("x.jsonl:3"));
  put_file(dir / "none.jsonl", blank[0] + "\n");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read(dir / "none.jsonl"); }),
              HasSubstr("; 1 example without any text"));
}

TEST(Instruct, ErrorsNameFileLineAndField) {
  TempDir dir;
  const auto refused = [&](const std::string& line) {
    put_file(dir / "x.jsonl", "{\"text\":\"fine\"}\n\n" + line + "\n");
    const std::string message = error_of(ErrorKind::kBadFile, [&] { read(dir / "x.jsonl"); });
    EXPECT_THAT(message, HasSubstr("x.jsonl:3"));
    return message;
  };
  EXPECT_THAT(refused("{\"text\":"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused("[1]"), HasSubstr("array"));
  EXPECT_THAT(refused("{\"prompt\":\"p\"}"), HasSubstr("\"answer\" is missing"));
  EXPECT_THAT(refused("{\"answer\":\"p\"}"), HasSubstr("\"prompt\" is missing"));
  EXPECT_THAT(refused("{\"prompt\":\"p\",\"answer\":4}"),
              AllOf(HasSubstr("\"answer\" is number"), HasSubstr("string")));
  EXPECT_THAT(refused("{\"messages\":{}}"), AllOf(HasSubstr("\"messages\" is object"), HasSubstr("list")));
  EXPECT_THAT(refused("{\"messages\":[{\"role\":\"user\",\"content\":\"u\"}]}"), HasSubstr("none of an assistant"));
  EXPECT_THAT(refused("{\"messages\":[{\"role\":\"user\"}]}"),
              AllOf(HasSubstr("messages[0]"), HasSubstr("\"content\" is missing")));
  EXPECT_THAT(refused("{\"chat_rounds\":[\"hi\"]}"), HasSubstr("chat_rounds[0] is string"));
  EXPECT_THAT(refused("{\"messages\":[{\"role\":\"judge\",\"content\":\"u\"}]}"), HasSubstr("role \"judge\""));
  EXPECT_THAT(refused("{\"question\":\"q\"}"), HasSubstr("found question"));
  EXPECT_THAT(refused(R"({"messages":[{"role":"assistant","content":"u","weight":0.5}]})"),
              HasSubstr("\"weight\" is 0.5"));
  EXPECT_THAT(refused(R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})"),
              AllOf(HasSubstr("content[0]"), HasSubstr("image_url")));
  EXPECT_THAT(refused(R"({"instruction":"i","output":3})"), HasSubstr("\"output\" is number"));
  EXPECT_THAT(refused(R"({"conversations":[{"from":"human","value":"u"}]})"), HasSubstr("none of an assistant"));
  EXPECT_THAT(refused(R"({"prompt":[{"role":"user","content":"u"}]})"), HasSubstr("\"answer\" is missing"));
  put_file(dir / "x.jsonl", "\n\n");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read(dir / "x.jsonl"); }), HasSubstr("none in 1 file"));
  error_of(ErrorKind::kInvalidArgument, [&] { read_examples({}, {}); });
}

// Of whatever form, examples in which users and assistants say the same are the same document.
TEST(Instruct, TheSameExamplesInOtherForms) {
  TempDir dir;
  const auto tokenizer = text::make_byte_tokenizer();
  const auto list = [&](const std::string& line, ChatTemplate chat = plain_chat) {
    put_file(dir / "x.jsonl", line + "\n");
    std::string out;
    load_examples(*tokenizer, {.inputs = {(dir / "x.jsonl").string()}, .chat = std::move(chat), .list = &out});
    return out;
  };
  const std::string same[] = {
      R"({"prompt":"What is it? It.","completion":"That"})",
      R"({"prompt":"What is it?\n It.","system":"s","response":" That"})",
      R"({"instruction":"What is it?","input":"It.","output":"That"})",
      R"({"instruction":"What is it? It.","input":"","output":"That"})",
      R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"What is it? It."},)"
      R"({"role":"assistant","content":"That"},{"role":"user","content":"more"}]})",
      R"({"conversations":[{"from":"human","value":"What is it? It."},{"from":"gpt","value":"That"}]})",
      R"({"prompt":[{"role":"user","content":"What is it? It."}],"chosen":[{"role":"assistant","content":"That"}]})"};
  for (const std::string& a : same)
    for (const std::string& b : same) EXPECT_EQ(find_overlap(list(a), list(b)).documents, 1) << a << "\n" << b;
  const auto chatml = chat_by(text::ChatTemplate::named("chatml"));
  EXPECT_EQ(find_overlap(list(same[4], chatml), list(same[4])).documents, 1);
  const std::string text = R"({"text":"What is it? It.That"})";  // what the first trains on
  EXPECT_EQ(find_overlap(list(text), list(same[0])).documents, 1);
  EXPECT_EQ(find_overlap(list(same[0]), list(text)).documents, 1);
  for (const char* other :
       {R"({"prompt":"What is it? It.","completion":"This"})", R"({"prompt":"What is it?","completion":"That"})",
        R"({"instruction":"What is it?","input":"","output":"That"})"})
    EXPECT_EQ(find_overlap(list(same[0]), list(other)).documents, 0) << other;
  const auto call = [](const char* name) {
    return fmt::format(R"({{"messages":[{{"role":"user","content":"u"}},{{"role":"assistant","content":null,)"
                       R"("tool_calls":[{{"name":"{}"}}]}}]}})",
                       name);
  };
  EXPECT_EQ(find_overlap(list(call("f")), list(call("f"))).documents, 1);
  EXPECT_EQ(find_overlap(list(call("f")), list(call("g"))).documents, 0);
}

TEST(Instruct, LoadsFoldersWithProgress) {
  TempDir dir;
  put_file(dir / "d/b.jsonl", "{\"prompt\":\"bb\",\"answer\":\"B\"}\n");
  put_file(dir / "d/a.jsonl", "\xef\xbb\xbf{\"prompt\":\"a\",\"answer\":\"A\"}\r\n");
  put_file(dir / "d/notes.txt", "not read");
  const auto tokenizer = text::make_byte_tokenizer();
  int64_t done = 0, total = 0;
  LoadReport report;
  const TokenDocuments documents = load_examples(
      *tokenizer,
      {.inputs = {(dir / "d").string()}, .bos = 256, .progress = [&](int64_t d, int64_t t) { done = d, total = t; }},
      &report);
  EXPECT_EQ(documents.documents(), 2);
  EXPECT_EQ(documents.length(0), 4);  // bos a A eos
  EXPECT_EQ(documents.length(1), 5);
  EXPECT_EQ(documents.id(1), 'a');
  EXPECT_EQ(report.tokens, 9);
  EXPECT_GT(done, 0);
  EXPECT_LE(done, total);
}

}  // namespace
}  // namespace coca::data::instruct_test
