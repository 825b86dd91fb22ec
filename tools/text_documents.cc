// SPDX-License-Identifier: Apache-2.0
#include "text_documents.h"

#include <algorithm>
#include <cstdio>

#include "cli.h"

namespace coca::tools {

namespace {

// Keeps only the tokens that are used. If min_tokens is the larger limit, the excerpt is placed so that cutting it
// again to max_tokens gives the same tokens as cutting the whole document.
std::vector<int32_t> kept(std::vector<int32_t> ids, const DocumentLimits& limits) {
  const auto N = static_cast<int64_t>(ids.size());
  if (N < limits.min_tokens) return {};
  const int64_t keep = std::max(limits.max_tokens, limits.min_tokens);
  if (limits.max_tokens == 0 || N <= keep) return ids;
  const auto from = ids.begin() + eval::cut_begin(N, limits.max_tokens, limits.cut) -
                    eval::cut_begin(keep, limits.max_tokens, limits.cut);
  return {from, from + keep};
}

}  // namespace

Documents read_documents(const TextFlags& flags, const DocumentLimits& limits, const text::Tokenizer& tokenizer) {
  COCA_CHECK(!flags.text.empty(), "--text: no text given");
  Documents out;
  const data::SplitInputs chosen = data::choose_split(flags.text, flags.split);
  out.split = chosen.used;
  int64_t long_enough = 0, targets = 0;
  data::CorpusOptions options{.inputs = chosen.inputs, .invalid_utf8 = flags.invalid_utf8, .json_field = flags.field};
  const bool limited = limits.max_documents > 0 || limits.all_targets > 0;
  report::Progress progress =
      make_progress({.total = limited ? 0 : data::corpus_file_bytes(options), .unit = "bytes", .label = "tokenizing"});
  options.enough = [&] {
    return (limits.max_documents > 0 && long_enough == limits.max_documents) ||
           (limits.all_targets > 0 && targets >= limits.all_targets);
  };
  const data::CorpusReport report = data::read_corpus(options, [&](data::Document&& document) {
    out.bytes += static_cast<int64_t>(document.text.size());
    out.names.push_back(document.name);
    std::vector<int32_t>& ids = out.ids.emplace_back(tokenizer.encode(document.text));
    const auto N = static_cast<int64_t>(ids.size());
    long_enough += N >= std::max<int64_t>(2, limits.min_tokens);
    ids = kept(std::move(ids), limits);
    targets += std::max<int64_t>(0, static_cast<int64_t>(ids.size()) - 1);
    progress.update(out.bytes);
  });
  progress.finish();
  for (const std::string& warning : report.warnings) std::fprintf(stderr, "warning: %s\n", warning.c_str());
  return out;
}

}  // namespace coca::tools
