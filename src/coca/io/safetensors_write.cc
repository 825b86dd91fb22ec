// coca/io/safetensors_write.cc - see safetensors.h.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>

#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/safetensors.h"

namespace coca::io {

namespace {

std::string quoted(const std::filesystem::path& file, const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail(ErrorKind::kInvalidArgument, "{}: a tensor name or metadata text is not valid UTF-8", file.string());
  }
}

void check_tensors(const std::filesystem::path& file, const std::vector<TensorToSave>& sorted) {
  std::vector<std::string_view> names;
  for (const TensorToSave& t : sorted) {
    COCA_CHECK(t.value.contiguous(), "{}: tensor \"{}\" of shape {} is strided; only contiguous ones can be saved",
               file.string(), t.name, t.value.shape.text());
    COCA_CHECK(!t.value.empty() || t.value.numel() == 0, "{}: tensor \"{}\" has no data", file.string(), t.name);
    COCA_CHECK(t.name != "__metadata__", "{}: a tensor cannot be called \"__metadata__\"", file.string());
    names.push_back(t.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  COCA_CHECK(twice == names.end(), "{}: tensor \"{}\" is given twice", file.string(), *twice);
}

}  // namespace

void save_safetensors(const std::filesystem::path& file, const std::vector<TensorToSave>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<TensorToSave> sorted = tensors;
  std::sort(sorted.begin(), sorted.end(), [](const TensorToSave& a, const TensorToSave& b) {
    const size_t size_a = dtype_size(a.value.dtype), size_b = dtype_size(b.value.dtype);
    return size_a != size_b ? size_a > size_b : a.name < b.name;
  });
  check_tensors(file, sorted);

  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata)
      header += fmt::format("{}{}:{}", header.back() == '{' ? "" : ",", quoted(file, key), quoted(file, value));
    header += "}";
  }
  size_t offset = 0;
  for (const TensorToSave& t : sorted) {
    std::string shape;
    for (int i = 0; i < t.value.rank(); ++i) shape += fmt::format("{}{}", i ? "," : "", t.value.size(i));
    header +=
        fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", header.size() == 1 ? "" : ",",
                    quoted(file, t.name), dtype_name(t.value.dtype), shape, offset, offset + t.value.bytes());
    offset += t.value.bytes();
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');

  unsigned char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(static_cast<uint64_t>(header.size()) >> (8 * i));
  AtomicFile out(file);
  out.write(length, sizeof length);
  out.write(header.data(), header.size());
  for (const TensorToSave& t : sorted) out.write(t.value.data, t.value.bytes());
  out.commit();
}

}  // namespace coca::io
