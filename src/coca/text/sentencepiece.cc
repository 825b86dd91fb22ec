// coca/text/sentencepiece.cc - a sentencepiece model as a Tokenizer.
// SPDX-License-Identifier: Apache-2.0
#include <sentencepiece_processor.h>

#include <charconv>

#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/hash.h"
#include "coca/text/added_tokens.h"
#include "coca/text/sentencepiece_check.h"
#include "coca/text/tokenizer.h"
#include "coca/text/utf8.h"

namespace coca::text {

namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581, sentencepiece's visible blank

// What decoding does to blanks in front of the text, which depends on how the model adds and removes them.
enum class LeadingSpace { kKeep, kDropOne, kDropAll };

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::filesystem::path& file, std::string model) : model_(std::move(model)) {
    COCA_CHECK_AS(kBadFile, !model_.empty(), "{}: empty; expected a sentencepiece model", file.string());
    check_sentencepiece(model_, file.string());
    load(file.string());
    COCA_CHECK_AS(kBadFile, processor_.GetPieceSize() > 0, "{}: a sentencepiece model without pieces",
                  file.string());
    read_pieces();
    lines_are_independent_ = check_lines();
  }

  std::string kind() const override { return "sentencepiece"; }
  int32_t vocab_size() const override { return processor_.GetPieceSize(); }
  std::optional<int32_t> bos_id() const override { return known(processor_.bos_id()); }
  std::optional<int32_t> eos_id() const override { return known(processor_.eos_id()); }

  std::optional<int32_t> token_id(std::string_view token) const override {
    const int id = processor_.PieceToId(token);
    return processor_.IsUnknown(id) && processor_.IdToPiece(id) != token ? std::nullopt : std::optional<int32_t>(id);
  }

  using Tokenizer::encode;
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special) const override {
    if (special == SpecialTokens::kAsText) return encode_text(text);
    std::vector<int32_t> ids;
    controls_.split(replace_invalid(text), special, [&](std::string_view part, int32_t id) {
      if (id >= 0) return ids.push_back(id);
      const std::vector<int32_t> made = encode_text(part);
      ids.insert(ids.end(), made.begin(), made.end());
    });
    return ids;
  }

  void append_decoded(int32_t id, DecodeState& state, std::string& out) const override {
    check_id(id);
    const Piece& piece = pieces_[static_cast<size_t>(id)];
    if (piece.text.empty()) return;  // control ids do not end the start
    std::string_view text = piece.text;
    if (state.at_start && piece.words && leading_ != LeadingSpace::kKeep && text.front() == ' ') {
      text.remove_prefix(1);
      state.at_start = leading_ == LeadingSpace::kDropAll && text.empty();
    } else {
      state.at_start = false;
    }
    out += text;
  }

  void save(const std::filesystem::path& dir) const override {
    io::write_file_atomic(dir / "tokenizer.model", model_);
  }
  std::string fingerprint() const override { return "sentencepiece-" + io::fingerprint64(model_); }

 private:
  struct Piece {
    std::string text;
    bool words = false;  // an ordinary piece, whose leading blank may be one the model added
  };

  std::vector<int32_t> encode_text(std::string_view text) const {
    std::vector<int32_t> ids;
    for (size_t begin = 0; begin < text.size();) {
      const size_t newline = lines_are_independent_ ? text.find('\n', begin) : std::string_view::npos;
      const size_t end = newline == std::string_view::npos ? text.size() : newline + 1;
      const std::vector<int32_t> line = encode_by_library(text.substr(begin, end - begin));
      ids.insert(ids.end(), line.begin(), line.end());
      begin = end;
    }
    return ids;
  }

  void load(const std::string& origin) {
    std::string problem;
    try {
      const auto status = processor_.LoadFromSerializedProto(model_);
      if (status.ok()) return;
      problem = status.ToString();
    } catch (const std::exception& error) {  // what the library's tries throw
      problem = error.what();
    }
    fail(ErrorKind::kBadFile, "{}: not a sentencepiece model: {}", origin, problem);
  }

  static std::optional<int32_t> known(int id) { return id < 0 ? std::nullopt : std::optional<int32_t>(id); }

  void read_pieces() {
    std::optional<int> with_space;
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      const std::string& name = processor_.IdToPiece(id);
      Piece piece;
      if (processor_.IsByte(id)) {
        piece.text = byte_of(name);
      } else if (processor_.IsUnknown(id)) {
        piece.text = decode_by_library({id});
      } else if (!processor_.IsControl(id)) {
        piece.words = true;
        piece.text = with_blanks(name);
        if (name.starts_with(kSpace) && name != kSpace) with_space = id;
      }
      if (processor_.IsControl(id)) control_tokens_.push_back({.id = id, .content = name, .special = true});
      pieces_.push_back(std::move(piece));
    }
    std::vector<const AddedToken*> tokens;
    std::vector<std::string> names;
    for (const AddedToken& token : control_tokens_) {
      tokens.push_back(&token);
      names.push_back(token.content);
    }
    controls_ = TokenMatcher(std::move(tokens), names);
    // The library knows the rule but offers no way to ask: see what it does to "_" "_" and "_word".
    const int blank = processor_.PieceToId(kSpace);
    if (!processor_.IsUnknown(blank) && !processor_.IsControl(blank)) {
      const size_t left = decode_by_library({blank, blank}).size();
      leading_ = left == 2   ? LeadingSpace::kKeep
                 : left == 1 ? LeadingSpace::kDropOne
                             : LeadingSpace::kDropAll;
    } else if (with_space) {
      leading_ =
          decode_by_library({*with_space}).starts_with(' ') ? LeadingSpace::kKeep : LeadingSpace::kDropOne;
    }
  }

  // Whether a text may be encoded line by line, which is some four times faster on whole books. True when
  // "\n" is a token by itself that no other piece contains and no text's ends are changed.
  bool check_lines() const {
    bool bytes = false, newline_inside = false;
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      const std::string& name = processor_.IdToPiece(id);
      bytes |= processor_.IsByte(id);  // without byte tokens, runs of unknown characters become one token
      newline_inside |= name.size() > 1 && name.find('\n') != std::string::npos;
    }
    const std::vector<int32_t> newline = encode_by_library("\n");
    if (!bytes || newline_inside || leading_ != LeadingSpace::kKeep || newline.size() != 1 ||
        pieces_[static_cast<size_t>(newline[0])].text != "\n")
      return false;
    std::vector<int32_t> parts;
    for (const char* part : {"a  \n", "  a\n", "\n", "a"})
      for (const int32_t id : encode_by_library(part)) parts.push_back(id);
    return parts == encode_by_library("a  \n  a\n\na");
  }

  std::vector<int32_t> encode_by_library(std::string_view text) const {
    std::vector<int> ids;
    const auto status = processor_.Encode(text, &ids);
    COCA_CHECK(status.ok(), "sentencepiece cannot encode a text of {} bytes: {}", text.size(),
               status.ToString());
    return {ids.begin(), ids.end()};
  }

  std::string decode_by_library(const std::vector<int>& ids) const {
    std::string text;
    const auto status = processor_.Decode(ids, &text);
    COCA_CHECK_AS(kBadFile, status.ok(), "sentencepiece cannot decode: {}", status.ToString());
    return text;
  }

  static char byte_of(const std::string& name) {  // "<0xE2>"
    unsigned value = 256;
    if (name.size() == 6 && name.starts_with("<0x") && name.back() == '>')
      std::from_chars(name.data() + 3, name.data() + 5, value, 16);
    COCA_CHECK_AS(kBadFile, value < 256,
                  "sentencepiece model: byte piece \"{}\"; expected \"<0x00>\" to \"<0xFF>\"", name);
    return static_cast<char>(value);
  }

  static std::string with_blanks(std::string_view piece) {
    std::string text;
    for (size_t i = 0; i < piece.size();) {
      const bool blank = piece.substr(i, kSpace.size()) == kSpace;
      text += blank ? ' ' : piece[i];
      i += blank ? kSpace.size() : 1;
    }
    return text;
  }

  std::string model_;
  sentencepiece::SentencePieceProcessor processor_;
  std::vector<Piece> pieces_;
  std::vector<AddedToken> control_tokens_;
  TokenMatcher controls_;  // finds them in a text
  LeadingSpace leading_ = LeadingSpace::kKeep;
  bool lines_are_independent_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& model_file) {
  return std::make_unique<SentencePieceTokenizer>(model_file, io::read_file(model_file));
}

}  // namespace coca::text
