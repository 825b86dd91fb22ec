// A tokenizer.model and the files beside it: added_tokens.json, tokenizer_config.json, special_tokens_map.json (parts 0
// to 3). The model is LLaMA 3's tiktoken file or a sentencepiece model. The sentencepiece library, which parses most of
// the latter, is not built with sanitizers here. Of its errors, only those that end the process or use excessive memory
// are found.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/tokenizer.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.base = size_t{16} << 20, .per_byte = 512}) {
  using namespace coca;
  const auto parts = fuzz::parts_of(input);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  folder.write("tokenizer.model", fuzz::part(parts, 0));
  const char* const names[] = {"added_tokens.json", "tokenizer_config.json", "special_tokens_map.json"};
  for (size_t i = 1; i <= 3; ++i)
    if (!fuzz::part(parts, i).empty()) folder.write(names[i - 1], parts[i]);
  const auto tokenizer = text::load_tokenizer(folder.path());
  for (const std::string_view text :
       {"Hello  world,\n<s>it's 2024</s> \xc3\xa9\xe2\x96\x81\xf0\x9f\x98\x80 \xff\xfe", "", "a b", "\xef\xbd\x86"}) {
    const std::vector<int32_t> ids = tokenizer->encode(text, text::SpecialTokens::kParse);
    for (const int32_t id : ids) fuzz::require(id >= 0 && id < tokenizer->vocab_size(), "an id beyond the vocabulary");
    tokenizer->decode(ids);
  }
  for (const int32_t id : tokenizer->eos_ids())
    fuzz::require(id >= 0 && id < tokenizer->vocab_size(), "an eos beyond the vocabulary");
  tokenizer->token_id("a");
  tokenizer->bos_id();
}
