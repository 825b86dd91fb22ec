// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/weight_files.h"

#include <cmath>
#include <set>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"

namespace coca::formats {

namespace fs = std::filesystem;

namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// What else people keep weights in, for the error message.
std::string other_formats(const fs::path& dir) {
  std::string found;
  for (const fs::path& entry : io::list_folder(dir)) {
    const std::string name = entry.filename().string();
    if (name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".pt") || name.ends_with(".gguf") ||
        name.ends_with(".h5") || name.ends_with(".safetensors"))
      found += (found.empty() ? "" : ", ") + name;
  }
  return found;
}

// A shard must be a plain name: an index from a stranger may not point out of its folder.
void check_shard_name(const fs::path& index, const std::string& name) {
  COCA_CHECK_AS(kBadFile, io::is_file_name(name) && name.find('\\') == std::string::npos,
                "{}: shard \"{}\" is not the name of a file in this folder", index.string(), name);
}

}  // namespace

WeightFiles::WeightFiles(const fs::path& at) {
  if (!io::is_folder(at)) {
    where_ = at;
    add_file(at);
  } else if (io::exists(at / kSingle)) {
    where_ = at / kSingle;
    add_file(where_);
  } else if (io::exists(at / kIndex)) {
    open_shards(at / kIndex);
  } else {
    const std::string others = other_formats(at);
    fail(ErrorKind::kIo, "{} has no {} and no {}{}", at.string(), kSingle, kIndex,
         others.empty() ? "" : "; it holds " + others + ", which are not read: save the model as safetensors first");
  }
}

bool WeightFiles::are_in(const fs::path& folder) { return io::exists(folder / kSingle) || io::exists(folder / kIndex); }

void WeightFiles::add_file(const fs::path& path) {
  files_.push_back(std::make_unique<io::SafetensorsFile>(path));
  const io::SafetensorsFile& file = *files_.back();
  for (const io::StoredTensor& tensor : file.tensors()) {
    const auto [entry, fresh] = entries_.try_emplace(tensor.name, Entry{&file, &tensor});
    COCA_CHECK_AS(kBadFile, fresh, "{}: tensor \"{}\" is in {} as well", path.string(), tensor.name,
                  entry->second.file->path().string());
  }
}

void WeightFiles::open_shards(const fs::path& index) {
  where_ = index;
  const nlohmann::json json = io::read_json(index);
  COCA_CHECK_AS(kBadFile, json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(),
                "{}: expected an object with \"weight_map\": {{tensor: file, ...}}", index.string());
  std::set<std::string> names;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    COCA_CHECK_AS(kBadFile, file.is_string(), "{}: the file of tensor \"{}\" is {}; expected a name", index.string(),
                  tensor, file.dump());
    check_shard_name(index, file.get<std::string>());
    names.insert(file.get<std::string>());
  }
  for (const std::string& name : names) {
    const fs::path shard = index.parent_path() / name;
    COCA_CHECK_AS(kIo, io::exists(shard), "{}: shard {} does not exist", index.string(), name);
    add_file(shard);
  }
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    const Entry entry = find(tensor);
    COCA_CHECK_AS(kBadFile, entry.tensor && entry.file->path().filename() == file.get<std::string>(),
                  "{}: tensor \"{}\" should be in {}{}", index.string(), tensor, file.get<std::string>(),
                  entry.tensor ? ", but is in " + entry.file->path().filename().string() : ", but is not");
  }
  for (const auto& [name, entry] : entries_)
    COCA_CHECK_AS(kBadFile, json["weight_map"].contains(name), "{}: tensor \"{}\" of shard {} is not in the index",
                  index.string(), name, entry.file->path().filename().string());
}

WeightFiles::Entry WeightFiles::find(std::string_view name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? Entry{nullptr, nullptr} : found->second;
}

WeightFiles::Entry WeightFiles::at(std::string_view name) const {
  const Entry entry = find(name);
  COCA_CHECK_AS(kBadFile, entry.tensor, "{}: tensor \"{}\" is missing", where(), name);
  return entry;
}

size_t WeightFiles::bytes() const {
  size_t total = 0;
  for (const auto& [name, entry] : entries_) total += entry.tensor->bytes;
  return total;
}

void check_finite(std::span<const float> values, const std::string& where, std::string_view tensor) {
  for (size_t i = 0; i < values.size(); ++i)
    COCA_CHECK_AS(kBadFile, std::isfinite(values[i]),
                  "{}: tensor \"{}\" holds {} at element {}; expected finite values", where, tensor,
                  without_nan_sign(values[i]), i);
}

}  // namespace coca::formats
