// The folder of a tokenizer: tokenizer.json, tokenizer_config.json, special_tokens_map.json, generation_config.json,
// and a text to encode (parts 0 to 4). All ids are in the vocabulary, and decoding in pieces gives the same text as
// decoding at once.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/chat_template.h"
#include "coca/text/tokenizer.h"
#include "support/harness.h"

using namespace coca;

static void use(const text::Tokenizer& tokenizer, std::string_view text) {
  for (const auto special : {text::SpecialTokens::kAsText, text::SpecialTokens::kParse}) {
    const std::vector<int32_t> ids = tokenizer.encode(text, special);
    for (const int32_t id : ids) fuzz::require(id >= 0 && id < tokenizer.vocab_size(), "an id beyond the vocabulary");
    text::StreamDecoder stream(tokenizer);
    std::string pieces;
    for (const int32_t id : ids) pieces += stream.push(id);
    pieces += stream.finish();
    fuzz::require(pieces == tokenizer.decode(ids), "decoding by pieces gives another text");
  }
  for (int32_t id = 0; id < std::min(tokenizer.vocab_size(), 300); ++id)
    fuzz::attempt([&] { tokenizer.decode(std::vector<int32_t>{id}); });
}

// In addition to the file, matching may use 64 MiB, the library's limit for PCRE2.
COCA_FUZZ_TARGET({.base = size_t{72} << 20, .per_byte = 512}) {
  const auto parts = fuzz::parts_of(input);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  folder.write("tokenizer.json", fuzz::part(parts, 0));
  const char* const names[] = {"tokenizer_config.json", "special_tokens_map.json", "generation_config.json"};
  for (size_t i = 1; i <= 3; ++i)
    if (!fuzz::part(parts, i).empty()) folder.write(names[i - 1], parts[i]);
  fuzz::attempt([&] { text::load_chat_template(folder.path()); });
  const auto tokenizer = text::load_tokenizer_json(folder.path());
  tokenizer->frame();
  for (const int32_t id : tokenizer->eos_ids())
    fuzz::require(id >= 0 && id < tokenizer->vocab_size(), "an eos beyond the vocabulary");
  use(*tokenizer, "Hello  world,\n<s>it's 2024</s> \xc3\xa9\xe2\x96\x81\xf0\x9f\x98\x80 \xff\xfe");
  use(*tokenizer, fuzz::part(parts, 4));
}
