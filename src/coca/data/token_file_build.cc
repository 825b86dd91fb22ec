// coca/data/token_file_build.cc - tokenizes a corpus; see token_file.h.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "coca/base/error.h"
#include "coca/base/stop.h"
#include "coca/data/token_file.h"
#include "coca/data/token_file_writer.h"

namespace coca::data {

BuildReport build_token_file(const text::Tokenizer& tokenizer, const BuildOptions& options) {
  const auto eos = tokenizer.eos_id();
  COCA_CHECK(!options.add_eos || eos.has_value(), "token file: the {} tokenizer has no eos to put after documents",
             tokenizer.kind());
  const int64_t total = corpus_file_bytes(options.corpus);
  int64_t done = 0;
  TokenFileWriter writer(options.output, tokenizer);
  BuildReport report;
  report.corpus = read_corpus(options.corpus, [&](Document&& document) {
    COCA_CHECK_AS(kInterrupted, !stop_requested(), "token file: stopped before {}; nothing was written", document.name);
    if (options.each) options.each(document);
    // Bytes are their own ids: a document of hundreds of megabytes needs no list of them. Other tokenizers see it
    // whole.
    const size_t piece = tokenizer.kind() == "byte" ? size_t{1} << 20 : document.text.size();
    for (size_t at = 0; at < document.text.size(); at += piece)
      writer.append(tokenizer.encode(std::string_view(document.text).substr(at, piece)));
    if (options.add_eos) writer.append(std::vector<int32_t>{*eos});
    writer.end_document();
    done = std::min(total, done + static_cast<int64_t>(document.text.size()));
    if (options.progress) options.progress(done, total);
  });
  writer.finish();
  if (options.progress && done < total) options.progress(total, total);
  report.tokens = static_cast<int64_t>(writer.tokens());
  report.documents = writer.documents();
  report.bytes_per_token =
      static_cast<double>(report.corpus.bytes) / static_cast<double>(std::max<int64_t>(report.tokens, 1));
  return report;
}

}  // namespace coca::data
