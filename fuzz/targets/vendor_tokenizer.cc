// Tokenizers that are converted to a tokenizer.json: tekken.json (part 0), or if that is empty, vocab.json, merges.txt
// and tokenizer_config.json (parts 1 to 3). All ids are in the vocabulary.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/tokenizer.h"
#include "support/harness.h"

// In addition to the file, matching may use 64 MiB, the library's limit for PCRE2. The parsed JSON is larger than its
// text.
COCA_FUZZ_TARGET({.base = size_t{80} << 20, .per_byte = 1024}) {
  using namespace coca;
  const auto parts = fuzz::parts_of(input);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  const char* const names[] = {"tekken.json", "vocab.json", "merges.txt", "tokenizer_config.json"};
  for (size_t i = 0; i < 4; ++i)
    if (!fuzz::part(parts, i).empty()) folder.write(names[i], parts[i]);
  const auto tokenizer = text::load_tokenizer(folder.path());
  for (const std::string_view text : {"Hello  world,\n<s>it's 2024</s> \xc3\xa9 \xff\xfe", "", "a b"}) {
    const std::vector<int32_t> ids = tokenizer->encode(text, text::SpecialTokens::kParse);
    for (const int32_t id : ids) fuzz::require(id >= 0 && id < tokenizer->vocab_size(), "an id beyond the vocabulary");
    tokenizer->decode(ids);
  }
}
