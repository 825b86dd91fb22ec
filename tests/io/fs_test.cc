// SPDX-License-Identifier: Apache-2.0
#include "coca/io/fs.h"

#include "coca/io/hash.h"
#include "coca/io/mmap.h"
#include "support/faults.h"
#include "support/temp_dir.h"

namespace coca::io {
namespace {

using test::error_of;
using test::get_file;
using test::put_file;
using test::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

size_t entries(const std::filesystem::path& dir) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir), {}));
}

TEST(Fs, ReadAndWriteWholeFiles) {
  TempDir dir;
  const std::string text("a\0b\r\n\xff", 6);
  write_file_atomic(dir / "x", text);
  EXPECT_EQ(read_file(dir / "x"), text);
  write_file_atomic(dir / "x", "");
  EXPECT_EQ(read_file(dir / "x"), "");
  EXPECT_EQ(entries(dir.path()), 1u) << "temporaries left behind";
}

TEST(Fs, ErrorsNamePathAndReason) {
  TempDir dir;
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { read_file(dir / "none"); }),
              testing::AllOf(HasSubstr((dir / "none").string()), HasSubstr("No such file")));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { read_file(dir.path()); }), HasSubstr("directory"));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { write_file_atomic(dir / "no/such/file", "x"); }),
              HasSubstr("no/such/file"));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { write_file_atomic(dir.path(), "x"); }),
              HasSubstr("is a folder"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { write_file_atomic("..", "x"); }), HasSubstr(".."));
  put_file(dir / "file", "");
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { make_dirs(dir / "file/sub"); }), HasSubstr("file/sub"));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { make_dirs(dir / "file"); }), HasSubstr("file"));
}

TEST(Fs, AtomicFileKeepsTheOldContentUntilCommit) {
  TempDir dir;
  put_file(dir / "x", "old");
  {
    AtomicFile out(dir / "x");
    out.write("new...", 6);
    EXPECT_EQ(get_file(dir / "x"), "old");
  }
  EXPECT_EQ(get_file(dir / "x"), "old");
  EXPECT_EQ(entries(dir.path()), 1u);
  AtomicFile out(dir / "x");
  out.write("new...", 6);
  out.write_at(3, "er!", 3);
  error_of(ErrorKind::kInvalidArgument, [&] { out.write_at(5, "xy", 2); });
  out.write("+", 1);
  out.commit();
  EXPECT_EQ(get_file(dir / "x"), "newer!+");
  error_of(ErrorKind::kInvalidArgument, [&] { out.commit(); });
}

TEST(Fs, AtomicDirAppearsWholeOrNotAtAll) {
  TempDir dir;
  {
    AtomicDir made(dir / "a/b");
    EXPECT_TRUE(made.path().filename().string().starts_with(".tmp-"));
    EXPECT_EQ(made.path().parent_path(), dir / "a");
    put_file(made.path() / "deep/one", "1");
    EXPECT_FALSE(std::filesystem::exists(dir / "a/b"));
  }
  EXPECT_EQ(entries(dir / "a"), 0u) << "an uncommitted folder must go";
  for (const char* content : {"1", "2"}) {  // the second replaces the first
    AtomicDir made((dir / "a/b").string() + "/");
    put_file(made.path() / "deep" / content, content);
    made.commit();
    EXPECT_EQ(get_file(dir / "a/b/deep" / content), content);
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "a/b/deep/1"));
  EXPECT_EQ(entries(dir / "a"), 1u) << "the old folder must go";
  put_file(dir / "file", "");
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { AtomicDir made(dir / "file"); }), HasSubstr("not a folder"));
}

TEST(Fs, ACommitHappensOnce) {
  TempDir dir;
  AtomicFile file(dir / "file");
  file.commit();
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { file.commit(); }), HasSubstr("committed twice"));
  AtomicDir folder(dir / "folder");
  folder.commit();
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { folder.commit(); }), HasSubstr("committed twice"));
  EXPECT_EQ(entries(dir.path()), 2u);
}

TEST(Fs, AnAtomicDirThatWasTakenAwayIsAnError) {
  TempDir dir;
  AtomicDir out(dir / "out");
  std::filesystem::remove_all(out.path());
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { out.commit(); }), HasSubstr("cannot list the files of"));
  EXPECT_FALSE(std::filesystem::exists(dir / "out"));
}

std::string only_entry(const std::filesystem::path& dir) {
  EXPECT_EQ(entries(dir), 1u);
  return std::filesystem::directory_iterator(dir)->path().filename();
}

// A killed process may have had this one's id, and left a file of the name that is taken next.
TEST(Fs, WhatAnotherLeftUnderTheTemporaryNameGoes) {
  TempDir dir;
  std::string name;
  {
    const AtomicFile first(dir / "x");
    name = only_entry(dir.path());
  }
  const size_t dash = name.rfind('-') + 1;
  put_file(dir / (name.substr(0, dash) + std::to_string(std::stoi(name.substr(dash)) + 1)), "left behind");
  AtomicFile second(dir / "x");
  EXPECT_EQ(entries(dir.path()), 1u) << "not the name it was expected to take";
  second.write("new", 3);
  second.commit();
  EXPECT_EQ(only_entry(dir.path()), "x");
  EXPECT_EQ(get_file(dir / "x"), "new");
}

TEST(Fs, APlaceTakenMeanwhileIsAnErrorAndLeavesNothing) {
  TempDir dir;
  {
    AtomicFile file(dir / "x");
    make_dirs(dir / "x/inside");
    EXPECT_THAT(error_of(ErrorKind::kIo, [&] { file.commit(); }), testing::AllOf(HasSubstr((dir / "x").string()), HasSubstr("cannot rename into place")));
  }
  EXPECT_EQ(only_entry(dir.path()), "x");
  const test::SmallDisk disk(dir / "y", "1m");  // a mount point can be neither swapped nor moved
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a file system";
  put_file(dir / "y/old", "1");
  {
    AtomicDir made(dir / "y");
    put_file(made.path() / "new", "2");
    EXPECT_THAT(error_of(ErrorKind::kIo, [&] { made.commit(); }), testing::AllOf(HasSubstr((dir / "y").string()), HasSubstr("cannot move the old folder aside")));
  }
  EXPECT_EQ(entries(dir.path()), 2u);
  EXPECT_EQ(get_file(dir / "y/old"), "1");
}

TEST(Fs, NamesThatStayInAFolder) {
  for (const char* name : {"a", "a.json", "...", ".a", "a b"}) EXPECT_TRUE(is_file_name(name)) << name;
  for (const char* name : {"", ".", "..", "/", "/a", "a/", "a/b", "../a", "a/..", "./a"}) EXPECT_FALSE(is_file_name(name)) << name;
}

TEST(Fs, ExpandInputs) {
  TempDir dir;
  for (const char* name : {"b.txt", "a.txt", "c.md", "sub/d.txt", ".hidden/e.txt", "sub/.f.txt", "[odd].txt"})
    put_file(dir / name, "");
  const std::string root = dir.path().string();
  EXPECT_THAT(expand_inputs({root}, {".txt"}),
              ElementsAre(dir / "[odd].txt", dir / "a.txt", dir / "b.txt", dir / "sub/d.txt"));
  EXPECT_THAT(expand_inputs({root + "/?.*"}, {".txt"}),
              ElementsAre(dir / "a.txt", dir / "b.txt", dir / "c.md"));
  EXPECT_THAT(expand_inputs({root + "/c.md", root + "/b.txt", root + "/sub/../b.txt"}, {".txt"}),
              ElementsAre(dir / "b.txt", dir / "c.md"));
  EXPECT_THAT(expand_inputs({root + "/[odd].txt"}, {".txt"}), ElementsAre(dir / "[odd].txt"));
  EXPECT_THAT(error_of(ErrorKind::kIo,
                       [&] {
                         expand_inputs({root, root + "/*.csv"}, {".txt"});
                       }),
              HasSubstr("*.csv"));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { expand_inputs({root + "/sub"}, {".jsonl"}); }),
              testing::AllOf(HasSubstr("/sub"), HasSubstr(".jsonl")));
}

TEST(MappedFile, BytesMoveAndEmpty) {
  TempDir dir;
  put_file(dir / "x", "hello");
  put_file(dir / "empty", "");
  MappedFile a(dir / "x");
  ASSERT_EQ(a.bytes().size(), 5u);
  EXPECT_EQ(a.bytes()[4], std::byte{'o'});
  MappedFile b(std::move(a));
  EXPECT_TRUE(a.bytes().empty());  // NOLINT: moved-from is empty by contract
  MappedFile c(dir / "empty");
  EXPECT_TRUE(c.bytes().empty());
  c = std::move(b);
  EXPECT_EQ(c.bytes()[0], std::byte{'h'});
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { MappedFile m(dir.path()); }), HasSubstr("folder"));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { MappedFile m(dir / "none"); }), HasSubstr("none"));
}

TEST(Hash, Crc32cKnownAnswerAndChaining) {
  EXPECT_EQ(crc32c("123456789", 9), 0xe3069283u);  // the check value of CRC-32C
  EXPECT_EQ(crc32c("6789", 4, crc32c("12345", 5)), 0xe3069283u);
  EXPECT_EQ(crc32c("", 0), 0u);
  EXPECT_NE(fingerprint64("a"), fingerprint64("b"));
  EXPECT_EQ(fingerprint64("").size(), 16u);
}

}  // namespace
}  // namespace coca::io
