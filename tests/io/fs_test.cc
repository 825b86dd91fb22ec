// SPDX-License-Identifier: Apache-2.0
#include "coca/io/fs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "coca/base/stop.h"
#include "coca/io/csv.h"
#include "coca/io/hash.h"
#include "coca/io/mmap.h"
#include "coca/io/names.h"
#include "support/faults.h"
#include "support/temp_dir.h"

namespace coca::io::fs_test {
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
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { write_file_atomic(dir.path(), "x"); }), HasSubstr("is a folder"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { write_file_atomic("..", "x"); }), HasSubstr(".."));
  put_file(dir / "file", "");
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { make_dirs(dir / "file/sub"); }),
              HasSubstr("file: is not a folder (needed for sub)"));
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

TEST(Fs, AnAtomicDirThatWasRemovedIsAnError) {
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

TEST(Fs, TemporariesOfOthersAreLeftAlone) {
  TempDir dir;
  const AtomicFile first(dir / "x"), second(dir / "x");
  const AtomicDir third(dir / "x"), fourth(dir / "x");
  EXPECT_EQ(entries(dir.path()), 4u);
}

TEST(Fs, ANameOf255BytesCanBeWritten) {
  TempDir dir;
  const std::string longest(255, 'n'), too_long(256, 'n');
  write_file_atomic(dir / longest, "x");
  EXPECT_EQ(read_file(dir / longest), "x");
  {
    AtomicDir folder(dir / ("d" + longest.substr(1)));
    folder.commit();
  }
  EXPECT_EQ(entries(dir.path()), 2u);
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { write_file_atomic(dir / too_long, "x"); }),
              HasSubstr("File name too long"));
}

TEST(Fs, LinksAreFollowedAndKept) {
  TempDir dir;
  const auto link = [&](const std::string& to, const std::string& name) {
    std::filesystem::create_symlink(to, dir / name);
  };
  std::filesystem::create_directories(dir / "sub");
  put_file(dir / "sub/old", "old");
  link("sub/old", "to_old");
  link("to_old", "to_link");
  link((dir / "sub/fresh").string(), "to_nothing");
  link("loop", "loop");
  write_file_atomic(dir / "to_link", "new");
  EXPECT_EQ(get_file(dir / "sub/old"), "new");
  write_file_atomic(dir / "to_nothing", "made");
  EXPECT_EQ(get_file(dir / "sub/fresh"), "made");
  EXPECT_EQ(entries(dir / "sub"), 2u) << "temporaries left behind";
  for (const char* name : {"to_old", "to_link", "to_nothing"})
    EXPECT_TRUE(std::filesystem::is_symlink(dir / name)) << name;
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { write_file_atomic(dir / "loop", "x"); }),
              testing::AllOf(HasSubstr((dir / "loop").string()), HasSubstr("symbolic links")));
  link("sub/model", "folder");
  AtomicDir made(dir / "folder");
  put_file(made.path() / "one", "1");
  made.commit();
  EXPECT_EQ(get_file(dir / "sub/model/one"), "1");
  EXPECT_TRUE(std::filesystem::is_symlink(dir / "folder"));
}

TEST(Fs, DevicesAreWrittenToAndKept) {
  TempDir dir;
  ::umask(0);
  if (::mknod((dir / "null").c_str(), S_IFCHR | 0666, ::makedev(1, 3)) != 0)
    GTEST_SKIP() << "no right to make a device";
  ASSERT_EQ(::mknod((dir / "full").c_str(), S_IFCHR | 0666, ::makedev(1, 7)), 0);
  std::filesystem::create_symlink("null", dir / "link");
  for (const char* name : {"null", "link"}) {
    write_file_atomic(dir / name, "gone");
    CsvWriter(dir / name, {"a"}, CsvWriter::Mode::kAppend).row({"1"});
  }
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { write_file_atomic(dir / "full", "x"); }),
              testing::AllOf(HasSubstr((dir / "full").string()), HasSubstr("No space left")));
  for (const char* name : {"null", "full"}) EXPECT_TRUE(std::filesystem::is_character_file(dir / name)) << name;
  EXPECT_EQ(entries(dir.path()), 3u);
}

// Reads a FIFO to its end on its own thread, which may start late.
class FifoReader {
 public:
  explicit FifoReader(std::filesystem::path fifo)
      : fifo_(std::move(fifo)), thread_([this] { text_ = read_file(fifo_); }) {}
  std::string text() {
    thread_.join();
    return text_;
  }

 private:
  std::filesystem::path fifo_;
  std::string text_;
  std::thread thread_;
};

TEST(Fs, FifosAreWrittenTo) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0666), 0);
  const std::string large(200'000, 'x');  // exceeds the capacity of a pipe
  {
    FifoReader reader(dir / "fifo");
    AtomicFile file(dir / "fifo");
    file.write("????", 4);
    file.write(large.data(), large.size());
    file.write_at(0, "head", 4);
    file.commit();
    EXPECT_EQ(reader.text(), "head" + large);
  }
  FifoReader reader(dir / "fifo");
  CsvWriter(dir / "fifo", {"a", "b"}, CsvWriter::Mode::kAppend).row({"1", "2"});
  EXPECT_EQ(reader.text(), "a,b\n1,2\n");
  EXPECT_TRUE(std::filesystem::is_fifo(dir / "fifo"));
}

TEST(Fs, AFifoWithoutAReaderIsAnError) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0666), 0);
  request_stop();
  const std::string stopped = error_of(ErrorKind::kInterrupted, [&] { write_file_atomic(dir / "fifo", "x"); });
  clear_stop();
  EXPECT_THAT(stopped, testing::AllOf(HasSubstr((dir / "fifo").string()), HasSubstr("no process read this FIFO")));
  std::signal(SIGPIPE, SIG_IGN);
  const int reader = ::open((dir / "fifo").c_str(), O_RDONLY | O_NONBLOCK);
  {
    CsvWriter writer(dir / "fifo", {"a"}, CsvWriter::Mode::kTruncate);
    ::close(reader);
    writer.row({"1"});
    EXPECT_THAT(error_of(ErrorKind::kIo, [&] { writer.flush(); }), HasSubstr("Broken pipe"));
  }
  EXPECT_TRUE(std::filesystem::is_fifo(dir / "fifo"));
}

TEST(Fs, DescriptorsAreWrittenToAtTheirPosition) {
  TempDir dir;
  const int fd = ::open((dir / "x").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  ASSERT_EQ(::write(fd, "before ", 7), 7);
  for (const std::string root : {"/dev/fd/", "/proc/self/fd/"}) write_file_atomic(root + std::to_string(fd), "here ");
  ASSERT_EQ(::write(fd, "after", 5), 5);
  ::close(fd);
  EXPECT_EQ(get_file(dir / "x"), "before here here after");
  EXPECT_EQ(entries(dir.path()), 1u);
  const int closed = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::close(closed);
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { write_file_atomic("/dev/fd/" + std::to_string(closed), "x"); }),
              HasSubstr("/dev/fd/" + std::to_string(closed)));
}

TEST(Fs, OfTwoWritersOfAFolderOneWins) {
  TempDir dir;
  using Existing = AtomicDir::Existing;
  {
    AtomicDir one(dir / "out", Existing::kRefuse), other(dir / "out-1-0123456789abcdef", Existing::kRefuse);
    EXPECT_THAT(
        error_of(ErrorKind::kIo, [&] { AtomicDir two(dir / "out", Existing::kRefuse); }),
        HasSubstr((dir / "out").string() + ": another process (" + std::to_string(::getpid()) + ") is writing it"));
    put_file(one.path() / "who", "one");
    one.commit();
  }
  EXPECT_EQ(get_file(dir / "out/who"), "one");
  EXPECT_EQ(entries(dir.path()), 1u) << "the loser's folder must go";
  {
    AtomicDir late(dir / "late", Existing::kRefuse);
    std::filesystem::create_directory(dir / "late");  // by a writer that could not be seen
    EXPECT_THAT(error_of(ErrorKind::kIo, [&] { late.commit(); }),
                testing::AllOf(HasSubstr((dir / "late").string()), HasSubstr("another process has created it")));
  }
  std::filesystem::remove(dir / "late");
  std::filesystem::create_directory(dir / ".tmp-late-1-0123456789abcdef");  // of a killed writer
  AtomicDir(dir / "late", Existing::kRefuse).commit();
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { AtomicDir late(dir / "out/", Existing::kRefuse); }),
              HasSubstr("exists already"));
  std::filesystem::create_directory(dir / "empty");
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { AtomicDir late(dir / "empty", Existing::kRefuse); }),
              HasSubstr("exists already"));
}

TEST(Fs, AFileMayHaveOneWriter) {
  TempDir dir;
  using Writers = AtomicFile::Writers;
  {
    AtomicFile one(dir / "x", Writers::kOne);
    EXPECT_THAT(error_of(ErrorKind::kIo, [&] { AtomicFile two(dir / "./x", Writers::kOne); }),
                HasSubstr("/x: another process (" + std::to_string(::getpid()) + ") is writing it; wait for it"));
    AtomicFile other(dir / "y", Writers::kOne);
    write_file_atomic(dir / "x", "any");
    one.write("one", 3);
    one.commit();
  }
  EXPECT_EQ(get_file(dir / "x"), "one");
  AtomicFile(dir / "x", Writers::kOne).commit();
}

TEST(Fs, QuestionsAboutPaths) {
  TempDir dir;
  put_file(dir / "b", "123");
  put_file(dir / ".a", "");
  EXPECT_TRUE(io::exists(dir / "b") && io::is_regular_file(dir / "b") && !is_folder(dir / "b"));
  EXPECT_TRUE(is_folder(dir.path()) && !io::is_regular_file(dir.path()));
  EXPECT_FALSE(io::exists(dir / "none") || is_folder(dir / "none") || io::is_regular_file(dir / "none") ||
               io::exists(dir / "b/below"));
  EXPECT_EQ(file_bytes(dir / "b"), 3u);
  EXPECT_THAT(list_folder(dir.path()), ElementsAre(dir / ".a", dir / "b"));
  std::filesystem::create_symlink("loop", dir / "loop");
  const auto fails = [](const std::filesystem::path& path, auto&& ask) {
    EXPECT_THAT(error_of(ErrorKind::kIo, [&] { ask(path); }), HasSubstr(path.string()));
  };
  fails(dir / "loop", [](const auto& path) { io::exists(path); });
  fails(dir / "loop/below", [](const auto& path) { is_folder(path); });
  fails(dir / std::string(300, 'n'), [](const auto& path) { io::is_regular_file(path); });
  fails(dir / "none", [](const auto& path) { file_bytes(path); });
  fails(dir / "none", [](const auto& path) { list_folder(path); });
}

TEST(Fs, AFileWhereAFolderIsNeededIsNamed) {
  TempDir dir;
  put_file(dir / "file", "");
  const std::string wanted = (dir / "file").string() + ": is not a folder (needed for ";
  EXPECT_EQ(error_of(ErrorKind::kIo, [&] { make_dirs(dir / "file/new"); }), wanted + "new)");
  EXPECT_EQ(error_of(ErrorKind::kIo, [&] { read_file(dir / "file/in/it"); }), wanted + "it)");
  EXPECT_EQ(error_of(ErrorKind::kIo, [&] { MappedFile(dir / "file/it"); }), wanted + "it)");
}

TEST(Fs, AFolderWithoutPermissionIsNamed) {
  const TempDir dir;
  const std::filesystem::path closed = dir / "closed";
  std::filesystem::create_directories(closed / "inner");
  put_file(closed / "inner/file", "x");
  std::filesystem::permissions(dir.path(), std::filesystem::perms::all);
  std::filesystem::permissions(closed, std::filesystem::perms::none);
  const bool root = ::geteuid() == 0;  // root may enter any folder
  ASSERT_EQ(root ? ::seteuid(65534) : 0, 0);
  const std::string wanted = closed.string() + ": the folder cannot be entered: Permission denied (needed for file)";
  const std::string asked = error_of(ErrorKind::kIo, [&] { io::exists(closed / "inner/file"); });
  const std::string read = error_of(ErrorKind::kIo, [&] { read_file(closed / "inner/file"); });
  const std::string mapped = error_of(ErrorKind::kIo, [&] { MappedFile(closed / "inner/file"); });
  const std::string made = error_of(ErrorKind::kIo, [&] { make_dirs(closed / "inner/new"); });
  ASSERT_EQ(root ? ::seteuid(0) : 0, 0);
  std::filesystem::permissions(closed, std::filesystem::perms::owner_all);
  EXPECT_EQ(asked, wanted);
  EXPECT_EQ(read, wanted);
  EXPECT_EQ(mapped, wanted);
  EXPECT_THAT(made, HasSubstr(closed.string() + ": the folder cannot be entered"));
}

TEST(Names, BytesThatAreNotUtf8AreEscapedAndComeBack) {
  EXPECT_EQ(name_from_bytes("caf\xe9.txt"), "caf\\xe9.txt");
  EXPECT_EQ(name_from_bytes("caf\xc3\xa9 \\ \\n.txt"), "caf\xc3\xa9 \\ \\n.txt") << "UTF-8 stays as it is";
  EXPECT_EQ(name_from_bytes("\\xe9"), "\\x5cxe9") << "spelt out in the name itself";
  EXPECT_EQ(shown_name("\\xe9"), "\\xe9");
  EXPECT_EQ(shown_name("\xff"), "\\xff");
  for (const std::string name : {"", "a", "\\", "\\x", "\\xe", "\\xe9", "\\\\xe9", "\\x5c", "\\x5cx5c", "\xe9",
                                 "\xe9\\xe9", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\xaf"}) {
    const std::string escaped = name_from_bytes(name);
    EXPECT_TRUE(is_utf8(escaped)) << escaped;
    EXPECT_EQ(bytes_from_name(escaped), name) << escaped;
  }
  for (unsigned first = 0; first < 256; ++first)
    for (unsigned second = 0; second < 256; ++second) {
      const std::string name{static_cast<char>(first), static_cast<char>(second)};
      ASSERT_EQ(bytes_from_name(name_from_bytes(name)), name) << first << " " << second;
    }
}

TEST(Fs, APathTakenMeanwhileIsAnErrorAndLeavesNothing) {
  TempDir dir;
  {
    AtomicFile file(dir / "x");
    make_dirs(dir / "x/inside");
    EXPECT_THAT(error_of(ErrorKind::kIo, [&] { file.commit(); }),
                testing::AllOf(HasSubstr((dir / "x").string()), HasSubstr("cannot rename into place")));
  }
  EXPECT_EQ(only_entry(dir.path()), "x");
  const test::SmallDisk disk(dir / "y", "1m");  // a mount point can be neither exchanged nor moved
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a file system";
  put_file(dir / "y/old", "1");
  {
    AtomicDir made(dir / "y");
    put_file(made.path() / "new", "2");
    EXPECT_THAT(error_of(ErrorKind::kIo, [&] { made.commit(); }),
                testing::AllOf(HasSubstr((dir / "y").string()), HasSubstr("cannot move the old folder aside")));
  }
  EXPECT_EQ(entries(dir.path()), 2u);
  EXPECT_EQ(get_file(dir / "y/old"), "1");
}

TEST(Fs, NamesThatStayInAFolder) {
  for (const char* name : {"a", "a.json", "...", ".a", "a b"}) EXPECT_TRUE(is_file_name(name)) << name;
  for (const char* name : {"", ".", "..", "/", "/a", "a/", "a/b", "../a", "a/..", "./a"})
    EXPECT_FALSE(is_file_name(name)) << name;
}

TEST(Fs, ExpandInputs) {
  TempDir dir;
  for (const char* name : {"b.txt", "a.txt", "c.md", "sub/d.txt", ".hidden/e.txt", "sub/.f.txt", "[odd].txt"})
    put_file(dir / name, "");
  const std::string root = dir.path().string();
  EXPECT_THAT(expand_inputs({root}, {".txt"}),
              ElementsAre(dir / "[odd].txt", dir / "a.txt", dir / "b.txt", dir / "sub/d.txt"));
  EXPECT_THAT(expand_inputs({root + "/?.*"}, {".txt"}), ElementsAre(dir / "a.txt", dir / "b.txt", dir / "c.md"));
  EXPECT_THAT(expand_inputs({root + "/c.md", root + "/b.txt", root + "/sub/../b.txt"}, {".txt"}),
              ElementsAre(dir / "b.txt", dir / "c.md"));
  EXPECT_THAT(expand_inputs({root + "/[odd].txt"}, {".txt"}), ElementsAre(dir / "[odd].txt"));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { expand_inputs({root, root + "/*.csv"}, {".txt"}); }), HasSubstr("*.csv"));
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
}  // namespace coca::io::fs_test
