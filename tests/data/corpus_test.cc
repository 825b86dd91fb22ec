// SPDX-License-Identifier: Apache-2.0
#include "coca/data/corpus.h"

#include "coca/data/overlap.h"
#include "support/temp_dir.h"

namespace coca::data::corpus_test {
namespace {

using test::error_of;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Read {
  std::vector<Document> documents;
  CorpusReport report;
  std::vector<std::string> texts() const {
    std::vector<std::string> out;
    for (const Document& d : documents) out.push_back(d.text);
    return out;
  }
};

Read read(CorpusOptions options) {
  Read out;
  out.report = read_corpus(options, [&](Document&& document) { out.documents.push_back(std::move(document)); });
  return out;
}

// Encodes ASCII text in units of this many bytes.
std::string wide(const std::string& text, size_t bytes, bool big, const std::string& mark) {
  std::string out = mark;
  for (const char c : text) out += big ? std::string(bytes - 1, '\0') + c : c + std::string(bytes - 1, '\0');
  return out;
}

TEST(Corpus, Utf16AndUtf32AreReadAsText) {
  TempDir dir;
  const std::string text = "Hello, wide world.\n";
  for (const bool big : {false, true})
    for (const size_t bytes : {2, 4})
      for (const bool marked : {false, true}) {
        const std::string mark = !marked ? ""
                                 : big   ? std::string(bytes - 2, '\0') + "\xfe\xff"
                                         : "\xff\xfe" + std::string(bytes - 2, '\0');
        SCOPED_TRACE(fmt::format("{} bytes, big {}, mark {}", bytes, big, marked));
        put_file(dir / "x.txt", wide(text, bytes, big, mark));
        const Read got = read({.inputs = {(dir / "x.txt").string()}});
        EXPECT_THAT(got.texts(), ElementsAre(text));
        EXPECT_THAT(
            got.report.warnings,
            ElementsAre(AllOf(HasSubstr("x.txt"), HasSubstr(fmt::format("UTF-{}{}", 8 * bytes, big ? "BE" : "LE")))));
      }
  put_file(dir / "x.txt",
           std::string("\xff\xfe\xac\x20\x3d\xd8\x00\xde\x3d\xd8", 10));  // a euro sign, a surrogate pair, half a pair
  EXPECT_THAT(read({.inputs = {(dir / "x.txt").string()}}).texts(),
              ElementsAre("\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbd"));
  put_file(dir / "x.jsonl", wide("{\"text\": \"line\"}\n", 2, false, "\xff\xfe"));
  EXPECT_THAT(read({.inputs = {(dir / "x.jsonl").string()}}).texts(), ElementsAre("line"));
  put_file(dir / "x.txt", std::string("a\0b and a plain text", 20));  // zeros in a text do not make it UTF-16
  EXPECT_THAT(read({.inputs = {(dir / "x.txt").string()}}).report.warnings, IsEmpty());
}

TEST(Corpus, DocumentsInTwoTextsAreFoundByContent) {
  TempDir dir;
  put_file(dir / "train/a.txt", "Call me  Ishmael.\r\nSome years ago\n");
  put_file(dir / "train/b.txt", "Another book");
  put_file(dir / "train/c.jsonl", "{\"text\": \"A line\"}\n{\"text\": \" \"}\n");
  put_file(dir / "test/x.txt", "\n Call me Ishmael. Some\tyears ago");
  put_file(dir / "test/y.txt", "Anotherbook");  // differs from x.txt's "Another book" by a blank
  put_file(dir / "test/z.jsonl", "{\"text\": \"new\"}\n{\"text\": \"\\n\"}\n{\"text\": \"A line \"}\n");
  const auto list = [&](const char* folder) {
    std::string out;
    for (const Document& d : read({.inputs = {(dir / folder).string()}}).documents)
      out += document_line(d.name, d.text);
    return out;
  };
  const std::string train = (dir / "train").string(), test = (dir / "test").string();
  const Overlap overlap = find_overlap(list("train"), list("test"));
  EXPECT_EQ(overlap.documents, 2);
  EXPECT_THAT(
      overlap_sentences(overlap, "validation"),
      ElementsAre(train + "/a.txt (training) and " + test + "/x.txt (validation) are the same document",
                  train + "/c.jsonl:1 (training) and " + test + "/z.jsonl:3 (validation) are the same document"));
  EXPECT_EQ(find_overlap("", list("test")).documents, 0);
  EXPECT_EQ(find_overlap(list("train"), "").documents, 0);

  // A document that has lines for several ways to write it counts once.
  const std::string two = document_line("e", "one way") + document_line("e", "another way");
  EXPECT_EQ(find_overlap(two, two).documents, 1);
  EXPECT_EQ(find_overlap(document_line("t", "another way"), two).pairs.at(0).evaluation, "e");

  std::string many;
  for (int i = 0; i < 8; ++i) many += document_line(fmt::format("{}\n\xff", i), "the same text");
  const std::vector<std::string> sentences = overlap_sentences(find_overlap(many, many), "test");
  ASSERT_EQ(sentences.size(), 6u);
  EXPECT_EQ(sentences[4], "0 \\xff (training) and 4 \\xff (test) are the same document");
  EXPECT_EQ(sentences[5], "3 more documents of the test text are in the training text");
}

TEST(Corpus, FoldersGlobsAndFiles) {
  TempDir dir;
  put_file(dir / "train/2.txt", "two");
  put_file(dir / "train/10.txt", "\xef\xbb\xbften\r\n");
  put_file(dir / "train/more/3.jsonl", "{\"text\": \"three\"}\n{\"content\": \"four\"}\n");
  put_file(dir / "train/notes.md", "no");
  put_file(dir / "metadata.csv", "no");
  const std::string root = dir.path().string();
  const Read all = read({.inputs = {root + "/train"}});
  EXPECT_THAT(all.texts(), ElementsAre("ten\r\n", "two", "three", "four"));
  EXPECT_EQ(all.documents[0].name, root + "/train/10.txt");
  EXPECT_EQ(all.documents[3].name, root + "/train/more/3.jsonl:2");
  EXPECT_EQ(all.report.files, 3);
  EXPECT_EQ(all.report.documents, 4);
  EXPECT_EQ(all.report.bytes, 5 + 3 + 5 + 4);
  EXPECT_THAT(all.report.warnings, IsEmpty());
  EXPECT_EQ(corpus_file_bytes({.inputs = {root + "/train"}}), 8 + 3 + 38);
  EXPECT_THAT(read({.inputs = {root + "/train/*.md", root + "/train/2.txt"}}).texts(), ElementsAre("two", "no"));
  EXPECT_THAT(read({.inputs = {root + "/train"}, .max_documents = 3}).texts(), ElementsAre("ten\r\n", "two", "three"));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { read({.inputs = {root + "/test"}}); }), HasSubstr("/test"));
  error_of(ErrorKind::kInvalidArgument, [&] { read({}); });
}

TEST(Corpus, EmptyDocumentsAreCountedAndNoDocumentIsAnError) {
  TempDir dir;
  put_file(dir / "a.txt", "");
  put_file(dir / "b.txt", "\xef\xbb\xbf");
  put_file(dir / "c.jsonl", "\n  \r\n{\"text\":\"\"}\n");
  const std::string root = dir.path().string();
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read({.inputs = {root}}); }),
              AllOf(HasSubstr("no document"), HasSubstr(root)));
  put_file(dir / "d.txt", "x");
  const Read all = read({.inputs = {root}});
  EXPECT_EQ(all.report.empty_documents, 3);
  EXPECT_EQ(all.report.skipped_lines, 2);
  EXPECT_EQ(all.report.warnings.size(), 3u);
  EXPECT_THAT(all.report.warnings[0], HasSubstr("a.txt"));
  for (int i = 0; i < 50; ++i) put_file(dir / ("e" + std::to_string(i) + ".txt"), "");
  EXPECT_EQ(read({.inputs = {root}}).report.warnings.size(), kMaxWarnings);
}

TEST(Corpus, InvalidUtf8) {
  TempDir dir;
  put_file(dir / "a.txt", "ab\xff");
  put_file(dir / "b.jsonl", "{\"text\":\"x\xe2\x82\"}");
  const std::string root = dir.path().string();
  const Read replaced = read({.inputs = {root}});
  EXPECT_THAT(replaced.texts(), ElementsAre("ab\xef\xbf\xbd", "x\xef\xbf\xbd"));
  EXPECT_EQ(replaced.report.invalid_utf8_documents, 2);
  EXPECT_EQ(read({.inputs = {root}, .invalid_utf8 = InvalidUtf8::kKeep}).texts()[0], "ab\xff");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read({.inputs = {root}, .invalid_utf8 = InvalidUtf8::kError}); }),
              AllOf(HasSubstr("a.txt"), HasSubstr("byte 2")));
  EXPECT_THAT(error_of(ErrorKind::kBadFile,
                       [&] { read({.inputs = {root + "/b.jsonl"}, .invalid_utf8 = InvalidUtf8::kError}); }),
              HasSubstr("b.jsonl:1"));
}

TEST(Corpus, BadJsonLinesNameFileLineAndFinding) {
  TempDir dir;
  const auto refused = [&](const std::string& line, const std::string& field = "") {
    put_file(dir / "x.jsonl", "{\"text\":\"fine\",\"body\":\"fine\"}\n\n" + line + "\n");
    const std::string message =
        error_of(ErrorKind::kBadFile, [&] { read({.inputs = {(dir / "x.jsonl").string()}, .json_field = field}); });
    EXPECT_THAT(message, HasSubstr("x.jsonl:3"));
    return message;
  };
  EXPECT_THAT(refused("{\"text\":"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused("[1]"), HasSubstr("array"));
  EXPECT_THAT(refused("{\"title\":\"t\",\"body\":\"b\"}"),
              AllOf(HasSubstr("\"content\" or \"text\""), HasSubstr("body, title")));
  EXPECT_THAT(refused("{\"text\":5}"), AllOf(HasSubstr("\"text\""), HasSubstr("number")));
  EXPECT_THAT(refused("{\"text\":\"a\",\"text\":\"b\"}"), HasSubstr("twice"));
  EXPECT_THAT(refused("{\"text\":\"a\"}", "body"), HasSubstr("\"body\""));
  put_file(dir / "x.jsonl", "{\"text\":\"fine\",\"body\":\"chosen\"}");
  EXPECT_THAT(read({.inputs = {(dir / "x.jsonl").string()}, .json_field = "body"}).texts(), ElementsAre("chosen"));
  EXPECT_THAT(refused("{\"body\":\"b\"}"),
              HasSubstr("found body. To use another field, name it with --field where the command has that option; to "
                        "train on it, make a token file with coca data build --field"));
  EXPECT_THAT(refused("{\"text\":\"a\"}", "body"), testing::EndsWith("found text"));
}

}  // namespace
}  // namespace coca::data::corpus_test
