// SPDX-License-Identifier: Apache-2.0
#include "documents.h"

#include <cstdio>

#include "cli.h"

namespace coca::tools {

Documents read_documents(const data::CorpusOptions& options, const text::Tokenizer& tokenizer, int64_t max_tokens) {
  COCA_CHECK(!options.inputs.empty(), "--text: no text given");
  Documents out;
  report::Progress progress =
      make_progress({.total = options.max_documents > 0 ? 0 : data::corpus_file_bytes(options),
                     .unit = "bytes",
                     .label = "tokenizing"});
  const data::CorpusReport report = data::read_corpus(options, [&](data::Document&& document) {
    out.bytes += static_cast<int64_t>(document.text.size());
    out.ids.push_back(tokenizer.encode(document.text));
    if (max_tokens > 0 && static_cast<int64_t>(out.ids.back().size()) > max_tokens) {
      out.ids.back().resize(static_cast<size_t>(max_tokens));
      out.ids.back().shrink_to_fit();
    }
    progress.update(out.bytes);
  });
  progress.finish();
  for (const std::string& warning : report.warnings) std::fprintf(stderr, "warning: %s\n", warning.c_str());
  return out;
}

}  // namespace coca::tools
