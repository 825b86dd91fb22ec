// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/ring.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "coca/base/count.h"
#include "coca/base/sizes.h"
#include "coca/bench/machine.h"
#include "coca/bench/model_shape.h"
#include "coca/model/decoder.h"
#include "coca/model/layer_attention.h"
#include "coca/model/ring_attention.h"

namespace coca::bench {

namespace {

using model::AttentionKind;

// One rank of many whose messages cost a copy: what is sent comes back as what is received.
class Unlinked : public dist::Communicator {
 public:
  Unlinked(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void exchange(std::span<const dist::Send> sends, std::span<const dist::Receive> receives) override {
    for (size_t i = 0; i < receives.size(); ++i)
      std::memcpy(receives[i].bytes.data(), sends[i].bytes.data(),
                  std::min(receives[i].bytes.size(), sends[i].bytes.size()));
  }
  std::unique_ptr<Communicator> duplicate() override { return std::make_unique<Unlinked>(rank_, size_); }

 private:
  int rank_, size_;
};

model::ModelSpec spec_of(const RingOptions& o, AttentionKind kind) {
  model::ModelSpec s;
  s.attention = kind;
  s.H = o.heads;
  s.G = o.kv_heads > 0 ? o.kv_heads : o.heads;
  s.D = s.R = o.head_dim;
  return s;
}

// The tokens of one rank; all ranks have the same work, and this one is in the middle.
class RankCase {
 public:
  RankCase(Context& cx, const RingOptions& o, AttentionKind kind, int64_t N, int K)
      : cx_(cx),
        spec_(spec_of(o, kind)),
        positions_(spec_),
        unlinked_(K / 2, K),
        ring_(spec_, unlinked_, N),
        alone_(K == 1) {
    const int64_t n = ring_.tokens();
    const DType type = dtype_of(o.dtype);
    const Dims queries{1, n, spec_.H, spec_.D}, keys{1, n, spec_.G, spec_.D};
    const auto add = [&](const Dims& shape, DType t, uint64_t seed) {
      tensors_.push_back(seed > 0 ? random_tensor(shape, t, seed) : Tensor(shape, t));
      return tensors_.back().ref();
    };
    acts_.q = add(queries, type, 11);
    acts_.kt = add(keys, type, 12);
    acts_.v = add(keys, type, 13);
    acts_.q_eff = acts_.q;
    acts_.k_eff = acts_.kt;
    if (transforms_keys(kind)) {
      acts_.q_eff = add(queries, type, 0);
      acts_.k_eff = add(keys, type, 0);
    }
    acts_.o = add(queries, type, 0);
    acts_.lse = add({1, spec_.H, n}, DType::kF32, 0);
    grads_.d_o = add(queries, type, 14);
    grads_.dq_eff = add(queries, type, 0);
    grads_.dk_eff = add(keys, type, 0);
    grads_.dkt = add(keys, type, 0);
    grads_.dv = add(keys, type, 0);
    at_ = alone_ ? positions_.at(0, N, N) : ring_.begin(positions_);
  }
  RankCase(const RankCase&) = delete;

  void forward() {
    model::KeySource& keys = alone_ ? static_cast<model::KeySource&>(whole_) : ring_;
    keys.attend(cx_, spec_, {}, at_, acts_);
  }
  void backward() {
    if (alone_)
      model::attend_backward(cx_, spec_, at_, acts_, grads_);
    else
      ring_.backward(cx_, at_, acts_, grads_);
  }
  int64_t bytes_of(const std::function<void()>& pass) {
    ring_.reset_counts();
    pass();
    return ring_.counts().bytes;
  }

 private:
  Context& cx_;
  model::ModelSpec spec_;
  model::PositionSource positions_;
  Unlinked unlinked_;
  model::RingAttention ring_;
  bool alone_;
  std::vector<Tensor> tensors_;
  model::LayerActs acts_;
  model::LayerActGrads grads_;
  model::AttentionInputs at_;
  model::WholeSequences whole_;
};

// Bytes of a block that goes on, and of the sums of its gradients (forward none).
struct Messages {
  double block = 0, sums = 0;
};

// K equal steps of work. Blocks travel during all but the last, sums during all but the first; then the sums return.
RingPass pass_of(const RingOptions& o, int64_t K, Timing work, int64_t bytes, const Messages& m) {
  RingPass p{.work = std::move(work), .bytes = bytes};
  const double step = p.work.median / o.machine_speed / static_cast<double>(K);
  const auto wire = [&](double size) { return size > 0 ? size * 8e-9 / o.gbit + 1e-6 * o.latency_us : 0.0; };
  for (int64_t i = 0; i < K; ++i) {
    const double seconds = wire((i + 1 < K ? m.block : 0) + (i > 0 ? m.sums : 0));
    p.link += seconds;
    p.hidden += std::max(step, seconds);
  }
  const double home = K > 1 ? wire(m.sums) : 0;
  p.link += home;
  p.hidden += home;
  p.apart = step * static_cast<double>(K) + p.link;
  return p;
}

void check_options(const RingOptions& o) {
  check_repeats(o.repeat);
  COCA_CHECK(!o.kind.empty(), "attention: none given");
  COCA_CHECK(!o.lengths.empty(), "lengths: none given");
  COCA_CHECK(!o.machines.empty(), "machines: none given");
  for (const int64_t K : o.machines) COCA_CHECK(K >= 1 && K <= 4096, "machines holds {}; expected 1 to 4096", K);
  check_heads({.heads = o.heads, .kv_heads = o.kv_heads, .head_dim = o.head_dim});
  const int64_t most = *std::ranges::max_element(o.machines);
  for (const int64_t N : o.lengths) {  // q, k and v of the whole sequence
    COCA_CHECK(N >= 2 * most, "lengths holds {}; expected at least {}, two chunks for each of {}", N, 2 * most,
               counted(most, "machine"));
    check_memory("the sequence", {{"lengths", N}, {"heads", o.heads}, {"head_dim", o.head_dim}, {"bytes", 12}},
                 "lower one of these");
  }
  COCA_CHECK(o.gbit > 0, "gbit is {}; expected more than 0", o.gbit);
  COCA_CHECK(o.machine_speed > 0, "machine_speed is {}; expected more than 0", o.machine_speed);
  COCA_CHECK(o.latency_us >= 0, "latency_us is {}; expected at least 0", o.latency_us);
}

void add_speedups(std::vector<RingResult>& results) {
  for (RingResult& r : results)
    for (const RingResult& one : results)
      if (one.machines == 1 && one.kind == r.kind && one.length == r.length) {
        r.speedup = one.hidden() / r.hidden();
        r.speedup_apart = one.hidden() / r.apart();
      }
}

}  // namespace

std::vector<RingResult> bench_ring(Context& cx, const RingOptions& o, ProgressCounter progress) {
  check_options(o);
  const auto kinds = static_cast<int64_t>(o.kind.size());
  const auto work = [](int64_t N, int64_t K) {
    return static_cast<double>(N) * static_cast<double>(N) / static_cast<double>(K);
  };  // pairs of a rank
  for (const int64_t N : o.lengths)
    for (const int64_t K : o.machines) progress.plan(planned_steps(2 * kinds, o.repeat), work(N, K));
  std::vector<RingResult> results;
  for (const int64_t N : o.lengths)
    for (const int64_t K : o.machines) {
      progress.work_of_step = work(N, K);
      progress.begin(fmt::format("making {} over {}", counted(N, "token"), K));
      std::vector<std::unique_ptr<RankCase>> cases;
      std::vector<Contestant> contestants;
      for (const AttentionKind kind : o.kind) {
        RankCase& c = *cases.emplace_back(std::make_unique<RankCase>(cx, o, kind, N, static_cast<int>(K)));
        const std::string name = fmt::format("{} {} over {}", enum_name(kind), N, K);
        contestants.push_back({name + " forward", [&c] { c.forward(); }});
        contestants.push_back({name + " backward", [&c] { c.backward(); }});
      }
      const std::vector<Timing> timings = measure_interleaved(contestants, o.repeat, progress);
      for (size_t i = 0; i < cases.size(); ++i) {
        const auto bytes = [&](size_t of) { return K == 1 ? 0 : cases[i]->bytes_of(contestants[2 * i + of].run); };
        const int64_t forward = bytes(0), backward = bytes(1);
        const double block = K == 1 ? 0 : static_cast<double>(forward) / static_cast<double>(K - 1);
        const double sums = static_cast<double>(backward - forward) / static_cast<double>(K);
        results.push_back({.length = N,
                           .machines = K,
                           .kind = o.kind[i],
                           .forward = pass_of(o, K, timings[2 * i], forward, {.block = block}),
                           .backward = pass_of(o, K, timings[2 * i + 1], backward, {.block = block, .sums = sums}),
                           .speedup = {},
                           .speedup_apart = {}});
      }
    }
  add_speedups(results);
  return results;
}

report::Table ring_table(const RingOptions&, const std::vector<RingResult>& results) {
  report::Table table{
      .title = "",
      .header = {"length", "machines", "attention", "work forward", "+-", "work backward", "+-", "sent forward",
                 "sent backward", "on the wire", "pass, hidden", "pass, apart", "x one, hidden", "x one, apart"},
      .rows = {},
      .align = {report::Align::kRight, report::Align::kRight, report::Align::kLeft}};
  const auto factor = [](const std::optional<double>& f) { return f ? fmt::format("{:.2f}", *f) : std::string("-"); };
  const auto seconds = [](double s) { return report::format_number(s) + " s"; };
  for (const RingResult& r : results)
    table.rows.push_back({fmt::format("{}", r.length), fmt::format("{}", r.machines), std::string(enum_name(r.kind)),
                          seconds(r.forward.work.median), r.forward.work.spread_text(), seconds(r.backward.work.median),
                          r.backward.work.spread_text(), report::format_bytes(r.forward.bytes),
                          report::format_bytes(r.backward.bytes), seconds(r.forward.link + r.backward.link),
                          seconds(r.hidden()), seconds(r.apart()), factor(r.speedup), factor(r.speedup_apart)});
  return table;
}

nlohmann::ordered_json to_json(const RingResult& r) {
  nlohmann::ordered_json j;
  j["length"] = r.length;
  j["machines"] = r.machines;
  j["attention"] = std::string(enum_name(r.kind));
  for (const auto& [name, pass] : {std::pair{"forward", &r.forward}, std::pair{"backward", &r.backward}}) {
    const std::string prefix = std::string(name) + "_";
    add_timing(j, prefix + "work_seconds", pass->work);
    j[prefix + "bytes"] = pass->bytes;
    j[prefix + "link_seconds"] = pass->link;
    j[prefix + "hidden_seconds"] = pass->hidden;
    j[prefix + "apart_seconds"] = pass->apart;
  }
  j["speedup"] = r.speedup ? nlohmann::ordered_json(*r.speedup) : nlohmann::ordered_json(nullptr);
  j["speedup_apart"] = r.speedup_apart ? nlohmann::ordered_json(*r.speedup_apart) : nlohmann::ordered_json(nullptr);
  return j;
}

}  // namespace coca::bench
