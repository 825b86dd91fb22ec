// coca/text/piece_decoder.cc - see piece_decoder.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/piece_decoder.h"

#include <charconv>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/text/bpe.h"
#include "coca/text/unicode.h"

namespace coca::text {

namespace {

constexpr size_t kMaxSteps = 64;
constexpr size_t kMaxPiece = size_t{1} << 20;  // bytes of a token where something was replaced

// "<0xE2>" -> the byte, else -1.
int fallback_byte(std::string_view piece) {
  unsigned value = 256;
  if (piece.size() == 6 && piece.starts_with("<0x") && piece.back() == '>') {
    const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
    if (error != std::errc() || end != piece.data() + 5) return -1;
  }
  return value < 256 ? static_cast<int>(value) : -1;
}

// A token of the byte letters only becomes those bytes; any other stays as it is.
void read_letters(std::string& piece) {
  std::string bytes;
  for (size_t i = 0; i < piece.size();) {
    const CodePoint c = read_utf8(piece.data() + i);
    const int byte = letter_byte(c.value);
    if (byte < 0) return;
    bytes += static_cast<char>(byte);
    i += c.length;
  }
  piece = std::move(bytes);
}

void replace(std::string& piece, std::string_view from, std::string_view to) {
  size_t found = piece.find(from), at = 0;
  if (found == std::string::npos) return;
  std::string out;
  for (; found != std::string::npos; found = piece.find(from, at)) {
    out.append(piece, at, found - at).append(to);
    at = found + from.size();
    COCA_CHECK_AS(kBadFile, out.size() <= kMaxPiece,
                  "tokenizer.json: decoder: makes a token of {} or more; expected at most {}",
                  counted(out.size(), "byte"), grouped(kMaxPiece));
  }
  piece = std::move(out.append(piece, at));
}

std::string one_character(const JsonField& field) {
  const std::string& text = field.string();
  if (text.empty() || read_utf8(text.data()).length != text.size()) field.refuse("one character");
  return text;
}

size_t small_count(const JsonField& field) {
  if (field.integer() < 0 || field.integer() > 1000) field.refuse("0 to 1000");
  return static_cast<size_t>(field.integer());
}

}  // namespace

PieceDecoder::PieceDecoder(const JsonField& field) {
  spaces_ = field.null();
  if (!field.null()) add(field);
}

void PieceDecoder::add(const JsonField& field) {
  const JsonField type = field.at("type");
  const std::string& name = type.string();
  if (steps_.size() >= kMaxSteps) field.refuse(fmt::format("at most {} steps", kMaxSteps));
  if (name == "Sequence") {
    field.only({"type", "decoders"});
    const JsonField list = field.at("decoders");
    for (size_t i = 0; i < list.size(); ++i) add(list.item(i));
  } else if (name == "Fuse") {
    field.only({"type"});
    joined_ = true;
  } else if (name == "Strip") {
    add_strip(field);
  } else if (joined_) {
    type.refuse("only Strip behind Fuse or ByteLevel");
  } else if (name == "ByteLevel") {
    field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    steps_.push_back({.kind = Kind::kByteLevel});
    joined_ = true;
  } else if (name == "ByteFallback") {
    field.only({"type"});
    steps_.push_back({.kind = Kind::kByteFallback});
  } else if (name == "Replace") {
    field.only({"type", "pattern", "content"});
    const JsonField from = field.at("pattern").at("String");
    if (from.string().empty()) from.refuse("a string that is not empty");
    steps_.push_back({.kind = Kind::kReplace, .from = from.string(), .to = field.at("content").string()});
  } else if (name == "Metaspace") {
    add_metaspace(field);
  } else {
    type.refuse("ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace or Sequence");
  }
}

void PieceDecoder::add_strip(const JsonField& field) {
  field.only({"type", "content", "start", "stop"});
  const std::string content = one_character(field.at("content"));
  const size_t start = small_count(field.at("start")), stop = small_count(field.at("stop"));
  if (!joined_) {
    steps_.push_back({.kind = Kind::kStripEach, .from = content, .start = start, .stop = stop});
    return;
  }
  if (stop > 0) field.at("stop").refuse("0 behind Fuse: the end of a text is not known while it is made");
  if (strip_most_ > 0) field.refuse("one Strip behind Fuse");
  strip_ = content;
  strip_most_ = start;
}

void PieceDecoder::add_metaspace(const JsonField& field) {
  field.only({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
  const std::string scheme = field.text("prepend_scheme", "always");
  if (!field.flag("add_prefix_space", true) && scheme != "never")
    field.at("add_prefix_space").refuse("true, or prepend_scheme \"never\"");
  steps_.push_back({.kind = Kind::kMetaspace,
                    .from = one_character(field.at("replacement")),
                    .to = " ",
                    .drops_first = scheme != "never"});
}

void PieceDecoder::run(const Step& step, bool first, std::string& piece) {
  switch (step.kind) {
    case Kind::kByteLevel: read_letters(piece); break;
    case Kind::kByteFallback:
      if (const int byte = fallback_byte(piece); byte >= 0) piece.assign(1, static_cast<char>(byte));
      break;
    case Kind::kReplace: replace(piece, step.from, step.to); break;
    case Kind::kMetaspace: replace(piece, step.from, first && step.drops_first ? "" : step.to); break;
    case Kind::kStripEach:
      for (size_t i = 0; i < step.start && piece.starts_with(step.from); ++i) piece.erase(0, step.from.size());
      for (size_t i = 0; i < step.stop && piece.ends_with(step.from); ++i)
        piece.resize(piece.size() - step.from.size());
      break;
  }
}

void PieceDecoder::append(std::string_view token, DecodeState& state, std::string& out) const {
  std::string piece(token);
  for (const Step& step : steps_) run(step, state.at_start, piece);
  if (spaces_ && !state.at_start) out += ' ';
  state.at_start = false;
  if (strip_most_ > 0 && !state.in_text && !piece.empty()) {
    while (state.stripped < strip_most_ && piece.starts_with(strip_)) {
      piece.erase(0, strip_.size());
      ++state.stripped;
    }
    state.in_text = !piece.empty() || state.stripped == strip_most_;
  }
  out += piece;
}

}  // namespace coca::text
