// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/analyse.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "coca/analyse/sample.h"
#include "coca/base/count.h"
#include "coca/base/parallel.h"
#include "coca/base/stop.h"
#include "coca/model/decoder.h"
#include "coca/ops/attention.h"
#include "coca/tensor/float_copies.h"
#include "coca/tensor/transfer.h"

namespace coca::analyse {

namespace {

using model::ModelSpec;
using HeadView = TensorView<const float, 4>;  // [1, N, H or G, D]

// Products of unit numbers by positions: e^(i n theta_j), [N, R/2].
class PositionRotations {
 public:
  PositionRotations(std::span<const double> frequencies, int64_t N)
      : planes_(frequencies.size()), values_(static_cast<size_t>(N) * planes_) {
    for (size_t n = 0; n < static_cast<size_t>(N); ++n)
      for (size_t j = 0; j < planes_; ++j)
        values_[n * planes_ + j] = std::polar(1.0, static_cast<double>(n) * frequencies[j]);
  }
  std::span<const Rotation> at(int64_t n) const { return {values_.data() + static_cast<size_t>(n) * planes_, planes_}; }

 private:
  size_t planes_;
  std::vector<Rotation> values_;
};

// Rounding of a rotated pair moves its angle by a few units in the last place of its type.
double angle_rounding(DType type) { return type == DType::kBF16 ? 0x1p-6 : 1e-6; }

// What positions do to the size of a plane's score: the amplitude on both sides, and xPos's decay.
double position_size(const ops::Rotation& r, size_t plane, double distance) {
  return r.amplitude * r.amplitude * (r.growth.empty() ? 1.0 : std::exp(r.growth[plane] * distance));
}

// What one layer computed for one window, in float.
struct LayerVectors {
  HeadView q_eff, k_eff;
  std::optional<HeadView> q, tbar;  // before rotation; CoCA only
  int64_t window = 0;               // keys visible to a query; 0: all
  double rounding = 0;
  bool rotates = true;  // false: a layer without positions, none of whose planes turns
};

// Everything about one window that layers share.
class WindowScan {
 public:
  WindowScan(const ModelSpec& spec, const AnalyseOptions& options, const ops::Rotation& rotation,
             std::span<const int32_t> ids, uint64_t number)
      : spec_(spec),
        rotation_(rotation),
        rotations_(rotation.frequencies, static_cast<int64_t>(ids.size())),
        earlier_(earlier_places(ids)) {
    const auto N = static_cast<int64_t>(ids.size());
    if (options.slow_turn) slow_ = slow_planes(spec, rotation, *options.slow_turn);
    content_ = options.slow_turn.has_value();
    Rng rng(static_cast<uint64_t>(options.seed), number);
    pairs_ = sample_pairs(N, options.pairs, rng);
    rows_ = sample_rows(N, options.rows, rng);
    for (const int64_t shift : options.shifts) {
      shifts_.emplace_back();
      for (const double theta : rotation.frequencies)
        shifts_.back().push_back(std::polar(1.0, static_cast<double>(shift) * theta));
    }
    if (model::uses_alibi(spec.attention)) slopes_ = ops::alibi_slopes(spec.H);
    row_scores_.assign(static_cast<size_t>(max_threads()), std::vector<double>(static_cast<size_t>(N)));
  }

  void add_head(const LayerVectors&, int64_t h, HeadStats&);
  size_t pairs() const { return pairs_.size(); }
  size_t rows() const { return rows_.size(); }

 private:
  void add_angles(const LayerVectors&, const TokenPair&, int64_t h, HeadStats&) const;
  void add_collinear(const LayerVectors&, const TokenPair&, int64_t h, HeadStats&) const;
  void add_row(const LayerVectors&, int64_t m, int64_t h, HeadStats&);
  void add_content(const LayerVectors&, int64_t h, HeadStats&) const;
  void slow_values(const LayerVectors&, const float* x, int64_t place, std::vector<double>& out) const;
  int64_t key_head(int64_t h) const { return h / (spec_.H / spec_.G); }

  const ModelSpec& spec_;
  const ops::Rotation& rotation_;
  PositionRotations rotations_;
  std::vector<TokenPair> pairs_;
  std::vector<int64_t> rows_;
  std::vector<std::vector<Rotation>> shifts_;
  std::vector<int64_t> earlier_;
  std::vector<char> slow_;  // by plane
  bool content_ = false;
  std::vector<float> slopes_;
  std::vector<std::vector<double>> row_scores_;  // per thread
};

void WindowScan::add_angles(const LayerVectors& v, const TokenPair& p, int64_t h, HeadStats& out) const {
  const float* q = v.q_eff.ptr(0, p.m, h);
  const float* k = v.k_eff.ptr(0, p.n, key_head(h));
  const std::vector<double>& theta = rotation_.frequencies;
  const size_t planes = v.rotates ? theta.size() : 0;
  const auto distance = static_cast<double>(p.m - p.n);
  for (size_t j = 0; j < planes; ++j) {
    PlanePair pair = plane_pair({q[j], q[j + planes]}, {k[j], k[j + planes]}, distance * theta[j]);
    if (pair.weight == 0) continue;  // a zero has no angle
    pair.weight /= position_size(rotation_, j, distance);
    out.collinear.add_angle(pair.angle);
    pair.angle = snapped(pair.angle, v.rounding);
    out.planes[j].add(pair, course_of(pair.angle, theta[j], static_cast<double>(spec_.max_position)));
  }
  for (int64_t d = static_cast<int64_t>(2 * planes); d < spec_.score_width(); ++d)
    out.unrotated += static_cast<double>(q[d]) * k[d];
}

void WindowScan::add_collinear(const LayerVectors& v, const TokenPair& p, int64_t h, HeadStats& out) const {
  out.collinear.add_pair(model::collinear_options(spec_).kind,
                         {.q = v.q->ptr(0, p.m, h),
                          .tbar = v.tbar->ptr(0, p.n, key_head(h)),
                          .query = rotations_.at(p.m),
                          .key = rotations_.at(p.n)},
                         shifts_);
}

void WindowScan::add_row(const LayerVectors& v, int64_t m, int64_t h, HeadStats& out) {
  const int64_t first = v.window > 0 ? std::max<int64_t>(0, m + 1 - v.window) : 0;
  const std::span<double> scores =
      std::span(row_scores_[static_cast<size_t>(thread_index())]).first(static_cast<size_t>(m + 1 - first));
  const float* q = v.q_eff.ptr(0, m, h);
  const double scale = 1.0 / std::sqrt(static_cast<double>(spec_.D));
  for (int64_t n = first; n <= m; ++n) {
    const float* k = v.k_eff.ptr(0, n, key_head(h));
    double dot = 0;
    for (int64_t d = 0; d < spec_.score_width(); ++d) dot += static_cast<double>(q[d]) * k[d];
    const double slope = slopes_.empty() ? 0.0 : static_cast<double>(slopes_[static_cast<size_t>(h)]);
    scores[static_cast<size_t>(n - first)] = dot * scale - slope * static_cast<double>(m - n);
  }
  out.attention.add_row(scores, first);
  out.induction.add_row(scores, first, earlier_[static_cast<size_t>(m)]);
}

// The slow planes of a query or key, turned back by its position, and what does not rotate.
void WindowScan::slow_values(const LayerVectors& v, const float* x, int64_t place, std::vector<double>& out) const {
  const size_t planes = v.rotates ? slow_.size() : 0;
  const auto E = static_cast<size_t>(v.q_eff.size(3));
  const std::span<const Rotation> turn = rotations_.at(place);
  out.clear();
  for (size_t j = 0; j < planes; ++j) {
    if (!slow_[j]) continue;
    const Rotation plane = Rotation(x[j], x[j + planes]) * std::conj(turn[j]);
    out.push_back(plane.real());
    out.push_back(plane.imag());
  }
  for (size_t d = 2 * planes; d < E; ++d) out.push_back(x[d]);
}

void WindowScan::add_content(const LayerVectors& v, int64_t h, HeadStats& out) const {
  std::vector<double> values;
  const int64_t N = v.q_eff.size(1);
  slow_values(v, v.q_eff.ptr(0, 0, h), 0, values);
  const size_t planes = v.rotates ? slow_.size() : 0;
  ContentStats content(planes, values.size());
  for (int64_t n = 0; n < N; ++n) {
    slow_values(v, v.q_eff.ptr(0, n, h), n, values);
    content.add_query(values);
    slow_values(v, v.k_eff.ptr(0, n, key_head(h)), n, values);
    content.add_key(values);
  }
  values.resize(planes);
  for (const TokenPair& p : pairs_) {
    const float *q = v.q_eff.ptr(0, p.m, h), *k = v.k_eff.ptr(0, p.n, key_head(h));
    const auto product = [&](size_t d) { return static_cast<double>(q[d]) * k[d]; };
    for (size_t j = 0; j < planes; ++j) values[j] = product(j) + product(j + planes);
    double unrotated = 0;
    for (auto d = 2 * planes; d < static_cast<size_t>(v.q_eff.size(3)); ++d) unrotated += product(d);
    content.add_pair(values, unrotated);
  }
  out.content.add(content);
}

void WindowScan::add_head(const LayerVectors& v, int64_t h, HeadStats& out) {
  for (const TokenPair& p : pairs_) {
    if (v.window > 0 && p.m - p.n >= v.window) continue;  // it is no operand of attention
    ++out.pairs;
    add_angles(v, p, h, out);
    if (v.rotates && has_collinear_planes(spec_)) add_collinear(v, p, h, out);
  }
  for (const int64_t m : rows_) add_row(v, m, h, out);
  if (content_) add_content(v, h, out);
  if (!v.tbar) return;
  for (int64_t n = 0; n < v.tbar->size(1); ++n)
    for (int64_t j = 0; j < v.tbar->size(3); ++j) out.collinear.zeros += v.tbar->ptr(0, n, key_head(h))[j] == 0;
  out.collinear.values += v.tbar->size(1) * v.tbar->size(3);
}

// An angle needs finite numbers: activations of a broken model may overflow.
void check_finite(const HeadView& v, size_t layer) {
  for (int64_t n = 0; n < v.size(1); ++n)
    for (int64_t h = 0; h < v.size(2); ++h)
      for (int64_t d = 0; d < v.size(3); ++d)
        COCA_CHECK_AS(kNumeric, std::isfinite(v.ptr(0, n, h)[d]),
                      "analyse: layer {}, position {}, head {}: {} in q or k", layer, n, h,
                      without_nan_sign(v.ptr(0, n, h)[d]));
}

// Waits for the traced tensors of a layer, and looks at it when the last of them, k_eff, has come.
class LayerListener {
 public:
  LayerListener(Context& cx, const ModelSpec& spec, WindowScan& scan, std::span<HeadStats> heads,
                std::function<void()> layer_done)
      : cx_(cx), spec_(spec), scan_(scan), heads_(heads), layer_done_(std::move(layer_done)) {}

  void operator()(std::string_view name, TensorRef value) {
    if (name.ends_with(".q")) q_ = fetched_[0].now(cx_, value);
    if (name.ends_with(".k")) k_ = fetched_[1].now(cx_, value);
    if (name.ends_with(".q_eff")) q_eff_ = fetched_[2].now(cx_, value);
    if (!name.ends_with(".k_eff")) return;
    COCA_CHECK_AS(kInterrupted, !stop_requested(), "stopped in layer {} of {}", layer_, spec_.L);
    look(fetched_[3].now(cx_, value));
    ++layer_;
    layer_done_();
  }

 private:
  void look(TensorRef k_eff) {
    const FloatInput q_eff(q_eff_), keys(k_eff), q(q_);
    LayerVectors v{.q_eff = q_eff.ref().view<float, 4>(),
                   .k_eff = keys.ref().view<float, 4>(),
                   .q = {},
                   .tbar = {},
                   .window = spec_.window_of(layer_),
                   .rounding = angle_rounding(k_eff.dtype),
                   .rotates = spec_.has_positions(layer_)};
    check_finite(v.q_eff, layer_);
    check_finite(v.k_eff, layer_);
    if (model::is_coca(spec_.attention)) {
      if (tbar_.empty()) tbar_ = Tensor({1, k_.size(1), spec_.G, spec_.stored_width()});
      ops::collinear_fold(fold_context_, model::collinear_options(spec_), {.R = spec_.R, .t = k_, .tbar = tbar_});
      v.q = q.ref().view<float, 4>();
      v.tbar = TensorRef(tbar_.ref()).view<float, 4>();
    }
    parallel_for(spec_.H, [&](int64_t h) {
      scan_.add_head(v, h, heads_[layer_ * static_cast<size_t>(spec_.H) + static_cast<size_t>(h)]);
    });
  }

  Context& cx_;  // the decoder's
  const ModelSpec& spec_;
  WindowScan& scan_;
  std::span<HeadStats> heads_;
  std::function<void()> layer_done_;
  Context fold_context_{nullptr};
  Tensor tbar_;  // [1, N, G, D/2]
  std::array<FetchedTensor, 4> fetched_;
  TensorRef q_, k_, q_eff_;
  size_t layer_ = 0;
};

HeadStats empty_head(const ModelSpec& spec, int64_t N, size_t shifts) {
  HeadStats head;
  if (model::uses_rotary(spec.attention)) head.planes.resize(static_cast<size_t>(spec.R / 2));
  head.attention = AttentionStats(N);
  head.collinear = CollinearStats(shifts);
  return head;
}

void check(std::span<const std::vector<int32_t>> windows, const AnalyseOptions& options) {
  analyse::check(options.borders);  // before the work, because it is needed after it
  COCA_CHECK(!windows.empty(), "text: has no window");
  COCA_CHECK(options.pairs >= 0, "pairs is {}; expected 0 (all) or more", options.pairs);
  COCA_CHECK(options.slow_turn.value_or(0) >= 0, "slow_turn is {}; expected at least 0", *options.slow_turn);
  COCA_CHECK(options.rows >= 0, "rows is {}; expected 0 (all) or more", options.rows);
  for (const int64_t shift : options.shifts) COCA_CHECK(shift >= 0, "shifts holds {}; expected at least 0", shift);
  const size_t N = windows[0].size();
  COCA_CHECK(N >= 2, "analyse: a window of {}; at least 2 are needed", counted(N, "token"));
  for (const std::vector<int32_t>& window : windows)
    COCA_CHECK(window.size() == N, "analyse: windows of {} and {}; all must be equally long", N,
               counted(window.size(), "token"));
}

}  // namespace

void HeadStats::add(const HeadStats& other) {
  planes.resize(std::max(planes.size(), other.planes.size()));
  for (size_t j = 0; j < other.planes.size(); ++j) planes[j].add(other.planes[j]);
  pairs += other.pairs;
  unrotated += other.unrotated;
  attention.add(other.attention);
  collinear.add(other.collinear);
  induction.add(other.induction);
}

AngleStats HeadStats::all_planes() const {
  AngleStats sum;
  for (const AngleStats& plane : planes) sum.add(plane);
  return sum;
}

double HeadStats::score_at(double distance, const ops::Rotation& rotation, int64_t D) const {
  double sum = unrotated;
  for (size_t j = 0; j < planes.size(); ++j) {
    const double turn = distance * rotation.frequencies[j];
    sum += (planes[j].weighted_cos * std::cos(turn) - planes[j].weighted_sin * std::sin(turn)) *
           position_size(rotation, j, distance);
  }
  return ratio(sum, static_cast<double>(pairs)) / std::sqrt(static_cast<double>(D));
}

std::vector<char> slow_planes(const ModelSpec& spec, const ops::Rotation& rotation, double slow_turn) {
  std::vector<char> slow;
  for (const double theta : rotation.frequencies)
    slow.push_back(theta * static_cast<double>(spec.max_position) <= slow_turn * kTurn);
  return slow;
}

bool has_collinear_planes(const ModelSpec& s) {
  return model::is_coca(s.attention) && model::uses_rotary(s.attention) &&
         (s.fold == ops::Fold::kRotary || s.R == s.plane_dims());
}

HeadStats Analysis::layer(int64_t i) const {
  HeadStats sum;
  for (int64_t h = 0; h < spec.H; ++h) sum.add(head(i, h));
  return sum;
}

HeadStats Analysis::all() const {
  HeadStats sum;
  for (const HeadStats& head : heads) sum.add(head);
  return sum;
}

Analysis analyse(const ModelSpec& spec, const model::Weights& weights, std::span<const std::vector<int32_t>> windows,
                 const AnalyseOptions& options) {
  Analysis out;
  analyse(spec, weights, windows, options, out);
  return out;
}

void analyse(const ModelSpec& spec, const model::Weights& weights, std::span<const std::vector<int32_t>> windows,
             const AnalyseOptions& options, Analysis& out) {
  check(windows, options);
  ModelSpec used = spec;
  used.rope_scaling = options.scaling.value_or(spec.rope_scaling);
  std::string other;
  if (!spec.dilation.empty()) other += ", dilated windows";
  if (spec.global_tokens > 0) other += ", " + counted(spec.global_tokens, "global token");
  if (spec.direction != model::Direction::kCausal) other += fmt::format(", direction {}", enum_name(spec.direction));
  COCA_CHECK(other.empty(), "analyse: figures are those of causal attention, full or windowed; this model has {}",
             other.substr(2));
  COCA_CHECK(!spec.pattern.far(),
             "analyse: figures are those of full or windowed attention; pattern {} is not analysed",
             enum_name(spec.pattern.type));
  for (const model::Modifier* m : spec.modifiers)
    COCA_CHECK(m->info().stage != model::Stage::kDecay && m->info().stage != model::Stage::kSoftmax,
               "analyse: attention modifier {} changes the softmax in a way that is not analysed", m->info().name);
  const auto N = static_cast<int64_t>(windows[0].size());
  out = {.spec = spec,
         .window = N,
         .windows = 0,
         .shifts = options.shifts,
         .rotation = plane_rotation(used, N, &weights),
         .heads = {},
         .borders = {}};
  const int64_t layers = static_cast<int64_t>(windows.size()) * spec.L;
  out.heads.assign(static_cast<size_t>(spec.L * spec.H), empty_head(spec, N, options.shifts.size()));
  Context cx;
  model::Decoder decoder(used, weights);
  int64_t done = 0;
  const auto close = [&] {
    if (out.windows > 0) out.borders = scaled_borders(spec, out.all().planes, options.borders, &weights);
  };
  const auto scan_window = [&](size_t i) {
    WindowScan scan(spec, options, out.rotation, windows[i], i);
    out.pairs = static_cast<int64_t>(scan.pairs());
    out.rows = static_cast<int64_t>(scan.rows());
    LayerListener listener(cx, spec, scan, out.heads, [&] {
      if (options.progress) options.progress(++done, layers);
    });
    cx.set_trace([&](std::string_view name, TensorRef value) { listener(name, value); });
    run_interruptible([&] { return fmt::format("stopped in window {} of {}", i + 1, windows.size()); },
                      [&] {
                        decoder.forward(cx, TensorRef(windows[i].data(), DType::kI32, {1, N}, kHost));
                      });
    ++out.windows;
  };
  std::vector<HeadStats> whole;  // of the windows that are done
  try {
    for (size_t i = 0; i < windows.size(); ++i) {
      whole = out.heads;
      scan_window(i);
    }
  } catch (...) {
    if (!whole.empty()) out.heads = std::move(whole);
    close();
    throw;
  }
  close();
}

}  // namespace coca::analyse
