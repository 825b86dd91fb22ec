// SPDX-License-Identifier: Apache-2.0
#include "ranks.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <optional>

#include "cli.h"
#include "coca/base/count.h"
#include "coca/base/spread.h"
#include "coca/base/version.h"
#include "coca/dist/mpi.h"
#include "coca/io/fs.h"
#include "coca/io/hash.h"

namespace coca::tools {

namespace {

std::optional<dist::MpiJob>& job() {
  static std::optional<dist::MpiJob> one;
  return one;
}

namespace fs = std::filesystem;

// Options that name inputs: texts, which may be globs and folders, or a single file or folder of a model.
constexpr std::array kTextOptions = {"text", "validation_text", "data", "validation_data", "haystack"};
constexpr std::array kModelOptions = {"model", "tokenizer", "adapter", "chat_template"};

struct InputFile {
  std::string what;  // "--model: out/model/config.json"
  fs::path path;
  uint64_t bytes = 0;
};

void add_file(const std::string& flag, const fs::path& path, std::vector<InputFile>& out) {
  out.push_back({fmt::format("{}: {}", flag, path.string()), path, static_cast<uint64_t>(fs::file_size(path))});
}

// Names that are not paths, such as "byte", add nothing. Missing files are reported when they are read.
void add_model_files(const std::string& flag, const fs::path& path, std::vector<InputFile>& out) {
  if (fs::is_regular_file(path)) return add_file(flag, path, out);
  if (!fs::is_directory(path)) return;
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    for (const char* extension : {".json", ".safetensors", ".model", ".txt", ".jinja"})
      if (entry.is_regular_file() && entry.path().extension() == extension) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) add_file(flag, file, out);
}

std::vector<std::string> texts_of(const nlohmann::ordered_json& value) {
  if (value.is_string() && !value.get_ref<const std::string&>().empty()) return {value.get<std::string>()};
  if (value.is_array() && !value.empty() && value.front().is_string()) return value.get<std::vector<std::string>>();
  return {};
}

std::vector<InputFile> input_files(const nlohmann::ordered_json& options) {
  std::vector<InputFile> files;
  for (const auto& [key, value] : options.items()) {
    const std::vector<std::string> given = texts_of(value);
    const std::string flag = detail::flag_name(key);
    if (!given.empty() && std::ranges::find(kTextOptions, key) != kTextOptions.end())
      for (const fs::path& path : io::expand_inputs(given, {".txt", ".jsonl"})) add_file(flag, path, files);
    if (std::ranges::find(kModelOptions, key) != kModelOptions.end())
      for (const std::string& path : given) add_model_files(flag, path, files);
  }
  return files;
}

// Of the whole file, or of 64 blocks spread over it.
uint32_t checksum(const InputFile& file, bool whole) {
  constexpr uint64_t kBlock = 4096, kBlocks = 64;
  const uint64_t all = (file.bytes + kBlock - 1) / kBlock, read = whole ? all : std::min(all, kBlocks);
  std::ifstream in(file.path, std::ios::binary);
  std::array<char, kBlock> block{};
  uint32_t sum = 0;
  for (uint64_t i = 0; i < read; ++i) {
    const auto at = static_cast<uint64_t>(
        spread_index(static_cast<int64_t>(i), static_cast<int64_t>(read), static_cast<int64_t>(all)));
    const uint64_t bytes = std::min(kBlock, file.bytes - at * kBlock);
    if (!whole) in.seekg(static_cast<std::streamoff>(at * kBlock));
    in.read(block.data(), static_cast<std::streamsize>(bytes));
    COCA_CHECK_AS(kIo, in.good(), "{}: cannot be read", file.what);
    sum = io::crc32c(block.data(), bytes, sum);
  }
  return sum;
}

// The value as the user would type it: 32,48; "a b".
std::string value_text(const nlohmann::ordered_json& value) {
  if (value.is_null()) return "not given";
  if (value.is_string()) return fmt::format("\"{}\"", value.get_ref<const std::string&>());
  if (!value.is_array() || value.empty())
    return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::string text;
  for (const auto& item : value) text += (text.empty() ? "" : ",") + value_text(item);
  return text;
}

std::vector<dist::Fact> facts_of(std::string_view command, const nlohmann::ordered_json& options) {
  std::vector<dist::Fact> facts = {{"the program", fmt::format("coca {} ({})", version(), git_commit())},
                                   {"the command", std::string(command)}};
  for (const auto& [key, value] : options.items()) facts.push_back({detail::flag_name(key), value_text(value)});
  return facts;
}

std::vector<dist::Fact> facts_of_files(const nlohmann::ordered_json& options) {
  const std::vector<InputFile> files = input_files(options);
  uint64_t total = 0;
  for (const InputFile& file : files) total += file.bytes;
  const bool whole = total <= uint64_t{1} << 30;
  std::vector<dist::Fact> facts;
  for (const InputFile& file : files)
    facts.push_back(
        {file.what, fmt::format("{}, fingerprint {:08x}", counted(file.bytes, "byte"), checksum(file, whole))});
  return facts;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "an unnamed machine";
}

// Creates the missing parents of a path, and removes those that it created if they are empty at the end.
class TemporaryFolders {
 public:
  explicit TemporaryFolders(const fs::path& folder) {
    for (fs::path at = fs::absolute(folder).lexically_normal(); !io::exists(at) && at.has_relative_path();
         at = at.parent_path())
      if (at.has_filename()) made_.push_back(at);
    io::make_dirs(folder);  // also if another rank has created it, since a network file system may show it late
  }
  ~TemporaryFolders() {
    std::error_code ignored;
    for (const fs::path& folder : made_) fs::remove(folder, ignored);
  }
  TemporaryFolders(const TemporaryFolders&) = delete;
  TemporaryFolders& operator=(const TemporaryFolders&) = delete;

 private:
  std::vector<fs::path> made_;  // innermost first
};

}  // namespace

void start_ranks() {
  if (dist::mpi_launched()) job().emplace();
}

void finish_ranks() { job().reset(); }

void abort_ranks(int exit_code) {
  if (job() && ranks().size() > 1) job()->end_all(exit_code);
}

dist::Communicator& ranks() { return job() ? job()->ranks() : dist::alone(); }

std::string ranks_text() { return ranks().size() == 1 ? "" : fmt::format(", {}", counted(ranks().size(), "rank")); }

void check_ranks(std::string_view command) {
  for (const std::string_view shared :
       {"train", "finetune", "eval ppl", "eval passkey", "eval ruler", "eval mlm", "eval recall"})
    if (command == shared) return;
  COCA_CHECK(
      ranks().size() == 1,
      "coca {} runs as one process; here are {} (train, finetune and eval ppl, passkey, ruler, mlm, recall share their "
      "work)",
      command, counted(ranks().size(), "rank"));
}

void compare_ranks(std::string_view command, const nlohmann::ordered_json& options) {
  if (ranks().size() == 1) return;
  dist::require_same(ranks(), facts_of(command, options));
  std::vector<dist::Fact> files;
  dist::together(ranks(), [&] { files = facts_of_files(options); });
  dist::require_same(ranks(), files);
}

// Rank 0 creates a file with a unique name there, and the other ranks look for it.
void require_shared_out(const fs::path& out) {
  if (ranks().size() == 1) return;
  std::optional<TemporaryFolders> folders;
  std::optional<io::AtomicDir> sign;
  const std::string here = fmt::format("{} on {}", fs::absolute(out).lexically_normal().string(), host_name());
  dist::together(ranks(), [&] {
    if (!first_rank()) return;
    folders.emplace(out);
    sign.emplace(out / "shared");
  });
  const std::string name = dist::broadcast_text(ranks(), 0, first_rank() ? sign->path().filename().string() : "");
  const std::string first = dist::broadcast_text(ranks(), 0, here);
  dist::together(ranks(), [&] {
    if (first_rank()) return;
    folders.emplace(out);
    COCA_CHECK(
        io::exists(out / name),
        "its --out, {}, is not the folder that rank 0 writes to, {}; --out must be one folder that all ranks share",
        here, first);
  });
}

}  // namespace coca::tools
