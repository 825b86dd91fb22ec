// Fine-tuning examples in JSON lines, converted to tokens.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/instruct.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.per_byte = 256}) {
  using namespace coca;
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  const auto path = folder.write("a.jsonl", input);
  static const auto tokenizer = text::make_byte_tokenizer();
  static const data::ChatTemplate chat = data::chat_by(text::ChatTemplate::named("chatml"));
  for (const data::ChatTemplate& given : {data::ChatTemplate(data::plain_chat), chat})
    fuzz::attempt([&] {
      data::LoadReport report;
      const data::TokenDocuments documents =
          data::load_examples(*tokenizer, {.inputs = {path.string()}, .chat = given, .bos = 256}, &report);
      fuzz::require(documents.documents() == report.read.examples, "an example that is lost");
    });
}
