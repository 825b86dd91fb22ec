// coca/text/normalizer.cc - see normalizer.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/normalizer.h"

#include <algorithm>

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::text {

namespace {

constexpr size_t kMaxContent = 256;  // bytes written for a match
constexpr size_t kMaxSteps = 64;
// A text never grows beyond measure, whatever the steps make of each other's results: NFKC makes 11 times as many bytes
// at most.
constexpr size_t kMaxGrowth = 32, kFreeGrowth = 4096;

void check_growth(size_t bytes, size_t most) {
  COCA_CHECK_AS(kBadFile, bytes <= most, "tokenizer.json: normalizer: makes a text of {} or more; expected at most {}",
                counted(bytes, "byte"), most);
}
constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";

std::string_view strip(std::string_view text, bool left, bool right) {
  while (left && !text.empty()) {
    const CodePoint c = read_utf8(text.data());
    if (!is_space(c.value)) break;
    text.remove_prefix(c.length);
  }
  while (right && !text.empty()) {
    size_t last = text.size() - 1;
    while ((static_cast<unsigned char>(text[last]) & 0xc0) == 0x80) --last;
    if (!is_space(read_utf8(text.data() + last).value)) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to, size_t most) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(from, at), text.size());
    out.append(text, at, found - at);
    if (found < text.size()) out += to;
    check_growth(out.size(), most);
    at = found + from.size();
  }
  return out;
}

std::string replace_all(std::string_view text, const Regex& regex, std::string_view to, size_t most) {
  std::string out;
  size_t at = 0;
  regex.find_all(text, [&](size_t begin, size_t end) {
    out.append(text, at, begin - at);
    out += to;
    check_growth(out.size(), most);
    at = end;
  });
  out.append(text, at);
  return out;
}

std::string short_content(const JsonField& field) {
  if (field.string().size() > kMaxContent) field.refuse(fmt::format("at most {} bytes", kMaxContent));
  return field.string();
}

}  // namespace

Normalizer::Normalizer(const JsonField& field) {
  if (!field.null()) add(field);
}

void Normalizer::add(const JsonField& field) {
  const JsonField type = field.at("type");
  const std::string& name = type.string();
  if (steps_.size() >= kMaxSteps) field.refuse(fmt::format("at most {} steps", kMaxSteps));
  if (name == "Sequence") {
    field.only({"type", "normalizers"});
    const JsonField list = field.at("normalizers");
    for (size_t i = 0; i < list.size(); ++i) add(list.item(i));
  } else if (name == "NFC" || name == "NFD" || name == "NFKC" || name == "NFKD") {
    field.only({"type"});
    const bool compose = name.back() == 'C', compatible = name.size() == 4;
    steps_.push_back({.kind = Kind::kForm,
                      .form = compatible ? (compose ? NormalForm::kNfkc : NormalForm::kNfkd)
                                         : (compose ? NormalForm::kNfc : NormalForm::kNfd)});
  } else if (name == "Lowercase") {
    field.only({"type"});
    steps_.push_back({.kind = Kind::kLower});
  } else if (name == "StripAccents") {
    field.only({"type"});
    steps_.push_back({.kind = Kind::kAccents});
  } else if (name == "Strip") {
    field.only({"type", "strip_left", "strip_right"});
    steps_.push_back(
        {.kind = Kind::kStrip, .left = field.at("strip_left").boolean(), .right = field.at("strip_right").boolean()});
  } else if (name == "Prepend") {
    field.only({"type", "prepend"});
    steps_.push_back({.kind = Kind::kPrepend, .to = short_content(field.at("prepend"))});
  } else if (name == "Replace") {
    add_replace(field);
  } else {
    type.refuse("NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Replace, Prepend or Sequence");
  }
}

void Normalizer::add_replace(const JsonField& field) {
  field.only({"type", "pattern", "content"});
  const JsonField pattern = field.at("pattern");
  Step step{.kind = Kind::kReplace, .to = short_content(field.at("content"))};
  if (pattern.has("String")) {
    step.from = pattern.at("String").string();
    if (step.from.empty()) pattern.at("String").refuse("a string that is not empty");
  } else if (pattern.has("Regex")) {
    step.kind = Kind::kReplaceRegex;
    step.regex = std::make_shared<Regex>(pattern.at("Regex").string(), pattern.at("Regex").where());
  } else {
    pattern.refuse("{\"String\": ...} or {\"Regex\": ...}");
  }
  steps_.push_back(std::move(step));
}

void Normalizer::run(const Step& step, size_t most, Normalized& out) {
  std::string& text = out.text;
  switch (step.kind) {
    case Kind::kForm: text = normalize(text, step.form); break;
    case Kind::kLower: text = to_lower(text); break;
    case Kind::kAccents: {
      std::string kept = strip_accents(text);
      out.from_start &= text.empty() || (!kept.empty() && read_utf8(kept.data()).value == read_utf8(text.data()).value);
      text = std::move(kept);
      break;
    }
    case Kind::kStrip: {
      const std::string_view left = strip(text, step.left, step.right);
      out.from_start &= left.data() == text.data();
      text = std::string(left);
      break;
    }
    case Kind::kReplace:
      out.from_start &= !(step.to.empty() && text.starts_with(step.from));
      text = replace_all(text, step.from, step.to, most);
      break;
    case Kind::kReplaceRegex:
      if (step.to.empty())
        step.regex->find_all(text, [&](size_t begin, size_t end) { out.from_start &= begin > 0 || end == 0; });
      text = replace_all(text, *step.regex, step.to, most);
      break;
    case Kind::kPrepend:
      if (!text.empty()) text.insert(0, step.to);
      break;
  }
  check_growth(text.size(), most);
}

Normalizer::Normalized Normalizer::apply(std::string_view valid) const {
  Normalized out{std::string(valid), true};
  const size_t most = kFreeGrowth + kMaxGrowth * valid.size();
  for (const Step& step : steps_) run(step, most, out);
  return out;
}

bool Normalizer::keeps_replacement_characters() const {
  return std::ranges::all_of(steps_, [](const Step& s) {
    return s.kind != Kind::kReplaceRegex && s.from.find(kReplacementCharacter) == std::string::npos &&
           s.to.find(kReplacementCharacter) == std::string::npos;
  });
}

}  // namespace coca::text
