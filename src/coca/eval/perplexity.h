// coca/eval/perplexity.h - perplexity of documents by window length, under a protocol (perplexity_protocol.h).
//
// The default slides a window: for a document of N tokens, window W and stride S: prev = 0; for b = 0, S, 2S, ...:
// e = min(b + W, N); run the tokens [b, e); score the targets at positions >= prev that have a predecessor in the
// window; prev = e; stop at e == N. A leading bos token counts in W, so that a window holds W - 1 tokens of text.
// Every target is scored once, with at least W - S tokens before it wherever the document has them. The first token
// of a document is scored only after a bos token, and so is the first of each window when windows do not overlap.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "coca/dist/communicator.h"
#include "coca/eval/perplexity_protocol.h"
#include "coca/eval/target_losses.h"
#include "coca/model/params.h"
#include "coca/tensor/context.h"

namespace coca::eval {

struct PerplexityProgress {
  int64_t done_tokens = 0, total_tokens = 0;  // run through the model, over all lengths
  int64_t length = 0;                         // the one at work
  double perplexity = 0;                      // of what was scored at this length so far
};

// How ranks split the work: whole windows, in turn, or every window's tokens (context parallelism;
// model/ring_attention.h). Windows with fewer tokens than the ring has chunks are run whole by each rank.
enum class Share : uint8_t { kWindows, kTokens };

enum class ByPosition : uint8_t { kNo, kYes };
enum class KeepLosses : uint8_t { kNo, kYes };

struct PerplexityOptions {
  Protocol protocol;
  std::optional<model::RopeScaling> scaling;  // instead of the spec's
  int64_t batch_tokens = 8192;                // windows of equal length run together up to about this many tokens
  std::vector<IdText> id_text;                // text_of_ids() of the tokenizer, for bytes and words; empty: not wanted
  std::function<void(const PerplexityProgress&)> progress;  // may be empty
  dist::Communicator& ranks =
      dist::alone();  // who share the windows; all have the same documents, and get the same results
  Share share = Share::kWindows;
  ByPosition by_position = ByPosition::kNo;  // all targets of a window reach the output embedding then
  KeepLosses keep_losses = KeepLosses::kNo;
  const KeyTokens* key_tokens = nullptr;  // find_key_tokens() of the same documents; null: not wanted
};

// Sums over the targets of windows.
struct PerplexitySums {
  int64_t windows = 0, scored_tokens = 0;
  int64_t bytes = 0, words = 0;  // of the text of the scored tokens; words as white space parts them
  double nll = 0;                // in nats

  double mean_nll() const { return nll / static_cast<double>(scored_tokens); }
  double perplexity() const;                      // per token
  std::optional<double> word_perplexity() const;  // exp(nll / words); empty when words were not counted
  std::optional<double> bits_per_byte() const;
};

struct DocumentPerplexity {
  int64_t document = 0;  // index among those given
  int64_t tokens = 0;    // as cut, including a leading bos token
  PerplexitySums sums;
};

struct PerplexityResult {
  int64_t length = 0;                          // W
  int64_t stride = 0;                          // the one used: at most the text tokens of a window
  int64_t documents = 0;                       // evaluated
  int64_t document_tokens = 0;                 // of these, as cut
  int64_t short_documents = 0;                 // texts shorter than a window
  int64_t skipped_documents = 0;               // fewer tokens than two, or than the protocol needs
  int64_t windows = 0;                         // with at least one scored token
  int64_t planned_windows = 0;                 // more than these where the measurement ended within this length
  int64_t fewest_scored = 0, most_scored = 0;  // tokens, of a window
  double equal_windows = 0;                    // as many of equal size weigh as much: (sum n)^2 / sum n^2
  int64_t scored_tokens = 0, run_tokens = 0;
  int64_t longest_window = 0;  // tokens of the longest window run, bos included
  std::optional<int32_t> bos;  // where the protocol puts it
  double nll = 0;              // token-weighted mean, in nats; inf and nan are reported as they are
  double perplexity = 0;       // exp(nll)
  double window_mean_perplexity = 0;
  std::optional<double> bits_per_byte, word_perplexity;
  int64_t words = 0;                            // of the scored tokens
  std::vector<DocumentPerplexity> by_document;  // those with a scored token; empty when documents are joined
  std::vector<PositionLoss> positions;          // with by_position
  std::vector<WindowLosses> losses;             // with keep_losses, of the windows in the order of the texts
  std::optional<KeyLoss> key;                   // with key_tokens
  // Standard error of the mean nll, as a ratio over k windows treated as independent draws:
  // sqrt(k/(k-1) sum (s - n mean)^2) / sum n, where s is the sum of a window's nll and n its scored tokens.
  // Neighbouring windows of one document are alike, so it is somewhat too small. Empty for a single window.
  std::optional<double> standard_error;
  double seconds = 0, tokens_per_second = 0;  // of the tokens run
  int64_t peak_resident_bytes = 0;            // of the process until then

  bool whole() const { return windows == planned_windows; }
  bool reaches_length() const { return longest_window == length; }
  double value(Average average) const { return average == Average::kTokens ? perplexity : window_mean_perplexity; }
};

// One result per length, in the order of the lengths. batch_tokens changes results only by the rounding of the matrix
// products. Logits never exist as a whole, and only the positions asked for reach the output embedding. Throws Error
// kInterrupted on a request to stop, and Error if no document has the tokens that the protocol needs.
std::vector<PerplexityResult> perplexity(Context&, const model::ModelSpec&, const model::Weights&,
                                         std::span<const std::vector<int32_t>> documents, const PerplexityOptions&);
// The same, but each length is added to `results` when it is done; after an error, a partly finished length is added
// too.
void perplexity(Context&, const model::ModelSpec&, const model::Weights&,
                std::span<const std::vector<int32_t>> documents, const PerplexityOptions&,
                std::vector<PerplexityResult>& results);

// What it would run, with its errors, before any weights: by length all counts of windows and tokens, and nothing that
// is measured.
std::vector<PerplexityResult> plan_perplexity(const model::ModelSpec&, std::span<const std::vector<int32_t>> documents,
                                              const PerplexityOptions&);

}  // namespace coca::eval
