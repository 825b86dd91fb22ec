// SPDX-License-Identifier: Apache-2.0
#include "coca/data/instruct.h"

#include "support/temp_dir.h"

namespace coca::data {
namespace {

using test::error_of;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<Example> read(const std::filesystem::path& file, ReadReport* report = nullptr) {
  std::vector<Example> all;
  const ReadReport r = read_examples({file.string()}, [&](Example&& e) { all.push_back(std::move(e)); });
  if (report) *report = r;
  return all;
}

// The example's text with [ ] around what counts and | for eos, ^ for bos.
std::string shown(const Example& example, std::optional<int32_t> bos = std::nullopt) {
  const auto tokenizer = text::make_byte_tokenizer();
  const TokenDocument d = encode_segments(segments_of(example, plain_chat), *tokenizer, bos);
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
  EXPECT_NE(encode_segments(segments, *tokenizer, 256).ids.front(), 256);  // a template writes its own bos
  const auto refuses = chat_by(text::ChatTemplate::from_source("{{ raise_exception('no') }}", "t.jinja"));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { segments_of(example, refuses); }), HasSubstr("x.jsonl:1: "));
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
  put_file(dir / "x.jsonl", "\n\n");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read(dir / "x.jsonl"); }), HasSubstr("none in 1 files"));
  error_of(ErrorKind::kInvalidArgument, [&] { read_examples({}, {}); });
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
}  // namespace coca::data
