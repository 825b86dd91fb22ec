// coca/text/pre_tokenizer.cc - see pre_tokenizer.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/pre_tokenizer.h"

#include <algorithm>

#include "coca/text/bpe.h"
#include "coca/text/unicode.h"

namespace coca::text {

namespace {

constexpr size_t kMaxSteps = 64;

// The package's Whitespace, \w+|[^\w\s]+, uses another engine than its Split does, whose \w differs in eight
// characters.
constexpr std::string_view kWordsAndSigns =
    "(?:(?![\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}])[\\w\\x{200c}\\x{200d}])+|"
    "(?:(?![\\x{200c}\\x{200d}])[^\\w\\s]|[\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}])+";

}  // namespace

PreTokenizer::PreTokenizer(const JsonField& field) {
  if (!field.null()) add(field);
  if (steps_.size() == 1 && steps_[0].kind == Kind::kScanner) only_scanner_ = steps_[0].scanner;
}

bool PreTokenizer::keeps_all() const {
  return !letters_ && std::ranges::none_of(steps_, [](const Step& s) {
    return s.behavior == Behavior::kRemoved || s.kind == Kind::kMetaspace;
  });
}

bool PreTokenizer::needs_origins() const {
  bool cut = false;
  for (const Step& step : steps_) {
    if (step.kind == Kind::kMetaspace && step.scheme == Scheme::kFirst && cut) return true;
    cut = true;
  }
  return false;
}

void PreTokenizer::add(const JsonField& field) {
  const JsonField type = field.at("type");
  const std::string& name = type.string();
  if (steps_.size() >= kMaxSteps) field.refuse(fmt::format("at most {} steps", kMaxSteps));
  if (byte_level_ && name != "Sequence") {
    if (name == "ByteLevel" || name == "Metaspace") type.refuse("neither ByteLevel nor Metaspace behind ByteLevel");
    if (!letters_) steps_.push_back({.kind = Kind::kLetters});
    letters_ = true;
  }
  if (name == "Sequence") {
    field.only({"type", "pretokenizers"});
    const JsonField list = field.at("pretokenizers");
    for (size_t i = 0; i < list.size(); ++i) add(list.item(i));
  } else if (name == "ByteLevel") {
    add_byte_level(field);
  } else if (name == "Split") {
    add_split(field);
  } else if (name == "Digits") {
    field.only({"type", "individual_digits"});
    steps_.push_back({.kind = Kind::kCharacters,
                      .behavior = field.flag("individual_digits", false) ? Behavior::kIsolated : Behavior::kContiguous,
                      .character = &is_numeric});
  } else if (name == "Punctuation") {
    field.only({"type", "behavior"});
    steps_.push_back({.kind = Kind::kCharacters,
                      .behavior = field.has("behavior") ? behavior_of(field.at("behavior")) : Behavior::kIsolated,
                      .character = &is_punctuation});
  } else if (name == "WhitespaceSplit") {
    field.only({"type"});
    steps_.push_back({.kind = Kind::kCharacters, .behavior = Behavior::kRemoved, .character = &is_space});
  } else if (name == "Whitespace") {
    field.only({"type"});
    add_pattern(kWordsAndSigns, field.where(), {.kind = Kind::kRegex, .behavior = Behavior::kRemoved, .invert = true});
  } else if (name == "Metaspace") {
    add_metaspace(field);
  } else {
    type.refuse("ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, Metaspace or Sequence");
  }
}

void PreTokenizer::add_byte_level(const JsonField& field) {
  field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  if (field.flag("add_prefix_space", true)) steps_.push_back({.kind = Kind::kPrefixSpace});
  if (field.flag("use_regex", true)) add_pattern(kGpt2Pattern, field.where(), {.kind = Kind::kRegex});
  byte_level_ = true;
}

PreTokenizer::Behavior PreTokenizer::behavior_of(const JsonField& field) {
  const std::string& name = field.string();
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  field.refuse("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

void PreTokenizer::add_split(const JsonField& field) {
  field.only({"type", "pattern", "behavior", "invert"});
  const JsonField pattern = field.at("pattern");
  Step step{.kind = Kind::kText, .behavior = behavior_of(field.at("behavior")), .invert = field.flag("invert", false)};
  if (pattern.has("Regex"))
    return add_pattern(pattern.at("Regex").string(), pattern.at("Regex").where(), std::move(step));
  if (!pattern.has("String")) pattern.refuse("{\"String\": ...} or {\"Regex\": ...}");
  step.text = pattern.at("String").string();
  if (step.text.empty()) pattern.at("String").refuse("a string that is not empty");
  steps_.push_back(std::move(step));
}

void PreTokenizer::add_pattern(std::string_view pattern, const std::string& origin, Step step) {
  // A scanner's words leave nothing between them: isolated, and all but words removed, are the same.
  const bool words = step.invert ? step.behavior == Behavior::kRemoved : step.behavior == Behavior::kIsolated;
  const std::optional<Scanner> scanner = words ? scanner_for(pattern) : std::nullopt;
  step.kind = scanner ? Kind::kScanner : Kind::kRegex;
  if (scanner) {
    step.scanner = *scanner;
    step.behavior = Behavior::kIsolated;
  } else {
    step.regex = std::make_shared<Regex>(pattern, origin);
  }
  steps_.push_back(std::move(step));
}

void PreTokenizer::add_metaspace(const JsonField& field) {
  field.only({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
  const std::string& replacement = field.at("replacement").string();
  if (replacement.empty() || read_utf8(replacement.data()).length != replacement.size())
    field.at("replacement").refuse("one character");
  const std::string scheme = field.text("prepend_scheme", "always");
  if (scheme != "always" && scheme != "never" && scheme != "first")
    field.at("prepend_scheme").refuse("always, never or first");
  // Files older than prepend_scheme say it with a flag.
  if (!field.flag("add_prefix_space", true) && scheme != "never")
    field.at("add_prefix_space").refuse("true, or prepend_scheme \"never\"");
  steps_.push_back({.kind = Kind::kMetaspace,
                    .text = replacement,
                    .scheme = scheme == "always"  ? Scheme::kAlways
                              : scheme == "first" ? Scheme::kFirst
                                                  : Scheme::kNever});
  if (field.flag("split", true))
    steps_.push_back({.kind = Kind::kText, .behavior = Behavior::kMergedWithNext, .text = replacement});
}

void PreTokenizer::run(Pieces& pieces, Position position) const {
  if (pieces.text.empty()) pieces.spans.clear();
  for (const Step& step : steps_) {
    if (step.kind == Kind::kPrefixSpace)
      prefix_space(pieces);
    else if (step.kind == Kind::kMetaspace)
      metaspace(step, pieces, position);
    else if (step.kind == Kind::kLetters)
      to_letters(pieces);
    else
      split(step, pieces);
  }
}

void PreTokenizer::split(const Step& step, Pieces& pieces) {
  std::vector<Span> out;
  std::vector<Match> matches;
  for (const Span& span : pieces.spans) {
    matches.clear();
    find(step, std::string_view(pieces.text).substr(span.begin, span.size), matches);
    cut(step, matches, span.begin, out);
  }
  pieces.spans = std::move(out);
}

// Matches and what is between them, covering the text.
void PreTokenizer::find(const Step& step, std::string_view text, std::vector<Match>& out) {
  size_t at = 0;
  const auto match = [&](size_t begin, size_t end) {
    if (at < begin) out.push_back({at, begin, false});
    out.push_back({begin, end, true});
    at = end;
  };
  if (step.kind == Kind::kRegex) {
    step.regex->find_all(text, match);
  } else if (step.kind == Kind::kScanner) {
    while (at < text.size()) match(at, step.scanner(text, at));
  } else if (step.kind == Kind::kText) {
    for (size_t found = text.find(step.text); found != std::string_view::npos; found = text.find(step.text, at))
      match(found, found + step.text.size());
  } else {
    for (size_t i = 0; i < text.size();) {
      const CodePoint c = read_utf8(text.data() + i);
      if (step.character(c.value)) match(i, i + c.length);
      i += c.length;
    }
  }
  if (at < text.size()) out.push_back({at, text.size(), false});
}

void PreTokenizer::cut(const Step& step, std::vector<Match>& matches, size_t base, std::vector<Span>& out) {
  if (step.invert)
    for (Match& m : matches) m.is_match = !m.is_match;
  const size_t first = out.size();
  const auto put = [&](size_t begin, size_t end) { out.push_back({base + begin, end - begin}); };
  const auto extend = [&](const Match& m) {
    if (out.size() > first)
      out.back().size += m.end - m.begin;
    else
      put(m.begin, m.end);
  };
  bool previous = false;  // whether the last one was a match
  for (size_t i = 0; i < matches.size(); ++i) {
    const Match& m = matches[i];
    switch (step.behavior) {
      case Behavior::kRemoved:
        if (!m.is_match) put(m.begin, m.end);
        break;
      case Behavior::kIsolated: put(m.begin, m.end); break;
      case Behavior::kContiguous:
        if (i > 0 && m.is_match == previous)
          extend(m);
        else
          put(m.begin, m.end);
        break;
      case Behavior::kMergedWithPrevious:
        if (m.is_match && !previous)
          extend(m);
        else
          put(m.begin, m.end);
        break;
      case Behavior::kMergedWithNext:
        if (i > 0 && previous && !m.is_match)
          extend(m);
        else
          put(m.begin, m.end);
        break;
    }
    previous = m.is_match;
  }
  const auto begin = out.begin() + static_cast<std::ptrdiff_t>(first);
  out.erase(std::remove_if(begin, out.end(), [](const Span& span) { return span.size == 0; }), out.end());
}

void PreTokenizer::prefix_space(Pieces& pieces) {
  Pieces out;
  out.text.reserve(pieces.text.size() + 1);
  for (const Span& span : pieces.spans) {
    const std::string_view piece = std::string_view(pieces.text).substr(span.begin, span.size);
    const size_t begin = out.text.size();
    if (!piece.starts_with(' ')) out.text += ' ';
    out.text += piece;
    out.spans.push_back({begin, out.text.size() - begin});
  }
  pieces = std::move(out);
}

// ByteLevel writes bytes as letters, which the steps behind it see: digits are themselves, and so are \xb2, \xb3, \xb9
// and \xbc to \xbe, which count as numbers.
void PreTokenizer::to_letters(Pieces& pieces) {
  Pieces out;
  out.text.reserve(pieces.text.size() * 2);
  for (const Span& span : pieces.spans) {
    const size_t begin = out.text.size();
    for (const char c : std::string_view(pieces.text).substr(span.begin, span.size))
      append_utf8(byte_letter(static_cast<uint8_t>(c)), out.text);
    out.spans.push_back({begin, out.text.size() - begin});
  }
  pieces = std::move(out);
}

std::string PreTokenizer::bytes_of(std::string_view letters) {
  std::string bytes;
  for (size_t i = 0; i < letters.size();) {
    const CodePoint c = read_utf8(letters.data() + i);
    bytes += static_cast<char>(letter_byte(c.value));
    i += c.length;
  }
  return bytes;
}

void PreTokenizer::metaspace(const Step& step, Pieces& pieces, Position position) {
  Pieces out;
  out.text.reserve(pieces.text.size() + pieces.text.size() / 2);
  for (const Span& span : pieces.spans) {
    const std::string_view piece = std::string_view(pieces.text).substr(span.begin, span.size);
    const size_t begin = out.text.size();
    const bool first = position == Position::kTextStart && span.begin == 0;
    const bool marked = piece.starts_with(' ') || piece.starts_with(step.text);
    if (!marked && (step.scheme == Scheme::kAlways || (step.scheme == Scheme::kFirst && first))) out.text += step.text;
    for (const char c : piece)
      if (c == ' ')
        out.text += step.text;
      else
        out.text += c;
    out.spans.push_back({begin, out.text.size() - begin});
  }
  pieces = std::move(out);
}

}  // namespace coca::text
