// SPDX-License-Identifier: Apache-2.0
#include "coca/io/manifest.h"

#include <algorithm>
#include <map>
#include <string>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/hash.h"
#include "coca/io/json_file.h"
#include "coca/io/mmap.h"

namespace coca::io {

namespace fs = std::filesystem;

namespace {

// Of a file that is not to stay in memory.
std::string checksum(const fs::path& file) {
  const MappedFile mapped(file);
  constexpr size_t kBlock = size_t{1} << 24;
  uint32_t sum = 0;
  for (size_t at = 0; at < mapped.bytes().size(); at += kBlock) {
    const auto part = mapped.bytes().subspan(at, std::min(kBlock, mapped.bytes().size() - at));
    sum = crc32c(part.data(), part.size(), sum);
    mapped.release(part);
  }
  return fmt::format("{:08x}", sum);
}

}  // namespace

void write_manifest(const fs::path& dir) {
  std::map<std::string, fs::path> files;  // in the order of their names
  std::error_code error, ignored;         // a link that leads nowhere is no file
  fs::directory_iterator entry(dir, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error))
    if (entry->is_regular_file(ignored) && entry->path().filename() != kManifestName)
      files[entry->path().filename().string()] = entry->path();
  COCA_CHECK_AS(kIo, !error, "{}: cannot list its files: {}", dir.string(), error.message());
  nlohmann::ordered_json list = nlohmann::ordered_json::object();
  for (const auto& [name, file] : files) {
    const auto bytes = fs::file_size(file, error);
    COCA_CHECK_AS(kIo, !error, "{}: cannot tell its size: {}", file.string(), error.message());
    list[name] = {{"bytes", bytes}, {"crc32c", checksum(file)}};
  }
  write_json(dir / kManifestName, nlohmann::ordered_json{{"files", std::move(list)}});
}

void check_manifest(const fs::path& dir) {
  const fs::path manifest = dir / kManifestName;
  if (!io::exists(manifest)) return;
  const nlohmann::json json = read_json(manifest);
  COCA_CHECK_AS(kBadFile, json.is_object() && json.contains("files") && json["files"].is_object(),
                "{}: has no object \"files\"", manifest.string());
  for (const auto& [name, wanted] : json["files"].items()) {
    COCA_CHECK_AS(kBadFile, is_file_name(name), "{}: \"{}\" is not the name of a file in the folder", manifest.string(),
                  name);
    COCA_CHECK_AS(kBadFile,
                  wanted.is_object() && wanted.contains("bytes") && wanted["bytes"].is_number_unsigned() &&
                      wanted.contains("crc32c") && wanted["crc32c"].is_string(),
                  "{}: \"{}\" has no \"bytes\" and \"crc32c\"", manifest.string(), name);
    const fs::path file = dir / name;
    std::error_code error;
    const auto bytes = fs::file_size(file, error);
    COCA_CHECK_AS(kBadFile, !error, "{}: {}", file.string(), error.message());
    COCA_CHECK_AS(kBadFile, bytes == wanted["bytes"].get<uint64_t>(), "{}: has {}; {} were written", file.string(),
                  counted(bytes, "byte"), grouped(wanted["bytes"].get<uint64_t>()));
    const std::string sum = checksum(file);
    COCA_CHECK_AS(kBadFile, sum == wanted["crc32c"].get<std::string>(), "{}: its CRC-32C is {}; {} was written",
                  file.string(), sum, wanted["crc32c"].get<std::string>());
  }
}

}  // namespace coca::io
