// coca/bench/ring.h - `coca bench ring`: the work of one of K ranks for the attention of a layer, timed alone, and from
// it the simulated time of K machines on a network. Assumptions: docs/math/ring_attention.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "coca/base/sizes.h"
#include "coca/bench/timing.h"
#include "coca/model/params.h"
#include "coca/report/table.h"
#include "coca/tensor/context.h"

namespace coca::bench {

struct RingOptions {
  std::vector<model::AttentionKind> kind = {model::AttentionKind::kRope, model::AttentionKind::kCocaSlack};
  std::vector<int64_t> lengths = {32768};
  std::vector<int64_t> machines = {1, 2, 4, 8, 16, 32, 64};
  int64_t heads = 4, kv_heads = 0, head_dim = 64;
  model::Precision dtype = model::Precision::kF32;
  double gbit = 100, latency_us = 20, machine_speed = 1;
  RepeatOptions repeat{.repeats = 3, .warmup = 0};

  template <class V>
  void visit(V&& v) {
    v.group("What");
    v("attention", "attention to time", kind);
    v("lengths", "tokens of the one sequence that is split", lengths, Least{1});
    v("machines", "numbers of ranks, one per machine; 1: attention in one process", machines, Least{1});
    v("precision", "type of q, k or t, and v; sums of gradients are sent in fp32", dtype);
    v("heads", "query heads", heads, Least{1});
    v("kv_heads", "key/value heads; default: as many as heads", kv_heads);
    v("head_dim", "numbers per head; all rotate", head_dim, Least{2});
    v.group("The simulated machines");
    v("gbit", "bandwidth of a link in Gbit/s, in both directions at once", gbit);
    v("latency_us", "microseconds before a message's first byte", latency_us);
    v("machine_speed", "speed of a machine, as a multiple of this process", machine_speed);
    repeat.visit(v);
  }
};

// One pass through the attention of one layer.
struct RingPass {
  Timing work;                   // of this rank, when messages cost nothing
  int64_t bytes = 0;             // it sends
  double link = 0;               // seconds to send them
  double hidden = 0, apart = 0;  // seconds of the pass: with messages during the work, or after it
};

struct RingResult {
  int64_t length = 0, machines = 0;
  model::AttentionKind kind = model::AttentionKind::kRope;
  RingPass forward, backward;
  std::optional<double> speedup, speedup_apart;  // over one machine, if that was timed

  double hidden() const { return forward.hidden + backward.hidden; }
  double apart() const { return forward.apart + backward.apart; }
};

std::vector<RingResult> bench_ring(Context&, const RingOptions&, ProgressCounter);
report::Table ring_table(const RingOptions&, const std::vector<RingResult>&);
nlohmann::ordered_json to_json(const RingResult&);

}  // namespace coca::bench
