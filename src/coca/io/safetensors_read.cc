// coca/io/safetensors_read.cc - see safetensors.h. The header goes through an event parser that accepts this
// one schema only, so that memory stays in proportion to the file, whatever the header says.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/safetensors.h"

namespace coca::io {

namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::string_view kMetadataKey = "__metadata__";

std::string shortened(std::string_view text) {
  return text.size() <= 100 ? std::string(text) : std::string(text.substr(0, 97)) + "...";
}

struct HeaderEntry {
  std::string name;
  std::optional<DType> dtype;
  std::optional<Dims> shape;
  std::vector<uint64_t> offsets;  // begin, end
};

// Events of nlohmann's parser; throws Error at the first thing that does not belong in a header.
class HeaderParser {
 public:
  HeaderParser(const std::string& file, std::vector<HeaderEntry>& entries, std::map<std::string, std::string>& metadata)
      : file_(file), entries_(entries), metadata_(metadata) {}

  bool null() { unexpected("null"); }
  bool boolean(bool value) { unexpected(value ? "true" : "false"); }
  bool number_integer(int64_t value) { unexpected(fmt::format("{}", value)); }
  bool number_float(double, const std::string& text) { unexpected(text); }
  bool binary(std::vector<uint8_t>&) { unexpected("binary data"); }
  bool number_unsigned(uint64_t value);
  bool string(std::string& value);
  bool start_object(size_t);
  bool key(std::string& value);
  bool end_object();
  bool start_array(size_t);
  bool end_array();
  bool parse_error(size_t byte, const std::string& last_token, const nlohmann::json::exception&) {
    fail(ErrorKind::kBadFile, "{}: the header is not valid JSON: byte {} near \"{}\"", file_, byte + 8,
         shortened(last_token));
  }

 private:
  enum class Place { kOutside, kRoot, kRootValue, kMetadata, kMetadataValue, kTensor, kDType, kShape, kOffsets, kDone };

  [[noreturn]] void unexpected(std::string_view found) const {
    fail(ErrorKind::kBadFile, "{}: {}: found {} where {} is expected", file_, where(), shortened(found), expected());
  }
  std::string where() const;
  std::string_view expected() const;

  const std::string& file_;
  std::vector<HeaderEntry>& entries_;
  std::map<std::string, std::string>& metadata_;
  Place place_ = Place::kOutside;
  std::string root_key_, inner_key_;
  bool metadata_seen_ = false, in_array_ = false;
};

std::string HeaderParser::where() const {
  if (place_ == Place::kOutside || place_ == Place::kRoot || place_ == Place::kDone) return "header";
  std::string text =
      fmt::format("{} \"{}\"", root_key_ == kMetadataKey ? "header entry" : "tensor", shortened(root_key_));
  if (!inner_key_.empty()) text += fmt::format(", field \"{}\"", shortened(inner_key_));
  return text;
}

std::string_view HeaderParser::expected() const {
  switch (place_) {
    case Place::kOutside:
    case Place::kRootValue: return "an object";
    case Place::kMetadataValue: return "a string";
    case Place::kDType: return "the name of a type";
    case Place::kShape: return in_array_ ? "an extent: a whole number from 0 on" : "a list of extents";
    case Place::kOffsets: return in_array_ ? "an offset: a whole number from 0 on" : "a list of two offsets";
    default: return "the end";
  }
}

bool HeaderParser::number_unsigned(uint64_t value) {
  if (!in_array_) unexpected(fmt::format("{}", value));
  HeaderEntry& entry = entries_.back();
  if (place_ == Place::kOffsets) {
    COCA_CHECK_AS(kBadFile, entry.offsets.size() < 2, "{}: tensor \"{}\": more than two data_offsets", file_,
                  shortened(entry.name));
    entry.offsets.push_back(value);
    return true;
  }
  COCA_CHECK_AS(kBadFile, entry.shape->rank < kMaxRank, "{}: tensor \"{}\": more than {} dimensions", file_,
                shortened(entry.name), kMaxRank);
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) unexpected(fmt::format("{}", value));
  (*entry.shape)[entry.shape->rank++] = static_cast<int64_t>(value);
  return true;
}

bool HeaderParser::string(std::string& value) {
  if (place_ == Place::kMetadataValue) {
    metadata_.emplace(inner_key_, value);
    inner_key_.clear();
    place_ = Place::kMetadata;
    return true;
  }
  if (place_ != Place::kDType) unexpected(fmt::format("\"{}\"", shortened(value)));
  entries_.back().dtype = dtype_from_name(value);
  COCA_CHECK_AS(kBadFile, entries_.back().dtype.has_value(),
                "{}: tensor \"{}\": type \"{}\" is not one of F32, F64, BF16, F16, I32, I64, U8, U16, BOOL", file_,
                shortened(root_key_), shortened(value));
  inner_key_.clear();
  place_ = Place::kTensor;
  return true;
}

bool HeaderParser::start_object(size_t) {
  if (place_ == Place::kOutside) {
    place_ = Place::kRoot;
  } else if (place_ == Place::kRootValue && root_key_ == kMetadataKey) {
    COCA_CHECK_AS(kBadFile, !metadata_seen_, "{}: \"{}\" occurs twice", file_, kMetadataKey);
    metadata_seen_ = true;
    place_ = Place::kMetadata;
  } else if (place_ == Place::kRootValue) {
    entries_.push_back({.name = root_key_});
    place_ = Place::kTensor;
  } else {
    unexpected("an object");
  }
  return true;
}

bool HeaderParser::key(std::string& value) {
  if (place_ == Place::kRoot) {
    root_key_ = value;
    place_ = Place::kRootValue;
  } else if (place_ == Place::kMetadata) {
    COCA_CHECK_AS(kBadFile, !metadata_.contains(value), "{}: metadata key \"{}\" occurs twice", file_,
                  shortened(value));
    inner_key_ = value;
    place_ = Place::kMetadataValue;
  } else {
    const HeaderEntry& entry = entries_.back();
    const bool seen = value == "dtype"          ? entry.dtype.has_value()
                      : value == "shape"        ? entry.shape.has_value()
                      : value == "data_offsets" ? !entry.offsets.empty()
                                                : false;
    COCA_CHECK_AS(kBadFile, !seen, "{}: tensor \"{}\": field \"{}\" occurs twice", file_, shortened(entry.name), value);
    inner_key_ = value;
    if (value == "dtype")
      place_ = Place::kDType;
    else if (value == "shape")
      place_ = Place::kShape;
    else if (value == "data_offsets")
      place_ = Place::kOffsets;
    else
      fail(ErrorKind::kBadFile, "{}: tensor \"{}\": unknown field \"{}\"; expected dtype, shape, data_offsets", file_,
           shortened(entry.name), shortened(value));
  }
  return true;
}

bool HeaderParser::end_object() {
  if (place_ == Place::kTensor) {
    const HeaderEntry& entry = entries_.back();
    COCA_CHECK_AS(kBadFile, entry.dtype && entry.shape && entry.offsets.size() == 2,
                  "{}: tensor \"{}\": dtype, shape and two data_offsets are all needed", file_, shortened(entry.name));
  }
  place_ = place_ == Place::kRoot ? Place::kDone : Place::kRoot;
  return true;
}

bool HeaderParser::start_array(size_t) {
  if (in_array_ || (place_ != Place::kShape && place_ != Place::kOffsets)) unexpected("a list");
  in_array_ = true;
  if (place_ == Place::kShape) entries_.back().shape = Dims{};
  return true;
}

bool HeaderParser::end_array() {
  COCA_CHECK_AS(kBadFile, place_ != Place::kOffsets || entries_.back().offsets.size() == 2,
                "{}: tensor \"{}\": data_offsets has {}; expected 2", file_, shortened(root_key_),
                counted(entries_.back().offsets.size(), "number"));
  in_array_ = false;
  inner_key_.clear();
  place_ = Place::kTensor;
  return true;
}

// Bytes of the tensor by its shape; Error when they do not fit 63 bits.
uint64_t checked_bytes(const std::string& file, const HeaderEntry& entry) {
  int64_t extents = 1, padded = 1;  // padded counts an extent of 0 as 1: strides are computed from it
  bool overflow = false;
  for (int i = 0; i < entry.shape->rank; ++i) {
    overflow |= __builtin_mul_overflow(padded, std::max<int64_t>((*entry.shape)[i], 1), &padded);
    if (!overflow) extents *= (*entry.shape)[i];
  }
  overflow |= __builtin_mul_overflow(padded, static_cast<int64_t>(dtype_size(*entry.dtype)), &padded);
  COCA_CHECK_AS(kBadFile, !overflow, "{}: tensor \"{}\": shape {} has more than 2^63 bytes", file,
                shortened(entry.name), entry.shape->text());
  return static_cast<uint64_t>(extents) * dtype_size(*entry.dtype);
}

// Data must be covered exactly once: no overlap, no gap, nothing after the last tensor.
void check_layout(const std::string& file, std::vector<HeaderEntry>& entries, uint64_t data_bytes) {
  for (const HeaderEntry& entry : entries) {
    const uint64_t begin = entry.offsets[0], end = entry.offsets[1];
    COCA_CHECK_AS(kBadFile, begin <= end && end <= data_bytes,
                  "{}: tensor \"{}\": data_offsets [{}, {}] are not within the {} of data", file, shortened(entry.name),
                  begin, end, counted(data_bytes, "byte"));
    const uint64_t expected = checked_bytes(file, entry);
    COCA_CHECK_AS(kBadFile, end - begin == expected,
                  "{}: tensor \"{}\": data_offsets [{}, {}] are {}; {} of shape {} takes {}", file,
                  shortened(entry.name), begin, end, counted(end - begin, "byte"), dtype_name(*entry.dtype),
                  entry.shape->text(), grouped(expected));
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const HeaderEntry& a, const HeaderEntry& b) { return a.offsets < b.offsets; });
  uint64_t covered = 0;
  for (const HeaderEntry& entry : entries) {
    COCA_CHECK_AS(kBadFile, entry.offsets[0] == covered, "{}: tensor \"{}\" begins at data byte {}; expected {} ({})",
                  file, shortened(entry.name), entry.offsets[0], covered,
                  entry.offsets[0] < covered ? "tensors overlap" : "bytes between belong to no tensor");
    covered = entry.offsets[1];
  }
  COCA_CHECK_AS(kBadFile, covered == data_bytes, "{}: tensors take {} of data; the file has {}", file,
                counted(covered, "byte"), grouped(data_bytes));
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& file) : path_(file), file_(file) {
  const std::string name = file.string();
  const std::span<const std::byte> bytes = file_.bytes();
  COCA_CHECK_AS(kBadFile, bytes.size() >= 8, "{}: {}; a safetensors file has at least 8", name,
                counted(bytes.size(), "byte"));
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i)
    header_bytes = header_bytes << 8 | std::to_integer<uint64_t>(bytes[static_cast<size_t>(i)]);
  COCA_CHECK_AS(kBadFile, header_bytes <= kMaxHeaderBytes, "{}: header of {}; at most {} are allowed", name,
                counted(header_bytes, "byte"), grouped(kMaxHeaderBytes));
  COCA_CHECK_AS(kBadFile, header_bytes <= bytes.size() - 8, "{}: header of {} in a file of {}: truncated?", name,
                counted(header_bytes, "byte"), grouped(bytes.size()));
  const char* text = reinterpret_cast<const char*>(bytes.data()) + 8;
  COCA_CHECK_AS(kBadFile, header_bytes > 0 && text[0] == '{', "{}: the header does not begin with \"{{\"", name);

  std::vector<HeaderEntry> entries;
  HeaderParser parser(name, entries, metadata_);
  nlohmann::json::sax_parse(text, text + header_bytes, &parser);
  const std::span<const std::byte> data = bytes.subspan(8 + header_bytes);
  check_layout(name, entries, data.size());

  tensors_.reserve(entries.size());
  for (HeaderEntry& entry : entries) {
    StoredTensor tensor{.dtype = *entry.dtype,
                        .shape = *entry.shape,
                        .data = data.data() + entry.offsets[0],
                        .bytes = entry.offsets[1] - entry.offsets[0]};
    tensor.name = std::move(entry.name);
    if (reinterpret_cast<uintptr_t>(tensor.data) % dtype_size(tensor.dtype) != 0) {
      copies_.push_back(allocate(tensor.bytes, fmt::format("tensor \"{}\" of {}", shortened(tensor.name), name)));
      if (tensor.bytes > 0) std::memcpy(copies_.back().get(), tensor.data, tensor.bytes);
      tensor.data = copies_.back().get();
    }
    COCA_CHECK_AS(kBadFile, index_.emplace(tensor.name, tensors_.size()).second, "{}: tensor \"{}\" occurs twice", name,
                  shortened(tensor.name));
    tensors_.push_back(std::move(tensor));
  }
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const StoredTensor& SafetensorsFile::at(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  COCA_CHECK_AS(kBadFile, tensor != nullptr, "{}: no tensor \"{}\" among its {}", path_.string(), name,
                tensors_.size());
  return *tensor;
}

void SafetensorsFile::release(const StoredTensor& tensor) const { file_.release({tensor.data, tensor.bytes}); }

namespace {

template <typename T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <typename Stored, typename Convert>
void convert(const std::byte* from, std::span<float> values, const Convert& to_float) {
  for (float& value : values) {
    value = to_float(load<Stored>(from));
    from += sizeof(Stored);
  }
}

}  // namespace

void read_values(const StoredTensor& tensor, int64_t first, std::span<float> values) {
  const std::byte* from = tensor.data + static_cast<size_t>(first) * dtype_size(tensor.dtype);
  switch (tensor.dtype) {
    case DType::kF32: return convert<float>(from, values, [](float x) { return x; });
    case DType::kF64: return convert<double>(from, values, [](double x) { return static_cast<float>(x); });
    case DType::kF16: return convert<uint16_t>(from, values, f16_to_f32);
    case DType::kBF16: return convert<BF16>(from, values, [](BF16 x) { return static_cast<float>(x); });
    default:
      fail(ErrorKind::kInvalidArgument, "tensor \"{}\" of type {}; expected one of F32, F16, BF16, F64", tensor.name,
           dtype_name(tensor.dtype));
  }
}

std::vector<float> to_f32(const StoredTensor& tensor) {
  std::vector<float> values(tensor.bytes / dtype_size(tensor.dtype));
  read_values(tensor, 0, values);
  return values;
}

}  // namespace coca::io
