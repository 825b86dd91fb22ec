// coca/text/sentencepiece.cc - a sentencepiece model as a Tokenizer.
// SPDX-License-Identifier: Apache-2.0
#include <sentencepiece_processor.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/hash.h"
#include "coca/text/added_tokens.h"
#include "coca/text/sentencepiece_check.h"
#include "coca/text/tokenizer.h"
#include "coca/text/tokens_beside.h"
#include "coca/text/utf8.h"

namespace coca::text {

namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581, sentencepiece's visible blank

// What decoding does to leading blanks, which depends on how the model adds and removes them.
enum class LeadingSpace { kKeep, kDropOne, kDropAll };

// Where a long line is cut into parts; the blank between two parts is put there by the model, or begins the second
// part.
enum class Cut { kNowhere, kAfterBlank, kBeforeBlank };

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::filesystem::path& file, std::string model,
                         std::map<std::string, std::string> beside)
      : model_(std::move(model)), beside_(std::move(beside)) {
    COCA_CHECK_AS(kBadFile, !model_.empty(), "{}: empty; expected a sentencepiece model", file.string());
    check_sentencepiece(model_, file.string());
    load(processor_, model_, file.string());
    COCA_CHECK_AS(kBadFile, processor_.GetPieceSize() > 0, "{}: a sentencepiece model without pieces", file.string());
    read_pieces();
    read_added_tokens(file.string());
    lines_are_independent_ = check_lines();
    cut_ = check_words(file.string());
  }

  std::string kind() const override { return "sentencepiece"; }
  int32_t vocab_size() const override { return static_cast<int32_t>(pieces_.size()); }
  std::optional<int32_t> bos_id() const override { return special_.bos; }
  std::optional<int32_t> eos_id() const override { return special_.eos; }
  std::vector<int32_t> eos_ids() const override { return special_.ends; }
  bool has_frame() const override { return has_frame_; }
  SequenceFrame frame() const override { return frame_; }

  std::optional<int32_t> token_id(std::string_view token) const override {
    const auto added = std::ranges::find(added_, token, &AddedToken::content);
    return added != added_.end() ? std::optional(added->id) : piece_id(token);
  }

  using Tokenizer::encode;
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special) const override {
    if (special == SpecialTokens::kAsText && !finds_text_) return encode_text(text, prefix_ == PrefixSpace::kNever);
    std::vector<int32_t> ids;
    const std::string valid = replace_invalid(text);
    matcher_.split(valid, special, [&](std::string_view part, int32_t id) {
      if (id >= 0) return ids.push_back(id);
      const bool first = part.data() == valid.data();
      const bool bare = prefix_ == PrefixSpace::kNever || (prefix_ == PrefixSpace::kFirstPart && !first);
      const std::vector<int32_t> made = encode_text(part, bare);
      ids.insert(ids.end(), made.begin(), made.end());
    });
    return ids;
  }

  void append_decoded(int32_t id, DecodeState& state, std::string& out) const override {
    check_id(id);
    const Piece& piece = pieces_[static_cast<size_t>(id)];
    COCA_CHECK(!piece.hole, "token id {} has no token in this tokenizer; its ids have holes", id);
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
    for (const auto& [name, content] : beside_) io::write_file_atomic(dir / name, content);
  }
  std::string fingerprint() const override { return "sentencepiece-" + io::fingerprint64(model_ + changes_); }

 private:
  struct Piece {
    std::string text;
    bool words = false;  // an ordinary piece, whose leading blank may be one the model added
    bool hole = false;   // an id between added tokens that no token has
  };

  // bare: without the blank that the model puts before a text.
  std::vector<int32_t> encode_text(std::string_view text, bool bare) const {
    const sentencepiece::SentencePieceProcessor& processor = bare && bare_ ? *bare_ : processor_;
    std::vector<int32_t> ids;
    for (size_t begin = 0; begin < text.size();) {
      const size_t newline = lines_are_independent_ ? text.find('\n', begin) : std::string_view::npos;
      const size_t end = newline == std::string_view::npos ? text.size() : newline + 1;
      append_line(ids, text.substr(begin, end - begin), processor);
      begin = end;
    }
    return ids;
  }

  // The library takes some 120 bytes for each byte of a text.
  void append_line(std::vector<int32_t>& ids, std::string_view line,
                   const sentencepiece::SentencePieceProcessor& first) const {
    constexpr size_t kPart = 1 << 16;  // bytes
    const sentencepiece::SentencePieceProcessor* processor = &first;
    while (!line.empty()) {
      const size_t cut = cut_ == Cut::kNowhere ? std::string_view::npos : blank_between_words(line, kPart);
      const std::vector<int32_t> part = encode_by_library(*processor, line.substr(0, cut));
      ids.insert(ids.end(), part.begin(), part.end());
      if (cut == std::string_view::npos) return;
      line.remove_prefix(cut + (cut_ == Cut::kAfterBlank ? 1 : 0));
      if (cut_ == Cut::kAfterBlank) processor = &processor_;  // which puts the blank there
    }
  }

  // The first at `from` or behind that has an ASCII letter or digit on either side: nothing else joins those.
  static size_t blank_between_words(std::string_view text, size_t from) {
    const auto plain = [&](size_t at) {
      const auto c = static_cast<unsigned char>(text[at]);
      return c < 0x80 && std::isalnum(c) != 0;
    };
    size_t at = text.find(' ', from);
    while (at != std::string_view::npos && (at == 0 || at + 1 >= text.size() || !plain(at - 1) || !plain(at + 1)))
      at = text.find(' ', at + 1);
    return at;
  }

  static void load(sentencepiece::SentencePieceProcessor& processor, const std::string& model,
                   const std::string& origin) {
    std::string problem;
    try {
      const auto status = processor.LoadFromSerializedProto(model);
      if (status.ok()) return;
      problem = status.ToString();
    } catch (const std::exception& error) {  // what the library's tries throw
      problem = error.what();
    }
    fail(ErrorKind::kBadFile, "{}: not a sentencepiece model: {}", origin, problem);
  }

  std::optional<int32_t> piece_id(std::string_view token) const {
    const int id = processor_.PieceToId(token);
    return processor_.IsUnknown(id) && processor_.IdToPiece(id) != token ? std::nullopt : std::optional<int32_t>(id);
  }

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
      pieces_.push_back(std::move(piece));
    }
    // The library knows the rule but does not report it, so it is found from the result for "_" "_" and "_word".
    const int blank = processor_.PieceToId(kSpace);
    if (!processor_.IsUnknown(blank) && !processor_.IsControl(blank)) {
      const size_t left = decode_by_library({blank, blank}).size();
      leading_ = left == 2 ? LeadingSpace::kKeep : left == 1 ? LeadingSpace::kDropOne : LeadingSpace::kDropAll;
    } else if (with_space) {
      leading_ = decode_by_library({*with_space}).starts_with(' ') ? LeadingSpace::kKeep : LeadingSpace::kDropOne;
    }
  }

  // The model's control pieces and its unknown one, and what the files beside it say.
  void read_added_tokens(const std::string& file) {
    const int32_t count = vocab_size();
    const PieceTable table{.size = count,
                           .text = [&](int32_t id) -> std::string_view { return processor_.IdToPiece(id); },
                           .find = [&](std::string_view token) { return piece_id(token); },
                           .replaceable = [&](int32_t id) { return processor_.IsUnused(id); },
                           .control = [&](int32_t id) { return processor_.IsControl(id); }};
    const TokensBeside read = read_tokens_beside(beside_, file, table);
    added_ = read.tokens;
    for (const AddedToken& token : added_) {
      if (token.id >= vocab_size()) pieces_.resize(static_cast<size_t>(token.id) + 1, {.hole = true});
      pieces_[static_cast<size_t>(token.id)] = {.text = token.special ? "" : with_blanks(token.content)};
      finds_text_ |= !token.special;
      if (!token.special || token.id >= count || processor_.IdToPiece(token.id) != token.content)
        changes_ += fmt::format("\n{} {} {}{}{}{}", token.id, token.content, token.special ? "s" : "",
                                token.single_word ? "w" : "", token.lstrip ? "l" : "", token.rstrip ? "r" : "");
    }
    for (int32_t id = 0, next = 0; id < count; ++id) {  // both are in the order of ids
      if (const auto at = static_cast<size_t>(next); at < read.tokens.size() && read.tokens[at].id == id)
        ++next;
      else if (processor_.IsControl(id) || processor_.IsUnknown(id))
        added_.push_back({.id = id, .content = processor_.IdToPiece(id), .special = true});
    }
    std::vector<const AddedToken*> tokens;
    std::vector<std::string> names;
    for (const AddedToken& token : added_) {
      tokens.push_back(&token);
      names.push_back(token.content);
    }
    matcher_ = TokenMatcher(std::move(tokens), names);
    read_special(read);
    prefix_ = read.prefix;
    if (prefix_ != PrefixSpace::kEveryPart) {
      // Later fields win: normalizer_spec { add_dummy_prefix: false }.
      bare_ = std::make_unique<sentencepiece::SentencePieceProcessor>();
      load(*bare_, model_ + std::string("\x1a\x02\x18\x00", 4), file);
    }
    if (prefix_ == PrefixSpace::kNever) {
      leading_ = LeadingSpace::kKeep;
      changes_ += "\nno prefix";
    }
  }

  void read_special(const TokensBeside& read) {
    const auto known = [](int id) { return id < 0 ? std::nullopt : std::optional<int32_t>(id); };
    special_ = read.special;
    if (!special_.bos) special_.bos = known(processor_.bos_id());
    if (!special_.eos) special_.eos = known(processor_.eos_id());
    if (special_.ends.empty() && special_.eos) special_.ends = {*special_.eos};
    has_frame_ = read.add_bos.has_value();
    if (read.add_bos.value_or(false) && special_.bos) frame_.before = {*special_.bos};
    if (read.add_eos.value_or(false) && special_.eos) frame_.after = {*special_.eos};
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
    const std::vector<int32_t> newline = encode_by_library(processor_, "\n");
    if (!bytes || newline_inside || leading_ != LeadingSpace::kKeep || newline.size() != 1 ||
        pieces_[static_cast<size_t>(newline[0])].text != "\n")
      return false;
    std::vector<int32_t> parts;
    for (const char* part : {"a  \n", "  a\n", "\n", "a"})
      for (const int32_t id : encode_by_library(processor_, part)) parts.push_back(id);
    return parts == encode_by_library(processor_, "a  \n  a\n\na");
  }

  // Where a line may be cut between two words. Merges stay within a word where no piece holds a blank behind something
  // else. A unigram model adds up scores over the whole text, so that parts could round to other choices: it is not
  // cut.
  Cut check_words(const std::string& file) const {
    if (!merges_plainly(model_, file) || processor_.IsUnknown(processor_.PieceToId(kSpace))) return Cut::kNowhere;
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      std::string_view name = processor_.IdToPiece(id);
      while (name.starts_with(kSpace)) name.remove_prefix(kSpace.size());
      if (name.find(kSpace) != std::string_view::npos || processor_.IdToPiece(id).find(' ') != std::string::npos)
        return Cut::kNowhere;
    }
    for (const Cut cut : {Cut::kBeforeBlank, Cut::kAfterBlank}) {
      bool same = true;
      for (const auto* first : {&processor_, static_cast<const sentencepiece::SentencePieceProcessor*>(bare_.get())}) {
        if (first == nullptr) continue;
        std::vector<int32_t> parts = encode_by_library(*first, " a  b");
        const std::vector<int32_t> rest =
            cut == Cut::kBeforeBlank ? encode_by_library(*first, " c  d ") : encode_by_library(processor_, "c  d ");
        parts.insert(parts.end(), rest.begin(), rest.end());
        same &= parts == encode_by_library(*first, " a  b c  d ");
      }
      if (same) return cut;
    }
    return Cut::kNowhere;
  }

  static std::vector<int32_t> encode_by_library(const sentencepiece::SentencePieceProcessor& processor,
                                                std::string_view text) {
    std::vector<int> ids;
    const auto status = processor.Encode(text, &ids);
    COCA_CHECK(status.ok(), "sentencepiece cannot encode a text of {}: {}", counted(text.size(), "byte"),
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
    COCA_CHECK_AS(kBadFile, value < 256, "sentencepiece model: byte piece \"{}\"; expected \"<0x00>\" to \"<0xFF>\"",
                  name);
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
  std::map<std::string, std::string> beside_;  // the folder's other files about tokens, by name
  sentencepiece::SentencePieceProcessor processor_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> bare_;  // adds no blank before a text
  std::vector<Piece> pieces_;                                    // by id; those of added tokens after the model's
  std::vector<AddedToken> added_;                                // control pieces too
  TokenMatcher matcher_;                                         // finds them in a text
  std::string changes_;  // what the files beside the model change about ids of text; for the fingerprint
  SpecialIds special_;
  SequenceFrame frame_;
  PrefixSpace prefix_ = PrefixSpace::kEveryPart;
  bool has_frame_ = false;
  bool finds_text_ = false;  // some added tokens are not special
  LeadingSpace leading_ = LeadingSpace::kKeep;
  bool lines_are_independent_ = false;
  Cut cut_ = Cut::kNowhere;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file_or_dir) {
  const bool folder = io::is_folder(file_or_dir);
  const std::filesystem::path file = folder ? file_or_dir / "tokenizer.model" : file_or_dir;
  return std::make_unique<SentencePieceTokenizer>(
      file, io::read_file(file), folder ? read_files_beside(file_or_dir) : std::map<std::string, std::string>());
}

}  // namespace coca::text
