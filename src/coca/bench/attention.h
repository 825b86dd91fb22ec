// coca/bench/attention.h - `coca bench attention`: prologue (rotation, CoCA's products) and attention
// together, forward and backward, by length; next to a matrix product of the same type, to another kind, or
// to the official formulation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "coca/base/sizes.h"
#include "coca/bench/answers.h"
#include "coca/bench/timing.h"
#include "coca/report/table.h"
#include "coca/tensor/context.h"

namespace coca::bench {

// The library's attention kinds, and the official formulation materialised (einsum_attention.h).
enum class AttentionForm : uint8_t { kRope, kCocaSlack, kCocaStrict, kCocaTied, kAlibi, kNone, kEinsum, kEinsum3d };
enum class Pass : uint8_t { kForward, kBackward, kBoth };

struct AttentionOptions {
  std::vector<AttentionForm> kind = {AttentionForm::kCocaSlack};
  std::optional<AttentionForm> against;
  Pass pass = Pass::kBoth;
  std::vector<int64_t> lengths = {512, 1024, 2048, 4096};
  int64_t batch = 1, heads = 8, kv_heads = 0, head_dim = 64;
  Precision dtype = Precision::kF32;
  int64_t window = 0, documents = 1;
  double memory_cap = 6;
  RepeatOptions repeat;

  template <class V>
  void visit(V&& v) {
    v.group("What");
    v("attention", "what to time; einsum: the official formula with N x N scores, einsum-3d: with N x N x D numbers",
      kind);
    v("against", "time this one too, in turns, and print the others' times divided by its time", against);
    v("pass", "both: forward and backward, each and together", pass);
    v("precision", "type of q, k or t, v and their gradients", dtype);
    v.group("Shape");
    v("lengths", "queries and keys of one sequence", lengths, Least{1});
    v("batch", "sequences", batch, Least{1});
    v("heads", "query heads", heads, Least{1});
    v("kv_heads", "key/value heads; default: as many as heads", kv_heads);
    v("head_dim", "numbers per head; all rotate", head_dim, Least{2});
    v("window", "keys visible to a query, itself included (sliding window); 0: all before it", window);
    v("documents", "packed documents of about equal length, without attention between them", documents, Least{1});
    v("memory_cap", "most memory of an einsum, in GiB; lengths that need more are left out", memory_cap, kAboveZero);
    repeat.visit(v);
  }
};

struct AttentionResult {
  int64_t length = 0;
  AttentionForm kind = AttentionForm::kRope;
  Pass pass = Pass::kForward;
  Timing seconds;
  double gflops = 0;         // products of visible pairs: 4 D per pair forward, 10 D backward
  double matrix_gflops = 0;  // a 2048^3 product of the same type, in the same rounds
  double tokens_per_second = 0;
  std::optional<Timing> ratio;  // of the time to that of `against`
};
struct AttentionReport {
  std::vector<AttentionResult> results;
  std::vector<std::string> notes;  // what was left out, and why
};

// Before timing, every kind is compared with the plain loops on a small case: a wrong number is an Error.
AttentionReport bench_attention(Context&, const AttentionOptions&, ProgressCounter);
report::Table attention_table(const AttentionOptions&, const AttentionReport&);
nlohmann::ordered_json to_json(const AttentionResult&);

}  // namespace coca::bench

COCA_ENUM_NAMES(coca::bench::AttentionForm, "kind", {coca::bench::AttentionForm::kRope, "rope"},
                {coca::bench::AttentionForm::kCocaSlack, "coca-slack"},
                {coca::bench::AttentionForm::kCocaStrict, "coca-strict"},
                {coca::bench::AttentionForm::kCocaTied, "coca-tied"}, {coca::bench::AttentionForm::kAlibi, "alibi"},
                {coca::bench::AttentionForm::kNone, "none"}, {coca::bench::AttentionForm::kEinsum, "einsum"},
                {coca::bench::AttentionForm::kEinsum3d, "einsum-3d"})
COCA_ENUM_NAMES(coca::bench::Pass, "pass", {coca::bench::Pass::kForward, "forward"},
                {coca::bench::Pass::kBackward, "backward"}, {coca::bench::Pass::kBoth, "both"})
