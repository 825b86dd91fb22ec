// SPDX-License-Identifier: Apache-2.0
#include "coca/io/manifest.h"

#include <fmt/format.h>

#include "coca/base/count.h"
#include "coca/io/json_file.h"
#include "support/temp_dir.h"

namespace coca::io::manifest_test {
namespace {

using test::error_of;
using test::get_file;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string refused(const std::filesystem::path& dir) {
  return error_of(ErrorKind::kBadFile, [&] { check_manifest(dir); });
}

TEST(Manifest, HoldsEveryFileButItselfAndFolders) {
  TempDir dir;
  put_file(dir / "weights", std::string("\0\xff", 2));
  put_file(dir / "empty", "");
  put_file(dir / "sub/other", "x");
  write_manifest(dir);
  const std::string first = get_file(dir / kManifestName);
  EXPECT_THAT(first, AllOf(HasSubstr("\"weights\""), HasSubstr("\"empty\""), Not(HasSubstr("other")),
                           Not(HasSubstr("manifest"))));
  EXPECT_NO_THROW(check_manifest(dir));
  write_manifest(dir);  // the manifest does not list itself
  EXPECT_EQ(get_file(dir / kManifestName), first);
}

TEST(Manifest, ListsTheFilesPresent) {
  TempDir dir;
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { write_manifest(dir / "gone"); }),
              HasSubstr("gone: cannot list its files"));
  put_file(dir / "a", "abc");
  std::filesystem::create_symlink("nowhere", dir / "link");
  write_manifest(dir);
  EXPECT_EQ(read_json(dir / kManifestName).at("files").size(), 1u);
}

TEST(Manifest, AFolderWithoutOnePasses) {
  TempDir dir;
  put_file(dir / "weights", "x");
  EXPECT_NO_THROW(check_manifest(dir));
}

TEST(Manifest, NoticesEveryBitAndEveryMissingByte) {
  TempDir dir;
  const std::string good = "sixteen bytes ..";
  put_file(dir / "weights", good);
  write_manifest(dir);
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    put_file(dir / "weights", bad);
    EXPECT_THAT(refused(dir), AllOf(HasSubstr("weights"), HasSubstr("CRC-32C"))) << bit;
  }
  for (size_t n = 0; n < good.size(); ++n) {
    put_file(dir / "weights", good.substr(0, n));
    EXPECT_THAT(refused(dir),
                AllOf(HasSubstr("weights"), HasSubstr("has " + counted(n, "byte") + "; 16 were written")));
  }
  std::filesystem::remove(dir / "weights");
  EXPECT_THAT(refused(dir), AllOf(HasSubstr("weights"), HasSubstr("No such file")));
}

TEST(Manifest, RefusesInvalidManifests) {
  TempDir dir;
  const std::filesystem::path folder = dir / "folder";
  put_file(dir / "outside", "x");
  put_file(folder / "a", "x");
  const auto read = [&](const std::string& text) {
    put_file(folder / kManifestName, text);
    const std::string message = refused(folder);
    EXPECT_THAT(message, HasSubstr(kManifestName)) << text;
    return message;
  };
  read("");
  read("{");
  for (const char* text : {"[]", "{}", R"({"files": []})", R"({"files": 1})"})
    EXPECT_THAT(read(text), HasSubstr("\"files\"")) << text;
  for (const char* entry : {"1", "{}", R"({"bytes": 1})", R"({"crc32c": "0"})", R"({"bytes": -1, "crc32c": "0"})",
                            R"({"bytes": 1.5, "crc32c": "0"})", R"({"bytes": 1, "crc32c": 0})"})
    EXPECT_THAT(read(fmt::format(R"({{"files": {{"a": {}}}}})", entry)),
                AllOf(HasSubstr("\"a\""), HasSubstr("\"bytes\" and \"crc32c\"")))
        << entry;
  for (const char* name : {"../outside", "/etc/passwd", "sub/a", "a/../a", "..", ".", ""})
    EXPECT_THAT(read(fmt::format(R"({{"files": {{"{}": {{"bytes": 1, "crc32c": "0"}}}}}})", name)),
                HasSubstr("is not the name of a file in the folder"))
        << name;
}

}  // namespace
}  // namespace coca::io::manifest_test
