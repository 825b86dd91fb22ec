// coca/text/tokenizer.cc - the byte tokenizer, loading by name, stream decoding.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/tokenizer.h"

#include <charconv>
#include <map>
#include <utility>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/text/special_ids.h"
#include "coca/text/tokenizer_import.h"
#include "coca/text/utf8.h"

namespace coca::text {

namespace stdfs = std::filesystem;

namespace {

constexpr const char* kConfigName = "coca_tokenizer.json";
constexpr const char* kModelName = "tokenizer.model";
constexpr const char* kJsonName = "tokenizer.json";
constexpr const char* kTekkenName = "tekken.json";
constexpr const char* kVocabName = "vocab.json";
constexpr const char* kMergesName = "merges.txt";

class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kEndOfText = 256;
  static constexpr std::string_view kEndOfTextName = "<|endoftext|>";

  std::string kind() const override { return "byte"; }
  int32_t vocab_size() const override { return kEndOfText + 1; }
  std::optional<int32_t> bos_id() const override { return kEndOfText; }
  std::optional<int32_t> eos_id() const override { return kEndOfText; }

  std::optional<int32_t> token_id(std::string_view token) const override {
    if (token == kEndOfTextName) return kEndOfText;
    return token.size() == 1 ? std::optional<int32_t>(static_cast<unsigned char>(token[0])) : std::nullopt;
  }

  using Tokenizer::encode;
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special) const override {
    std::vector<int32_t> ids;
    ids.reserve(text.size());
    for (size_t i = 0; i < text.size();) {
      const bool end = special == SpecialTokens::kParse && text.substr(i).starts_with(kEndOfTextName);
      ids.push_back(end ? kEndOfText : static_cast<unsigned char>(text[i]));
      i += end ? kEndOfTextName.size() : 1;
    }
    return ids;
  }
  void append_decoded(int32_t id, DecodeState& state, std::string& out) const override {
    check_id(id);
    state.at_start = false;
    if (id != kEndOfText) out += static_cast<char>(id);
  }
  void save(const stdfs::path& dir) const override {
    io::write_json(dir / kConfigName, nlohmann::json{{"type", "byte"}});
  }
  std::string fingerprint() const override { return "byte-257"; }
};

// The symbols of tasks that are no text. As text they are their numbers, with a blank between them.
class SymbolTokenizer final : public Tokenizer {
 public:
  explicit SymbolTokenizer(int32_t symbols) : symbols_(symbols) {}

  std::string kind() const override { return std::string(kSymbolsKind); }
  int32_t vocab_size() const override { return symbols_; }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }
  std::optional<int32_t> eos_id() const override { return std::nullopt; }

  std::optional<int32_t> token_id(std::string_view token) const override {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), id);
    const bool whole = error == std::errc() && end == token.data() + token.size();
    return whole && id >= 0 && id < symbols_ ? std::optional(id) : std::nullopt;
  }

  using Tokenizer::encode;
  std::vector<int32_t> encode(std::string_view text, SpecialTokens) const override {
    constexpr std::string_view kBlanks = " \t\r\n";
    std::vector<int32_t> ids;
    for (size_t at = text.find_first_not_of(kBlanks); at < text.size(); at = text.find_first_not_of(kBlanks, at)) {
      const std::string_view word = text.substr(at, text.find_first_of(kBlanks, at) - at);
      const std::optional<int32_t> id = token_id(word);
      COCA_CHECK(id, "the text has \"{}\"; this model reads symbols: numbers from 0 to {} with blanks between them",
                 word, symbols_ - 1);
      ids.push_back(*id);
      at += word.size();
    }
    return ids;
  }
  void append_decoded(int32_t id, DecodeState& state, std::string& out) const override {
    check_id(id);
    out += fmt::format("{}{}", state.at_start ? "" : " ", id);
    state.at_start = false;
  }
  void save(const stdfs::path& dir) const override {
    io::write_json(dir / kConfigName, nlohmann::json{{"type", kSymbolsKind}, {"symbols", symbols_}});
  }
  std::string fingerprint() const override { return fmt::format("symbols-{}", symbols_); }

 private:
  int32_t symbols_;
};

std::unique_ptr<Tokenizer> load_config(const stdfs::path& file) {
  const nlohmann::json config = io::read_json(file);
  const nlohmann::json type = config.is_object() ? config.value("type", nlohmann::json()) : nlohmann::json();
  if (type == "byte") return make_byte_tokenizer();
  const nlohmann::json symbols = type == kSymbolsKind ? config.value("symbols", nlohmann::json()) : nlohmann::json();
  COCA_CHECK_AS(kBadFile, symbols.is_number_integer() && symbols >= 1 && symbols <= kMostSymbols,
                "{}: expected {{\"type\": \"byte\"}} or {{\"type\": \"symbols\", \"symbols\": 1 to {}}}", file.string(),
                kMostSymbols);
  return make_symbol_tokenizer(symbols.get<int32_t>());
}

// `beside`: the folder's other files, which come before those that the import makes.
std::unique_ptr<Tokenizer> load_imported(const stdfs::path& file, ImportedTokenizer imported,
                                         std::map<std::string, std::string> beside) {
  beside.merge(imported.beside);
  return make_json_tokenizer(file.string(), std::move(imported.json), std::move(beside));
}

// tokenizer.model of sentencepiece or of LLaMA 3.
std::unique_ptr<Tokenizer> load_model(const stdfs::path& file, const stdfs::path& folder) {
  const std::string content = io::read_file(file);
  if (!is_tiktoken(content)) return load_sentencepiece(folder.empty() ? file : folder);
  return load_imported(file, import_tiktoken(content, file.string()),
                       folder.empty() ? std::map<std::string, std::string>() : read_files_beside(folder));
}

std::unique_ptr<Tokenizer> load_folder(const stdfs::path& dir) {
  const bool config = io::exists(dir / kConfigName), model = io::exists(dir / kModelName);
  const bool json = io::exists(dir / kJsonName);
  // coca's own file is never beside another; the folders of models often hold several of the others.
  COCA_CHECK_AS(kBadFile, !(config && (model || json)), "{}: holds both {} and {}; keep the right one", dir.string(),
                kConfigName, json ? kJsonName : kModelName);
  if (config) return load_config(dir / kConfigName);
  if (json) return load_tokenizer_json(dir);
  if (model) return load_model(dir / kModelName, dir);
  const stdfs::path tekken = dir / kTekkenName, vocab = dir / kVocabName;
  if (io::exists(tekken))
    return load_imported(tekken, import_tekken(io::read_file(tekken), tekken.string()), read_files_beside(dir));
  if (io::exists(vocab) && io::exists(dir / kMergesName))
    return load_imported(vocab, import_vocab_and_merges(dir, read_files_beside(dir)), read_files_beside(dir));
  fail(ErrorKind::kIo, "{}: no tokenizer: looked for {}, {}, {}, {}, and {} with {}", dir.string(), kConfigName,
       kJsonName, kModelName, kTekkenName, kVocabName, kMergesName);
}

}  // namespace

void Tokenizer::check_id(int32_t id) const {
  COCA_CHECK(id >= 0 && id < vocab_size(), "token id {} is outside the {} of the {} tokenizer", id,
             counted(vocab_size(), "id"), kind());
}

std::vector<int32_t> Tokenizer::eos_ids() const {
  const auto eos = eos_id();
  return eos ? std::vector<int32_t>{*eos} : std::vector<int32_t>{};
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  DecodeState state;
  std::string text;
  for (const int32_t id : ids) append_decoded(id, state, text);
  return text;
}

bool is_imported(const stdfs::path& dir) {
  if (io::exists(dir / kConfigName) || io::exists(dir / kJsonName)) return false;
  if (io::exists(dir / kModelName)) return is_tiktoken(io::read_file(dir / kModelName));
  return io::exists(dir / kTekkenName);
}

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }
std::unique_ptr<Tokenizer> make_symbol_tokenizer(int32_t symbols) {
  COCA_CHECK(symbols >= 1 && symbols <= kMostSymbols, "a vocabulary of {}; expected 1 to {}",
             counted(symbols, "symbol"), kMostSymbols);
  return std::make_unique<SymbolTokenizer>(symbols);
}

std::unique_ptr<Tokenizer> load_tokenizer(const stdfs::path& dir_or_file_or_name) {
  const stdfs::path& where = dir_or_file_or_name;
  if (where == "byte") return make_byte_tokenizer();
  if (io::is_folder(where)) return load_folder(where);
  COCA_CHECK_AS(kIo, io::exists(where),
                "tokenizer \"{}\": expected \"byte\", a .model or .json file, or a folder holding {}, {} or {}",
                where.string(), kConfigName, kJsonName, kModelName);
  if (where.filename() == kConfigName) return load_config(where);
  if (where.filename() == kTekkenName)
    return load_imported(where, import_tekken(io::read_file(where), where.string()), {});
  if (where.extension() == ".json") return load_tokenizer_json(where);
  return load_model(where, {});
}

std::string StreamDecoder::push(int32_t id) {
  tokenizer_->append_decoded(id, state_, pending_);
  size_t ready = 0;
  while (ready < pending_.size()) {
    const Utf8Sequence next = next_utf8(std::string_view(pending_).substr(ready));
    if (next.step == Utf8Step::kIncomplete) break;
    ready += next.length;
  }
  std::string out = pending_.substr(0, ready);
  pending_.erase(0, ready);
  return out;
}

std::string StreamDecoder::finish() {
  state_ = {};
  return std::exchange(pending_, {});
}

}  // namespace coca::text
