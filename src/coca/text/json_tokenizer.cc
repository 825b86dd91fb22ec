// coca/text/json_tokenizer.cc - a tokenizer.json as a Tokenizer: added tokens, normalizer, words, BPE, and back.
// SPDX-License-Identifier: Apache-2.0
#include <map>

#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/hash.h"
#include "coca/text/added_tokens.h"
#include "coca/text/bpe.h"
#include "coca/text/normalizer.h"
#include "coca/text/piece_decoder.h"
#include "coca/text/pre_tokenizer.h"
#include "coca/text/special_ids.h"
#include "coca/text/tokenizer.h"
#include "coca/text/tokenizer_file.h"
#include "coca/text/tokenizer_import.h"
#include "coca/text/utf8.h"

namespace coca::text {

namespace {

namespace stdfs = std::filesystem;

constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";

// A text made valid, and what each U+FFFD in it was.
struct Repaired {
  std::string text;
  std::vector<std::string_view> originals;
};

Repaired repair(std::string_view raw) {
  Repaired out;
  while (!raw.empty()) {
    size_t length = find_invalid(raw);
    const std::string_view valid = raw.substr(0, length);
    for (size_t at = valid.find(kReplacementCharacter); at != std::string_view::npos;
         at = valid.find(kReplacementCharacter, at + 3))
      out.originals.push_back(kReplacementCharacter);
    out.text += valid;
    raw.remove_prefix(length);
    if (raw.empty()) break;
    length = next_utf8(raw).length;
    out.text += kReplacementCharacter;
    out.originals.push_back(raw.substr(0, length));
    raw.remove_prefix(length);
  }
  return out;
}

class JsonTokenizer final : public Tokenizer {
 public:
  JsonTokenizer(const std::string& origin, std::string content, std::map<std::string, std::string> beside)
      : content_(std::move(content)), beside_(std::move(beside)) {
    TokenizerFile file = parse_tokenizer_json(content_, origin);
    const JsonField root(file.rest, origin);
    root.only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
               "decoder", "model"});
    const JsonField model = root.at("model");
    if (model.has("type") && model.at("type").string() != "BPE") model.at("type").refuse("\"BPE\"");
    vocabulary_ = std::move(file.vocabulary);
    vocabulary_.index(origin);
    if (root.has("normalizer")) normalizer_ = Normalizer(root.at("normalizer"));
    if (root.has("pre_tokenizer")) pre_tokenizer_ = PreTokenizer(root.at("pre_tokenizer"));
    if (pre_tokenizer_.needs_origins() && !normalizer_.empty())
      root.at("pre_tokenizer").refuse("Metaspace with prepend_scheme \"first\" to be the first step, or no normalizer");
    const bool bytes = pre_tokenizer_.byte_level();
    bpe_ = std::make_unique<Bpe>(model, vocabulary_, file.merges, bytes ? BpeSymbols::kBytes : BpeSymbols::kCharacters);
    read_added_tokens(root);
    decoder_ = std::make_unique<PieceDecoder>(root.has("decoder") ? root.at("decoder") : JsonField(kNull, origin));
    if (root.has("post_processor")) frame_ = read_frame(root.at("post_processor"));
    special_ids_ = read_special_ids(beside_, origin, {"tokenizer_config.json", "special_tokens_map.json"},
                                    [&](std::string_view token) { return token_id(token); });
    check_ids(origin);
    keeps_bytes_ = bytes && pre_tokenizer_.keeps_all() && normalizer_.keeps_replacement_characters();
    cuts_at_blanks_ = bpe_->splits_before(kBlank);
  }

  std::string kind() const override { return "bpe"; }
  int32_t vocab_size() const override { return vocab_size_; }
  std::optional<int32_t> bos_id() const override { return special_ids_.bos; }
  std::optional<int32_t> eos_id() const override { return special_ids_.eos; }
  std::vector<int32_t> eos_ids() const override { return special_ids_.ends; }
  SequenceFrame frame() const override { return frame_; }
  bool has_frame() const override { return true; }
  std::string fingerprint() const override { return "bpe-" + io::fingerprint64(content_); }

  std::optional<int32_t> token_id(std::string_view token) const override {
    for (const AddedToken& added : added_tokens_)
      if (added.content == token) return added.id;
    return vocabulary_.find(token);
  }

  using Tokenizer::encode;
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special) const override {
    Encoding out;
    out.ids.reserve(text.size() / 4 + 8);
    if (is_valid_utf8(text)) {
      encode_valid(text, special, out);
    } else {
      const Repaired repaired = repair(text);
      if (keeps_bytes_) out.originals = &repaired.originals;
      encode_valid(repaired.text, special, out);
    }
    return std::move(out.ids);
  }

  void append_decoded(int32_t id, DecodeState& state, std::string& out) const override {
    check_id(id);
    const auto added = added_by_id_.find(id);
    if (added != added_by_id_.end()) {
      if (!added->second->special) decoder_->append(added->second->spelling, state, out);
      return;
    }
    COCA_CHECK(vocabulary_.holds(id), "token id {} has no token in this tokenizer.json; its ids have holes", id);
    decoder_->append(vocabulary_.token(id), state, out);
  }

  void save(const stdfs::path& dir) const override {
    io::write_file_atomic(dir / "tokenizer.json", content_);
    for (const auto& [name, content] : beside_) io::write_file_atomic(dir / name, content);
  }

 private:
  static constexpr std::string_view kBlank = "\xe2\x96\x81";  // U+2581

  struct Encoding {
    std::vector<int32_t> ids;
    const std::vector<std::string_view>* originals = nullptr;  // what the U+FFFD of the text were, in order
    size_t next_original = 0;
    std::string word;
  };

  void read_added_tokens(const JsonField& root) {
    if (!root.has("added_tokens")) return;
    const JsonField list = root.at("added_tokens");
    for (size_t i = 0; i < list.size(); ++i) {
      AddedToken token = read_added_token(list.item(i));
      if (token.content.empty()) continue;
      token.spelling = token.normalized ? normalizer_.apply(token.content).text : token.content;
      added_tokens_.push_back(std::move(token));
    }
    const int64_t most = 16 * (static_cast<int64_t>(vocabulary_.count()) + std::ssize(added_tokens_)) + 1024;
    std::vector<const AddedToken*> raw, normalized;
    std::vector<std::string> raw_spelling, normalized_spelling;
    std::map<std::string_view, int32_t> seen;
    for (const AddedToken& token : added_tokens_) {
      const std::string where = fmt::format("{}: added_tokens: \"{}\"", root.where(), token.content);
      const int32_t known = vocabulary_.find(token.content).value_or(token.id);
      COCA_CHECK_AS(kBadFile, known == token.id, "{} has id {}, in model.vocab {}", where, token.id, known);
      COCA_CHECK_AS(kBadFile, !vocabulary_.holds(token.id) || vocabulary_.token(token.id) == token.content,
                    "{} has id {}, which is \"{}\" in model.vocab", where, token.id, vocabulary_.token(token.id));
      COCA_CHECK_AS(kBadFile, token.id < most, "{} has id {}; expected less than {} with so few tokens", where,
                    token.id, most);
      COCA_CHECK_AS(kBadFile, seen.emplace(token.content, token.id).second, "{} occurs twice", where);
      const auto [place, fresh] = added_by_id_.emplace(token.id, &token);
      COCA_CHECK_AS(kBadFile, fresh, "{} has id {}, as \"{}\" has", where, token.id, place->second->content);
      (token.normalized ? normalized : raw).push_back(&token);
      (token.normalized ? normalized_spelling : raw_spelling).push_back(token.spelling);
    }
    raw_matcher_ = TokenMatcher(std::move(raw), raw_spelling);
    normalized_matcher_ = TokenMatcher(std::move(normalized), normalized_spelling);
  }

  void check_ids(const std::string& origin) {
    vocab_size_ = vocabulary_.size();
    if (!added_by_id_.empty()) vocab_size_ = std::max(vocab_size_, added_by_id_.rbegin()->first + 1);
    for (const auto* ids : {&frame_.before, &frame_.after})
      for (const int32_t id : *ids)
        COCA_CHECK_AS(kBadFile, id >= 0 && id < vocab_size_, "{}: post_processor names id {}; expected 0 to {}", origin,
                      id, vocab_size_ - 1);
    std::vector<int32_t> special = special_ids_.ends;
    if (special_ids_.bos) special.push_back(*special_ids_.bos);
    for (const int32_t id : special)
      COCA_CHECK_AS(kBadFile, id < vocab_size_, "{}: generation_config.json beside it names id {}; expected 0 to {}",
                    origin, id, vocab_size_ - 1);
  }

  void encode_valid(std::string_view text, SpecialTokens special, Encoding& out) const {
    raw_matcher_.split(text, special, [&](std::string_view part, int32_t id) {
      if (id >= 0) return out.ids.push_back(id);
      const bool first = part.data() == text.data();
      if (normalizer_.empty()) return encode_normalized(part, special, first, out);
      const Normalizer::Normalized normalized = normalizer_.apply(part);
      encode_normalized(normalized.text, special, first && normalized.from_start, out);
    });
  }

  void encode_normalized(std::string_view text, SpecialTokens special, bool first, Encoding& out) const {
    using Position = PreTokenizer::Position;
    normalized_matcher_.split(text, special, [&](std::string_view part, int32_t id) {
      if (id >= 0) return out.ids.push_back(id);
      const bool at_start = first && part.data() == text.data();
      pre_tokenizer_.for_each_word(part, at_start ? Position::kTextStart : Position::kWithin,
                                   [&](std::string_view word) { encode_word(word, out); });
    });
  }

  void encode_word(std::string_view word, Encoding& out) const {
    if (out.originals != nullptr) word = with_originals(word, out);
    if (!cuts_at_blanks_) return bpe_->encode(word, out.ids);
    // A model of characters often has no words at all: cut where no token reaches across.
    size_t begin = 0;
    for (size_t at = word.find(kBlank, kBlank.size()); at != std::string_view::npos; at = word.find(kBlank, at + 3)) {
      if (word.substr(at - kBlank.size(), kBlank.size()) == kBlank) continue;
      bpe_->encode(word.substr(begin, at - begin), out.ids);
      begin = at;
    }
    bpe_->encode(word.substr(begin), out.ids);
  }

  static std::string_view with_originals(std::string_view word, Encoding& out) {
    size_t at = word.find(kReplacementCharacter);
    if (at == std::string_view::npos) return word;
    out.word.clear();
    size_t begin = 0;
    for (; at != std::string_view::npos && out.next_original < out.originals->size();
         at = word.find(kReplacementCharacter, begin)) {
      out.word.append(word, begin, at - begin);
      out.word += (*out.originals)[out.next_original++];
      begin = at + kReplacementCharacter.size();
    }
    out.word.append(word, begin);
    return out.word;
  }

  static inline const nlohmann::json kNull = nullptr;

  std::string content_;
  std::map<std::string, std::string> beside_;  // the folder's other files about tokens, by name
  Vocabulary vocabulary_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  std::unique_ptr<Bpe> bpe_;
  std::unique_ptr<PieceDecoder> decoder_;
  std::vector<AddedToken> added_tokens_;
  std::map<int32_t, const AddedToken*> added_by_id_;
  TokenMatcher raw_matcher_, normalized_matcher_;
  SequenceFrame frame_;
  SpecialIds special_ids_;
  int32_t vocab_size_ = 0;
  bool keeps_bytes_ = false, cuts_at_blanks_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> make_json_tokenizer(const std::string& origin, std::string json,
                                               std::map<std::string, std::string> beside) {
  return std::make_unique<JsonTokenizer>(origin, std::move(json), std::move(beside));
}

std::unique_ptr<Tokenizer> load_tokenizer_json(const stdfs::path& file_or_dir) {
  const bool folder = io::is_folder(file_or_dir);
  const stdfs::path file = folder ? file_or_dir / "tokenizer.json" : file_or_dir;
  return make_json_tokenizer(file.string(), io::read_file(file),
                             folder ? read_files_beside(file_or_dir) : std::map<std::string, std::string>());
}

}  // namespace coca::text
