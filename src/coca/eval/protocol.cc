// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/protocol.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "coca/base/count.h"
#include "coca/base/sizes.h"

namespace coca::eval {

std::optional<int32_t> bos_token(const model::ModelSpec& spec, Bos rule) {
  if (rule == Bos::kNever) return std::nullopt;
  COCA_CHECK(rule == Bos::kAuto || spec.bos_id, "bos \"always\": the model's config.json names no bos_token_id");
  return spec.bos_id ? std::optional<int32_t>(static_cast<int32_t>(*spec.bos_id)) : std::nullopt;
}

std::vector<int64_t> default_lengths(int64_t trained, const std::function<bool(int64_t)>& fits) {
  constexpr int64_t kFarthest = 32768;
  int64_t first = trained;  // if nothing fits, the error about this length says why
  for (int64_t length = trained; fits && length <= std::max(trained, kFarthest); length *= 2)
    if (fits(length)) {
      first = length;
      break;
    }
  std::vector<int64_t> lengths{first};
  for (const int64_t multiple : {2, 4, 8})
    if (multiple * first <= kMostCount) lengths.push_back(multiple * first);
  return lengths;
}

int64_t cut_begin(int64_t N, int64_t most, Cut cut) {
  return cut == Cut::kStart || most == 0 || most >= N ? 0 : (N - most) / 2;
}

model::ModelSpec with_scaling(const model::ModelSpec& spec, const std::optional<model::RopeScaling>& scaling) {
  model::ModelSpec out = spec;
  if (scaling) out.rope_scaling = *scaling;
  model::validate(out);
  return out;
}

void check_tokenizer(const text::Tokenizer& tokenizer, const model::ModelSpec& spec) {
  COCA_CHECK(tokenizer.vocab_size() <= spec.V,
             "the tokenizer ({}) has {}, the model's vocabulary only {}: they do not belong together", tokenizer.kind(),
             counted(tokenizer.vocab_size(), "id"), grouped(spec.V));
}

namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

IdText measure(std::string_view text) {
  IdText size{.bytes = static_cast<int32_t>(text.size())};
  bool in_word = false;
  for (const char c : text) {
    size.words += !in_word && !is_space(c);
    in_word = !is_space(c);
  }
  if (!text.empty()) {
    size.begins_in_word = !is_space(text.front());
    size.ends_in_word = in_word;
  }
  return size;
}

}  // namespace

std::vector<IdText> text_of_ids(const text::Tokenizer& tokenizer) {
  std::vector<IdText> sizes(static_cast<size_t>(tokenizer.vocab_size()));
  std::string text;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    text.clear();
    text::DecodeState inside{.at_start = false};  // the space before a word counts
    tokenizer.append_decoded(id, inside, text);
    sizes[static_cast<size_t>(id)] = measure(text);
  }
  return sizes;
}

TextSize text_size(std::span<const IdText> id_text, std::span<const int32_t> ids, int64_t first, int64_t end) {
  const auto size_of = [&](int64_t i) {
    const auto id = static_cast<size_t>(ids[static_cast<size_t>(i)]);
    return id < id_text.size() ? id_text[id] : IdText{};  // a padding row of the embedding
  };
  bool in_word = false;
  for (int64_t i = first; i > 0; --i) {
    const IdText before = size_of(i - 1);
    if (before.bytes == 0) continue;
    in_word = before.ends_in_word;
    break;
  }
  TextSize total;
  for (int64_t i = first; i < end; ++i) {
    const IdText text = size_of(i);
    if (text.bytes == 0) continue;
    total.bytes += text.bytes;
    total.words += text.words - (in_word && text.begins_in_word);
    in_word = text.ends_in_word;
  }
  return total;
}

}  // namespace coca::eval
