// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/perplexity_protocol.h"

#include <algorithm>

namespace coca::eval {

void check_protocol(const Protocol& p) {
  COCA_CHECK(!p.lengths.empty(), "lengths: none given");
  for (const int64_t W : p.lengths) COCA_CHECK(W >= 2, "lengths holds {}; expected at least 2", W);
  COCA_CHECK(p.stride >= 0, "stride is {}; expected at least 1, or 0 (the window)", p.stride);
  COCA_CHECK(p.min_tokens >= 0, "min_tokens is {}; expected at least 0", p.min_tokens);
  COCA_CHECK(p.max_tokens == 0 || p.max_tokens >= 2, "max_tokens is {}; expected at least 2, or 0 (all)", p.max_tokens);
  COCA_CHECK(p.max_documents >= 0, "max_documents is {}; expected at least 0", p.max_documents);
  // Targets between those halves, or ends, would be lost or counted twice without a word.
  COCA_CHECK(p.placement != Placement::kEnds || p.scored == Scored::kNew,
             "scored is {}; placement ends scores new targets only", enum_name(p.scored));
}

namespace {

constexpr int64_t k32 = 32768, k128 = 131072;

std::vector<NamedProtocol> within_documents() {
  return {
      {"sliding", "this project's default", {}},
      {"coca",
       "CoCA paper: PG-19 test, 100 documents cut after 32,768 tokens",
       {.lengths = {512, 1024, 2048, 4096, 8192, 16384, k32},
        .stride = 512,
        .min_tokens = k32,
        .max_tokens = k32,
        .cut = Cut::kStart,
        .max_documents = 100}},
      {"pi",
       "Position Interpolation: PG-19 test, whole documents",
       {.lengths = {2048, 4096, 8192, 16384, k32}, .stride = 256}},
      {"yarn",
       "YaRN, eval/perplexity.py --sliding-window 256",
       {.lengths = {2048, 4096, 8192, 16384, k32}, .stride = 256, .average = Average::kWindows, .cut = Cut::kStart}},
      {"yarn-truncate",
       "YaRN, eval/perplexity.py --truncate: 10 documents of proof-pile",
       {.lengths = {8192, k32, 65536, k128},
        .stride = 0,
        .placement = Placement::kFirst,
        .average = Average::kWindows,
        .min_tokens = k128,
        .cut = Cut::kStart,
        .max_documents = 10}},
      {"pose",
       "PoSE, src/eval_ppl.py at 128k",
       {.lengths = {16384, k32, 65536, k128},
        .stride = 16384,
        .min_tokens = k128,
        .max_tokens = k128,
        .cut = Cut::kStart,
        .max_documents = 20}},
  };
}

std::vector<NamedProtocol> over_joined_documents() {
  return {
      {"longlora",
       "LongLoRA, eval.py",
       {.lengths = {2048, 4096, 8192, 16384, k32},
        .stride = 256,
        .scored = Scored::kAll,
        .tail = Tail::kFullWithNext,
        .bos = Bos::kNever,
        .average = Average::kWindows,
        .join = Join::kJoined}},
      {"landmark",
       "landmark attention, lm_benchmark/eval.py",
       {.lengths = {512, 2048, 4096},
        .stride = 0,
        .reach = Reach::kNext,
        .tail = Tail::kFull,
        .bos = Bos::kNever,
        .average = Average::kWindows,
        .join = Join::kJoined}},
      {"alibi",
       "ALiBi, fairseq-eval-lm without context window",
       {.stride = 0, .reach = Reach::kNext, .bos_place = BosPlace::kTextStart, .join = Join::kJoined}},
      {"alibi-sliding",
       "ALiBi, fairseq-eval-lm --context-window L-1",
       {.stride = 1,
        .placement = Placement::kEnds,
        .reach = Reach::kNext,
        .bos_place = BosPlace::kTextStart,
        .join = Join::kJoined}},
      {"llama.cpp",
       "llama-perplexity",
       {.lengths = {512},
        .stride = 0,
        .scored = Scored::kSecondHalf,
        .tail = Tail::kFull,
        .bos_place = BosPlace::kFirstToken,
        .join = Join::kJoined}},
      {"llama.cpp-stride",
       "llama-perplexity --ppl-stride 512 (its window with default flags: 2048 + 512 / 2)",
       {.lengths = {2304},
        .stride = 512,
        .scored = Scored::kLastStride,
        .tail = Tail::kFullWithNext,
        .bos_place = BosPlace::kTextStart,
        .join = Join::kJoined}},
  };
}

}  // namespace

const std::vector<NamedProtocol>& named_protocols() {
  static const std::vector<NamedProtocol> table = [] {
    std::vector<NamedProtocol> all = within_documents();
    const std::vector<NamedProtocol> more = over_joined_documents();
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }();
  return table;
}

std::string protocol_names() { return names_of(named_protocols()); }

const Protocol& protocol_of(std::string_view name) { return entry_of(named_protocols(), "protocol", name).protocol; }

}  // namespace coca::eval
