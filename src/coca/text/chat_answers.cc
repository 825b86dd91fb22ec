// coca/text/chat_answers.cc - see chat_answers.h. The conversation is rendered a second time with marks around the
// words of every answer. Marks hug words, so that strip() and the like take away the same blanks, and spare tags such
// as </think>, at which templates split; if the text without its marks is the plain one, the marks say where each
// answer stands.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/chat_answers.h"

#include <algorithm>
#include <map>
#include <optional>

#include "coca/base/error.h"
#include "coca/text/unicode.h"

namespace coca::text {

namespace {

constexpr size_t kMarkBytes = 4;
constexpr uint32_t kMarks = 65'534;  // of plane 15, for private use
constexpr size_t kHeader = 1024;     // bytes before an answer in which its header is searched

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::string mark_of(size_t message) {
  std::string mark;
  append_utf8(0xf0000 + static_cast<uint32_t>(message % kMarks), mark);
  return mark;
}
bool is_mark(std::string_view text, size_t at) {
  return at + kMarkBytes <= text.size() && text[at] == '\xf3' && static_cast<unsigned char>(text[at + 1]) >= 0xb0;
}
std::string without_marks(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (is_mark(text, at))
      at += kMarkBytes;
    else
      out += text[at++];
  }
  return out;
}

// Bytes of the tag that begins at `at`: <...> or [CAPITALS]; 0: none does.
size_t tag_at(std::string_view text, size_t at) {
  constexpr size_t kMostBytes = 64;
  if (text[at] != '<' && text[at] != '[') return 0;
  const char close = text[at] == '<' ? '>' : ']';
  for (size_t end = at + 1; end < std::min(text.size(), at + kMostBytes); ++end) {
    const char c = text[end];
    if (c == close) return end + 1 - at;
    if (is_blank(c) || c == '<' || c == '[') return 0;
    if (close == ']' && !(c >= 'A' && c <= 'Z') && c != '_' && c != '/') return 0;
  }
  return 0;
}

enum class Marking {
  kWords,
  kFilled,  // words, but no mark for an empty text
  kEnds,    // one mark before the text and one after it
};

std::string marked_text(const std::string& text, const std::string& mark, Marking how) {
  std::string out;
  bool inside = false;
  const auto put = [&](bool now) {
    if (inside != now) out += mark;
    inside = now;
  };
  const size_t last = text.find_last_not_of(" \t\n\v\f\r");
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = read_utf8(text.data() + at);
    const size_t tag = how != Marking::kEnds ? tag_at(text, at) : 0;
    const bool blank = is_space(c.value) || (c.value >= 0x1c && c.value <= 0x1f);
    if (how != Marking::kEnds)
      put(tag == 0 && !blank);
    else
      put(last != std::string::npos && at <= last && (inside || !blank));
    const size_t bytes = tag > 0 ? tag : c.length;
    out.append(text, at, bytes);
    at += bytes;
  }
  put(false);
  return out.empty() && how == Marking::kWords ? mark : out;
}

bool is_word(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// The longest run of letters and digits of ASCII, which no escaping changes; "": there is none.
std::string_view longest_word(std::string_view text) {
  std::string_view longest;
  for (size_t at = 0; at < text.size(); ++at) {
    const size_t begin = at;
    while (at < text.size() && is_word(text[at])) ++at;
    if (at - begin > longest.size()) longest = text.substr(begin, at - begin);
  }
  return longest;
}

bool holds_ignoring_case(std::string_view text, std::string_view word) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return !std::ranges::search(text, word, {}, lower, lower).empty();
}

void mark_strings(nlohmann::ordered_json& json, const std::string& mark, Marking how) {
  if (json.is_string()) json = marked_text(json.get<std::string>(), mark, how);
  if (json.is_structured())
    for (auto& item : json) mark_strings(item, mark, how);
}

// Ids, types and roles decide what a template does and stay as they are.
ChatMessage marked(const ChatMessage& message, size_t index, Marking how) {
  const std::string mark = mark_of(index);
  ChatMessage out = message;
  if (!out.content.empty() || !out.fields.contains("tool_calls")) out.content = marked_text(out.content, mark, how);
  for (const auto& [name, field] : out.fields.items()) {
    if (name == "content" || name == "reasoning_content" || name == "reasoning" || name == "thinking") {
      if (field.is_string()) mark_strings(field, mark, how);
    } else if (name == "tool_calls" && field.is_array()) {
      for (auto& call : field) {
        auto& function = call.is_object() && call.contains("function") ? call["function"] : call;
        for (const char* part : {"name", "arguments"})
          if (function.is_object() && function.contains(part)) mark_strings(function[part], mark, how);
      }
    }
  }
  return out;
}

bool is_answer(const ChatMessage& message) { return message.role == "assistant"; }

class Finder {
 public:
  Finder(std::span<const ChatMessage> messages, GenerationPrompt prompt, const RenderChat& render,
         const std::string& origin)
      : messages_(messages), prompt_(prompt), render_(render), origin_(origin), places_(messages.size()) {}

  RenderedChat run() {
    jinja::Output plain = render_(messages_, prompt_);
    text_ = std::move(plain.text);
    const bool free = without_marks(text_).size() == text_.size();  // no marks of somebody else
    trusted_ = free && (place_marks(Marking::kWords) || place_marks(Marking::kFilled) || place_marks(Marking::kEnds));
    if (!plain.generations.empty()) return by_blocks(plain.generations);
    RenderedChat out;
    for (const size_t i : in_order_of_text())
      if (const auto span = answer(i)) {
        out.answers.push_back({span->begin, span->end, i});
        floor_ = span->end;
      }
    COCA_CHECK(!out.answers.empty() || std::ranges::none_of(messages_, is_answer),
               "{}: the template writes none of the answers of these messages", origin_);
    out.text = std::move(text_);
    return out;
  }

 private:
  // Fills places_ of a rendering with marks; false when it is not the plain text with marks.
  bool place_marks(Marking how) {
    how_ = how;
    places_.assign(messages_.size(), std::nullopt);
    const auto output = try_render(messages_.size(), prompt_, true);
    if (!output || without_marks(*output) != text_) return false;
    find_marks(*output);
    for (size_t i = 0; i < messages_.size(); ++i)
      if (marks_[i].size() > (how == Marking::kEnds ? 1 : 0))  // one mark of two says nothing
        places_[i] = TextSpan{marks_[i].front(), marks_[i].back()};
    return true;
  }

  // The marks of each message, as bytes of the text without marks.
  void find_marks(const std::string& text) {
    marks_.assign(messages_.size(), {});
    std::map<std::string, size_t, std::less<>> known;
    for (size_t i = 0; i < std::min<size_t>(messages_.size(), kMarks); ++i)
      if (is_answer(messages_[i])) known[mark_of(i)] = i;
    size_t bytes = 0;
    for (size_t at = 0; at < text.size();) {
      if (!is_mark(text, at)) {
        ++at;
        ++bytes;
        continue;
      }
      const auto found = known.find(std::string_view(text).substr(at, kMarkBytes));
      at += kMarkBytes;
      if (found == known.end()) continue;
      marks_[found->second].push_back(bytes);
    }
  }

  // The first `count` messages; nothing where the template refuses them.
  std::optional<std::string> try_render(size_t count, GenerationPrompt prompt, bool with_marks) const {
    try {
      if (!with_marks) return render_(messages_.first(count), prompt).text;
      std::vector<ChatMessage> all(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(count));
      for (size_t i = 0; i < count; ++i)
        if (is_answer(all[i])) all[i] = marked(all[i], i, how_);
      return render_(all, prompt).text;
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  // Answers as they stand in the text; those without a place where the one before them in the conversation stands.
  std::vector<size_t> in_order_of_text() const {
    std::vector<std::pair<size_t, size_t>> order;
    size_t at = 0;
    for (size_t i = 0; i < messages_.size(); ++i) {
      if (!is_answer(messages_[i])) continue;
      if (places_[i]) at = places_[i]->begin;
      order.emplace_back(at, i);
    }
    std::ranges::sort(order);
    std::vector<size_t> out;
    for (const auto& [begin, i] : order) out.push_back(i);
    return out;
  }

  std::optional<TextSpan> answer(size_t i) {
    if (!places_[i] || places_[i]->begin < floor_) return by_growth(i);
    TextSpan place = *places_[i];
    const std::string tail = tail_of(i, place);
    return TextSpan{begin_of(i, place), end_of(i, place, tail)};
  }

  // Behind what the template writes for the model to go on from: the prompt in front of the answer, or as much of its
  // end as stands here. Where the prompt's last words are not repeated (<think>), it is tried without them.
  size_t begin_of(size_t i, const TextSpan& place) const {
    const auto before = try_render(i, GenerationPrompt::kAdd, false);
    if (!before) return place.begin;
    if (before->size() <= place.begin && before->size() >= floor_ && text_.starts_with(*before)) return before->size();
    const auto bare = try_render(i, GenerationPrompt::kNone, false);
    const size_t least =
        bare && before->starts_with(*bare) ? bare->size() : before->size() - std::min(before->size(), kHeader);
    const size_t lowest = std::max(floor_, place.begin - std::min(place.begin, kHeader));
    size_t best = 0, begin = place.begin;
    for (size_t cut = before->size() + 1; cut-- > std::max(least, before->size() - std::min(before->size(), kHeader));)
      for (size_t end = place.begin + 1; end-- > lowest;) {
        size_t same = 0;
        while (same < std::min(cut, end) && (*before)[cut - 1 - same] == text_[end - 1 - same]) ++same;
        if (same > best) {
          best = same;
          begin = end;
        }
      }
    return begin;
  }

  // Behind the token that ends the turn: `tail`, what follows the answer when the conversation ends with it, as far as
  // it stands here, without blanks at its end, which belong to the next turn.
  size_t end_of(size_t i, const TextSpan& place, std::string tail) const {
    size_t least = place.end;
    const std::string& content = messages_[i].content;
    const size_t word = content.find_last_not_of(" \t\n\v\f\r");
    if (word != std::string::npos && text_.compare(least, content.size() - word - 1, content, word + 1) == 0)
      least += content.size() - word - 1;
    size_t same = same_bytes(tail, place.end);
    if (same < tail.size()) same = std::max(same, same_bytes(tail = tail_between(i), place.end));
    return std::max(least, place.end + same);
  }

  // How much of the tail is found at `at`, in whole tags; removes blanks from its end.
  size_t same_bytes(std::string& tail, size_t at) const {
    while (!tail.empty() && is_blank(tail.back())) tail.pop_back();
    size_t same = 0;
    while (same < tail.size() && at + same < text_.size() && tail[same] == text_[at + same]) ++same;
    if (same == 0 || same == tail.size()) return same;
    const size_t closed = tail.find_last_of(">]", same - 1);
    return closed == std::string::npos ? 0 : closed + 1;
  }

  // The text between an answer and the following generation prompt: templates may end the last turn differently.
  std::string tail_between(size_t i) const {
    const auto before = try_render(i, GenerationPrompt::kAdd, false),
               bare = try_render(i, GenerationPrompt::kNone, false);
    const auto with = try_render(i + 1, GenerationPrompt::kAdd, true);
    if (!before || !bare || !with || before->size() == bare->size() || !before->starts_with(*bare)) return "";
    const size_t last = with->rfind(mark_of(i));
    std::string tail = last == std::string::npos ? "" : without_marks(std::string_view(*with).substr(last));
    const std::string_view prompt = std::string_view(*before).substr(bare->size());
    if (!tail.ends_with(prompt)) return "";
    tail.resize(tail.size() - prompt.size());
    return tail;
  }

  // What follows the answer at the end of the conversation. Words of it that later messages repeat (a tool's name with
  // the tool's result) are no part of it: its place ends with as many marks as it has without them.
  std::string tail_of(size_t i, TextSpan& place) const {
    if (i + 1 == messages_.size() && prompt_ == GenerationPrompt::kNone) return text_.substr(place.end);
    const auto with = try_render(i + 1, GenerationPrompt::kNone, true);
    if (!with) return "";
    const std::string mark = mark_of(i);
    size_t last = std::string::npos, count = 0;
    for (size_t at = with->find(mark); at != std::string::npos; at = with->find(mark, at + kMarkBytes)) {
      last = at;
      ++count;
    }
    if (count > 0 && count < marks_[i].size()) place.end = marks_[i][count - 1];
    return last == std::string::npos ? "" : without_marks(std::string_view(*with).substr(last));
  }

  // Whether `text`, which grows with answer i, has the words of it rather than a role's name or the like. Where marks
  // were lost, the longest word stands for the answer: templates may escape or cut the rest.
  bool says_answer(size_t i, std::string_view text) const {
    const std::string& content = messages_[i].content;
    if (trusted_ && marked_text(content, mark_of(i), how_) != content) return content.empty() || !marks_[i].empty();
    const std::string_view word = longest_word(content);
    return word.empty() || holds_ignoring_case(text, word);
  }

  // Without marks: the conversation up to the answer, without it and with it, where the text only grows.
  std::optional<TextSpan> by_growth(size_t i) const {
    const auto before = try_render(i, GenerationPrompt::kAdd, false);
    auto with = try_render(i + 1, GenerationPrompt::kNone, false);
    if (before && with) {
      while (with->size() > before->size() && is_blank(with->back())) with->pop_back();
      if (before->size() >= floor_ && with->size() > before->size() && with->starts_with(*before) &&
          text_.starts_with(*with) && says_answer(i, std::string_view(*with).substr(before->size())))
        return TextSpan{before->size(), with->size()};
    }
    COCA_CHECK(
        trusted_,
        "{}: the place of the answer in message {} cannot be told: the template changes what answers say, and the text "
        "before it changes when more messages follow; a template with {{% generation %}} blocks can tell the "
        "place",
        origin_, i + 1);
    return std::nullopt;  // the template leaves this answer out
  }

  RenderedChat by_blocks(const std::vector<std::pair<size_t, size_t>>& blocks) {
    RenderedChat out;
    std::vector<size_t> answers;
    for (size_t i = 0; i < messages_.size(); ++i)
      if (is_answer(messages_[i])) answers.push_back(i);
    bool any = blocks.empty() || answers.empty();
    for (size_t k = 0; k < blocks.size(); ++k) {
      const auto [begin, end] = blocks[k];
      const std::string_view block = std::string_view(text_).substr(begin, end - begin);
      for (const size_t i : answers)
        any = any || (places_[i] ? places_[i]->begin < end && begin <= places_[i]->end : says_answer(i, block));
      size_t message = answers.empty() ? 0 : answers[std::min(k, answers.size() - 1)];
      for (const size_t i : answers)
        if (places_[i] && places_[i]->begin >= begin && places_[i]->end <= end) message = i;
      out.answers.push_back({begin, end, message});
    }
    COCA_CHECK(any, "{}: the template writes none of the answers of these messages in its {{% generation %}} blocks",
               origin_);
    out.text = std::move(text_);
    return out;
  }

  std::span<const ChatMessage> messages_;
  GenerationPrompt prompt_;
  const RenderChat& render_;
  const std::string& origin_;
  std::string text_;
  Marking how_ = Marking::kWords;
  bool trusted_ = false;
  std::vector<std::vector<size_t>> marks_;       // of each message: the places of its marks in the text
  std::vector<std::optional<TextSpan>> places_;  // of each message, from its first to its last mark
  size_t floor_ = 0;                             // the end of the answer before, in the text
};

}  // namespace

RenderedChat find_answers(std::span<const ChatMessage> messages, GenerationPrompt prompt, const RenderChat& render,
                          const std::string& origin) {
  return Finder(messages, prompt, render, origin).run();
}

}  // namespace coca::text
