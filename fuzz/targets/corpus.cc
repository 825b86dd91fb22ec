// A corpus of JSON lines and one of plain text, under each rule for invalid UTF-8.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/corpus.h"
#include "coca/text/utf8.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.per_byte = 256}) {
  using namespace coca;
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  for (const char* name : {"a.jsonl", "a.txt"}) {
    const auto path = folder.write(name, input);
    for (const auto rule : {data::InvalidUtf8::kReplace, data::InvalidUtf8::kKeep, data::InvalidUtf8::kError})
      fuzz::attempt([&] {
        data::read_corpus({.inputs = {path.string()}, .invalid_utf8 = rule}, [&](data::Document&& document) {
          fuzz::require(rule == data::InvalidUtf8::kKeep || text::is_valid_utf8(document.text),
                        "a text that is not UTF-8");
        });
      });
  }
}
