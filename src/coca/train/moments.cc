// SPDX-License-Identifier: Apache-2.0
#include "coca/train/moments.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coca/io/fs.h"
#include "coca/io/safetensors.h"
#include "coca/tensor/transfer.h"

namespace coca::train {

namespace fs = std::filesystem;

namespace {

// Elements [begin, end) of a tensor in one of the files.
struct Stored {
  int64_t begin, end;
  const io::StoredTensor* tensor;
  const fs::path* file;
};

// "m.NAME[begin:end]" to its parts; without brackets the whole.
std::string split_name(const io::StoredTensor& tensor, const fs::path& file, int64_t& begin, int64_t& end) {
  const std::string& name = tensor.name;
  begin = 0;
  end = tensor.shape.product();
  if (!name.ends_with(']')) return name;
  const size_t open = name.rfind('['), colon = name.find(':', open == std::string::npos ? 0 : open);
  const auto number = [&](size_t from, size_t to, int64_t& out) {
    const auto [at, error] = std::from_chars(name.data() + from, name.data() + to, out);
    return error == std::errc() && at == name.data() + to && out >= 0;
  };
  const bool sound = open != std::string::npos && colon != std::string::npos && number(open + 1, colon, begin) &&
                     number(colon + 1, name.size() - 1, end) && begin < end && tensor.shape == Dims({end - begin});
  COCA_CHECK_AS(kBadFile, sound, "{}: tensor \"{}\" of shape {}: expected NAME[begin:end] and so many elements",
                file.string(), name, tensor.shape.text());
  return name.substr(0, open);
}

class StoredMoments {
 public:
  explicit StoredMoments(const fs::path& dir) {
    std::vector<fs::path> paths;
    for (const fs::path& entry : io::list_folder(dir)) {
      const std::string name = entry.filename().string();
      if (name.starts_with("optimizer") && name.ends_with(".safetensors")) paths.push_back(entry);
    }
    std::ranges::sort(paths);
    if (paths.empty()) paths.push_back(dir / "optimizer.safetensors");  // its absence gives the error
    for (const fs::path& path : paths) files_.push_back(std::make_unique<io::SafetensorsFile>(path));
    for (const auto& file : files_)
      for (const io::StoredTensor& tensor : file->tensors()) {
        Stored stored{.begin = 0, .end = 0, .tensor = &tensor, .file = &file->path()};
        const std::string name = split_name(tensor, file->path(), stored.begin, stored.end);
        tensors_[name].push_back(stored);
      }
  }

  void read(const std::string& name, const model::ParamInfo& info, int64_t begin, int64_t end, float* out) const {
    const auto found = tensors_.find(name);
    COCA_CHECK_AS(kBadFile, found != tensors_.end(), "{}: tensor \"{}\" is missing", files_.front()->path().string(),
                  name);
    int64_t at = begin;  // every element must be in one of the pieces
    for (bool more = true; more && at < end;) {
      more = false;
      for (const Stored& s : found->second) {
        const bool whole = s.begin == 0 && s.end == info.shape.product();
        COCA_CHECK_AS(kBadFile,
                      s.tensor->dtype == DType::kF32 && s.end <= info.shape.product() &&
                          (!whole || s.tensor->shape == info.shape || s.tensor->name != name),
                      "{}: tensor \"{}\" is {} {}; expected F32 {}", s.file->string(), s.tensor->name,
                      dtype_name(s.tensor->dtype), s.tensor->shape.text(), info.shape.text());
        if (s.begin > at || s.end <= at) continue;
        const int64_t stop = std::min(s.end, end);
        std::memcpy(out + (at - begin), reinterpret_cast<const float*>(s.tensor->data) + (at - s.begin),
                    static_cast<size_t>(stop - at) * sizeof(float));
        at = stop;
        more = true;
      }
    }
    COCA_CHECK_AS(kBadFile, at == end, "{}: tensor \"{}\" lacks its elements from {} on",
                  files_.front()->path().string(), name, at);
  }

 private:
  std::vector<std::unique_ptr<io::SafetensorsFile>> files_;
  std::map<std::string, std::vector<Stored>> tensors_;
};

}  // namespace

void save_moments(const fs::path& dir, optim::AdamW& optimizer, const dist::Communicator& ranks) {
  Context cx(optimizer.memory());
  Tensor first, second;  // files are written from the host
  const auto here = [&](TensorRef all, Tensor& copy) { return cx.memory() ? (copy = to_host(cx, all)).ref() : all; };
  const TensorRef m = here(optimizer.first_moment(), first), v = here(optimizer.second_moment(), second);
  std::vector<io::TensorToSave> moments;
  for (const optim::AdamW::Piece& piece : optimizer.pieces()) {
    const int64_t count = piece.end - piece.begin;
    const bool whole = count == piece.info->shape.product();
    const std::string name = piece.info->name + (whole ? "" : fmt::format("[{}:{}]", piece.begin, piece.end));
    const auto value = [&](TensorRef all) {
      return all.narrow(0, piece.packed, count).reshape(whole ? piece.info->shape : Dims({count}));
    };
    moments.push_back({"m." + name, value(m)});
    moments.push_back({"v." + name, value(v)});
  }
  const std::string name = ranks.size() == 1
                               ? "optimizer.safetensors"
                               : fmt::format("optimizer-{:05}-of-{:05}.safetensors", ranks.rank() + 1, ranks.size());
  io::save_safetensors(dir / name, moments);
}

void load_moments(const fs::path& dir, optim::AdamW& optimizer) {
  const StoredMoments stored(dir);
  Context cx(optimizer.memory());
  const auto read = [&](const char* prefix, MutTensorRef all) {
    Tensor host;
    if (cx.memory()) host = Tensor(all.shape);
    float* to = cx.memory() ? host.ref().as<float>() : all.as<float>();
    for (const optim::AdamW::Piece& piece : optimizer.pieces())
      stored.read(prefix + piece.info->name, *piece.info, piece.begin, piece.end, to + piece.packed);
    if (!cx.memory()) return;
    transfer(cx, all, host);
    cx.synchronize();
  };
  read("m.", optimizer.first_moment());
  read("v.", optimizer.second_moment());
}

}  // namespace coca::train
