// tests/support/reference_decoder.h - a decoder that processes token by token, in plain loops over float, double or
// complex<double>. Each step may use another sequence length (dynamic NTK); all earlier keys are then rotated for it,
// while the hidden states of earlier tokens do not change. With the same length at every step it equals the whole
// causal forward pass.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "coca/kernels/ref/activation.h"
#include "coca/kernels/ref/attention.h"
#include "coca/kernels/ref/collinear.h"
#include "coca/kernels/ref/norm.h"
#include "coca/model/params.h"
#include "coca/ops/attention.h"
#include "support/reference_angles.h"
#include "support/reference_clex.h"

namespace coca::test {

// Which keys the reference's cache holds: unrotated ones, or, as an error under dynamic NTK, ones rotated once.
enum class KeyMemory : uint8_t { kPlain, kRotated };

template <typename T>
class ReferenceDecoder {
 public:
  ReferenceDecoder(const model::ModelSpec& spec, const model::ParamStore& store, KeyMemory memory = KeyMemory::kPlain)
      : s_(spec), store_(store), memory_(memory), flat_(flat_of(store)), layers_(static_cast<size_t>(spec.L)) {
    if (model::uses_alibi(spec.attention)) slopes_ = ops::alibi_slopes(spec.H);
  }

  // Makes the sums of linear layers start at this term and wrap around, for different roundings of the same formula.
  void set_first_term(int64_t term) { first_term_ = term; }

  // Token n is at positions[n]; if empty, at n.
  void set_positions(std::vector<double> positions) { positions_ = std::move(positions); }

  std::vector<T>& weights() { return flat_; }  // in the order of ParamStore::flat()
  void restart() {
    for (Layer& layer : layers_) layer = {};
    position_ = 0;
  }

  // Logits [V] after the token `id`.
  std::vector<T> step(int32_t id, int64_t seq_len) {
    const model::Weights& w = store_.weights();
    angles_ = reference_angles(s_, s_.pattern.used_length(seq_len));
    if (s_.rope_scaling.type == model::Scaling::kClex) theta_ = learnt_frequencies(s_.pattern.used_length(seq_len));
    std::vector<T> x(at(w.embed) + id * s_.C, at(w.embed) + (id + 1) * s_.C);
    for (layer_ = 0; layer_ < layers_.size(); ++layer_) x = layer(x, w.layers[layer_], layers_[layer_], layer_);
    ++position_;
    return linear(norm(x, w.norm_w, w.norm_b), w.head, {}, s_.V);
  }

  // Logits [N, V] of the whole sequence with one length.
  std::vector<T> run(std::span<const int32_t> ids, int64_t seq_len) {
    restart();
    if (s_.direction == model::Direction::kBidirectional) return run_both_ways(ids, seq_len);
    std::vector<T> out;
    for (const int32_t id : ids) {
      const std::vector<T> logits = step(id, seq_len);
      out.insert(out.end(), logits.begin(), logits.end());
    }
    return out;
  }

 private:
  struct Layer {
    std::vector<T> keys, values;                // [tokens, G, D] each
    std::vector<T> global_keys, global_values;  // the same with the global tokens' projections
    std::vector<T> last_key, last_value;        // of the token before, not mixed (kv-shift)
    std::vector<T> decay;                       // [tokens, H] (forget-gate)
  };
  struct Heads {
    std::vector<T> q, k, v;  // of one token
  };

  // Processes all tokens in one layer before the next.
  std::vector<T> run_both_ways(std::span<const int32_t> ids, int64_t seq_len) {
    const model::Weights& w = store_.weights();
    angles_ = reference_angles(s_, seq_len);
    std::vector<std::vector<T>> x;
    for (const int32_t id : ids) x.emplace_back(at(w.embed) + id * s_.C, at(w.embed) + (id + 1) * s_.C);
    for (size_t i = 0; i < layers_.size(); ++i) {
      layer_ = i;
      std::vector<std::vector<T>> queries;
      for (size_t n = 0; n < x.size(); ++n) {
        position_ = static_cast<int64_t>(n);
        queries.push_back(remember(normed(x[n], w.layers[i]), w.layers[i], layers_[i]));
      }
      for (size_t n = 0; n < x.size(); ++n) {
        position_ = static_cast<int64_t>(n);
        x[n] = finish(x[n], attend(queries[n], w.layers[i], layers_[i], i), w.layers[i]);
      }
    }
    std::vector<T> out;
    for (const std::vector<T>& row : x) {
      const std::vector<T> logits = linear(norm(row, w.norm_w, w.norm_b), w.head, {}, s_.V);
      out.insert(out.end(), logits.begin(), logits.end());
    }
    return out;
  }

  static std::vector<T> flat_of(const model::ParamStore& store) {
    const float* p = store.flat().as<float>();
    return std::vector<T>(p, p + store.flat().numel());
  }
  const T* at(TensorRef r) const {
    return r.empty() ? nullptr : flat_.data() + (r.as<float>() - store_.flat().as<float>());
  }

  // The frequencies for the step's length, from the current weights.
  std::vector<T> learnt_frequencies(int64_t seq_len) {
    const int64_t t = std::min((seq_len + s_.max_position - 1) / s_.max_position, s_.rope_scaling.max_factor);
    const model::Weights& w = store_.weights();
    return reference_clex(s_, at(w.clex_up), at(w.clex_down), t);
  }

  std::vector<T> norm(const std::vector<T>& x, TensorRef w, TensorRef b) const {
    std::vector<T> y(x.size());
    const auto kind = s_.norm == ops::NormKind::kLayerNorm ? ref::Norm::kLayer : ref::Norm::kRms;
    ref::norm_forward<T>({.kind = kind, .eps = s_.norm_eps, .M = 1, .C = s_.C, .x = x.data(), .w = at(w), .b = at(b)},
                         y.data(), nullptr);
    return y;
  }

  // w [out, in]; b [out] or empty.
  std::vector<T> linear(const std::vector<T>& x, TensorRef w, TensorRef b, int64_t out) const {
    std::vector<T> y(static_cast<size_t>(out));
    const auto in = static_cast<int64_t>(x.size());
    for (int64_t o = 0; o < out; ++o) {
      T sum = at(b) ? at(b)[o] : T(0);
      for (int64_t k = 0; k < in; ++k) {
        const int64_t i = (k + first_term_) % in;
        sum += at(w)[o * in + i] * x[static_cast<size_t>(i)];
      }
      y[static_cast<size_t>(o)] = sum;
    }
    return y;
  }

  // By name, not by the code under test.
  ops::Collinear form() const {
    const std::string_view name = enum_name(s_.attention);
    using ops::Collinear;
    for (const auto& [start, kind] :
         {std::pair("coca-strict", Collinear::kStrict), std::pair("coca-tied", Collinear::kTied),
          std::pair("coca-abs", Collinear::kAbs), std::pair("pope", Collinear::kPope)})
      if (name.starts_with(start)) return kind;
    return Collinear::kSlack;
  }
  // The width of q_eff and k_eff: planes count twice, and PoPE has as many as channels.
  int64_t E() const {
    const bool one = model::is_coca(s_.attention) && form() == ops::Collinear::kPope;
    return one ? 2 * (s_.D - s_.content) + s_.content : s_.D;
  }
  // Of a head of the keys as they are remembered.
  bool expands() const { return s_.fold == ops::Fold::kOfficial || memory_ == KeyMemory::kRotated; }
  int64_t kept_width() const { return expands() ? s_.D : s_.key_width(); }

  // Rotates one head of q (q_eff) or of a key (k_eff) to a position; the other output is null.
  void rotate(const T* x, int64_t token, T* q_eff, T* k_eff) const {
    const double position = positions_.empty() ? static_cast<double>(token) : positions_[static_cast<size_t>(token)];
    const double side = q_eff ? 1.0 : -1.0;
    const bool flat = !s_.has_positions(layer_);
    const auto learnt = [&](int64_t j) { return T(position) * theta_[static_cast<size_t>(j)]; };
    const auto cos = [&](int64_t j) {
      return flat ? T(1) : theta_.empty() ? T(angles_.cos(position, j, side)) : std::cos(learnt(j));
    };
    const auto sin = [&](int64_t j) {
      return flat ? T(0) : theta_.empty() ? T(angles_.sin(position, j, side)) : std::sin(learnt(j));
    };
    T* out = q_eff ? q_eff : k_eff;
    if (!model::transforms_keys(s_.attention)) {
      std::copy(x, x + s_.D, out);
    } else if (!model::is_coca(s_.attention)) {
      const int64_t half = s_.R / 2;
      for (int64_t j = 0; j < half; ++j) {
        out[j] = x[j] * T(cos(j)) - x[j + half] * T(sin(j));
        out[j + half] = x[j + half] * T(cos(j)) + x[j] * T(sin(j));
      }
      std::copy(x + s_.R, x + s_.D, out + s_.R);
    } else if (s_.fold == ops::Fold::kOfficial) {
      ref::collinear_official_head<T>(x, x, s_.R, s_.D, cos, sin, q_eff, k_eff);
    } else {
      const ops::Collinear kind = form();
      const ref::CollinearHead head{s_.R, E(), s_.content};
      if (q_eff) return ops::with_form(kind, [&](auto f) { ref::collinear_query_head(f, head, x, cos, sin, q_eff); });
      std::vector<T> tbar(static_cast<size_t>(head.stored()));
      const ops::Magnitude otherwise =
          kind == ops::Collinear::kPope ? ops::Magnitude::kSoftplus : ops::Magnitude::kRelu;
      ref::collinear_fold_head(s_.magnitude.value_or(otherwise), head, x, kept_width(), tbar.data());
      ref::collinear_key_head(ops::key_direction(kind), head, tbar.data(), cos, sin, k_eff);
    }
  }

  // A modifier's tensors in a layer; null: the model does not have it.
  const model::ModifierTensors<TensorRef>* modifier(const model::LayerTensors<TensorRef>& w,
                                                    std::string_view name) const {
    for (size_t i = 0; i < s_.modifiers.size(); ++i)
      if (s_.modifiers[i]->info().name == name) return &w.modifiers[i];
    return nullptr;
  }

  // What modifiers make of a head's q_eff, at the n-th token.
  void adjust(const model::LayerTensors<TensorRef>& w, int64_t h, int64_t n, std::vector<T>& q_eff) const {
    if (const auto* m = modifier(w, "log-scale"))
      for (T& x : q_eff) x *= at(m->w)[h] * T(std::log(static_cast<double>(n + 1)));
    if (const auto* m = modifier(w, "phases")) {
      const int64_t P = m->w.size(1);
      for (int64_t j = 0; j < P; ++j) {
        const T phase = at(m->w)[h * P + j], c = std::cos(phase), s = std::sin(phase);
        T &a = q_eff[static_cast<size_t>(j)], &b = q_eff[static_cast<size_t>(j + P)];
        const T x = a * c - b * s;
        b = b * c + a * s;
        a = x;
      }
    }
  }

  // Softmax of the scores of one head; a sink takes its share and is dropped.
  void softmax(const model::LayerTensors<TensorRef>& w, int64_t h, std::vector<T>& p) const {
    const auto* sinks = modifier(w, "sinks");
    if (sinks) p.push_back(at(sinks->w)[h]);
    ref::softmax_row(p);
    if (sinks) p.pop_back();
  }

  // x_n of every head becomes w_0 x_n + w_1 x_(n-1), and `last` x_n.
  static void mix(const T* weights, int64_t width, std::vector<T>& x, std::vector<T>& last) {
    const std::vector<T> before = last.empty() ? std::vector<T>(x.size()) : last;
    last = x;
    for (size_t i = 0; i < x.size(); ++i) {
      const T* w = weights + static_cast<int64_t>(i) / width * 2;
      x[i] = w[0] * x[i] + w[1] * before[i];
    }
  }

  // Applies RMSNorm to every head if the spec has it.
  void head_norms(std::vector<T>& heads, TensorRef w) const {
    if (s_.head_norm == model::HeadNorm::kNone) return;
    const std::vector<T> x = heads;
    ref::norm_forward<T>({.kind = ref::Norm::kRms,
                          .eps = s_.norm_eps,
                          .M = static_cast<int64_t>(x.size()) / s_.D,
                          .C = s_.D,
                          .x = x.data(),
                          .w = at(w)},
                         heads.data(), nullptr);
  }

  // The positions of a query at n and a key at m under the published pattern. Empty if the key is not visible.
  struct Places {
    int64_t query, key;
    double distance;      // used by ALiBi
    double factor = 1.0;  // multiplies the score
  };
  std::optional<Places> places(int64_t n, int64_t m) const {
    const model::AttentionPattern& p = s_.pattern;
    const int64_t w = p.window;
    const double distance = static_cast<double>(n - m), trained = static_cast<double>(s_.max_position);
    // Slack CoCA by default: the query is at its place in the window, and keys at their distances from it.
    const int64_t cached = std::min(n, p.type == model::Pattern::kStreamingLlm ? p.sinks + w - 1 : w - 1);
    const bool framed = s_.attention == model::AttentionKind::kCocaSlack && p.frame == model::SlackFrame::kWindow;
    const double log_factor = std::max(1.0, std::log(static_cast<double>(n + 1)) / std::log(trained));
    const double factor = p.type == model::Pattern::kReRope ? log_factor : 1.0;
    if (n - m < w) return framed ? Places{cached, cached - (n - m), distance, factor} : Places{n, m, distance, factor};
    switch (p.type) {
      case model::Pattern::kStreamingLlm:
        if (m >= p.sinks) return std::nullopt;
        return Places{cached, m, static_cast<double>(cached - m)};
      case model::Pattern::kLmInfinite:
        if (m >= p.sinks) return std::nullopt;
        return Places{std::min(n, p.distance), 0, std::min(distance, static_cast<double>(p.distance))};
      case model::Pattern::kSelfExtend: return Places{n / p.group + w - w / p.group, m / p.group, distance};
      case model::Pattern::kReRope: return Places{w, 0, distance, factor};
      case model::Pattern::kFull: break;
    }
    return std::nullopt;
  }

  // LM-Infinite places middle keys like its first keys.
  Places middle_place(int64_t n, int64_t m) const {
    const int64_t d = s_.pattern.distance;
    return {std::min(n, d), 0, static_cast<double>(std::min(n - m, d))};
  }

  std::vector<T> attend_by_pattern(const std::vector<T>& q, const model::LayerTensors<TensorRef>& w, const Layer& cache,
                                   size_t index) const {
    const int64_t n = position_, row = s_.G * s_.D, key_row = s_.G * kept_width();
    std::vector<T> o(q.size()), q_eff(static_cast<size_t>(E())), k_eff(q_eff.size());
    for (int64_t h = 0; h < s_.H; ++h) {
      const int64_t g = h / (s_.H / s_.G), at_head = g * s_.D;
      std::vector<T> p;
      std::vector<int64_t> seen;
      std::vector<std::pair<T, int64_t>> middle;
      for (int64_t m = 0; m <= n; ++m) {
        const std::optional<Places> here = places(n, m);
        const Places at = here.value_or(middle_place(n, m));
        rotate(q.data() + h * s_.D, at.query, q_eff.data(), nullptr);
        adjust(w, h, n, q_eff);
        rotate(cache.keys.data() + m * key_row + g * kept_width(), at.key, nullptr, k_eff.data());
        T dot(0);
        for (size_t d = 0; d < q_eff.size(); ++d) dot += q_eff[d] * k_eff[d];
        T score = dot * T(at.factor / std::sqrt(static_cast<double>(s_.D)));
        if (!slopes_.empty()) score -= T(static_cast<double>(slopes_[static_cast<size_t>(h)]) * at.distance);
        if (here) {
          p.push_back(score);
          seen.push_back(m);
        } else
          middle.emplace_back(score, m);
      }
      // LM-Infinite's option: the highest-scoring keys among those that are not visible.
      std::stable_sort(middle.begin(), middle.end(),
                       [](const auto& a, const auto& b) { return std::real(a.first) > std::real(b.first); });
      middle.resize(std::min(
          middle.size(),
          static_cast<size_t>(static_cast<int64_t>(index) >= s_.pattern.middle_from_layer ? s_.pattern.middle_top_k
                                                                                          : 0)));
      for (const auto& [score, m] : middle) {
        p.push_back(score);
        seen.push_back(m);
      }
      softmax(w, h, p);
      for (size_t i = 0; i < p.size(); ++i)
        for (int64_t d = 0; d < s_.D; ++d)
          o[static_cast<size_t>(h * s_.D + d)] += p[i] * cache.values[static_cast<size_t>(seen[i] * row + at_head + d)];
    }
    return o;
  }

  // Longformer's rules, for one pair.
  bool sees(size_t layer, int64_t h, int64_t n, int64_t m) const {
    const bool both = s_.direction == model::Direction::kBidirectional;
    if (!both && m > n) return false;
    const int64_t window = s_.window_of(layer), gap = std::abs(n - m);
    if (window == 0 || n < s_.global_tokens || m < s_.global_tokens) return true;
    const int64_t d = s_.dilation.empty() ? 1 : s_.dilation[layer * static_cast<size_t>(s_.H) + static_cast<size_t>(h)];
    return gap % d == 0 && gap / d < window;
  }

  std::vector<T> attend_by_rules(const std::vector<T>& q, const model::LayerTensors<TensorRef>& w, const Layer& cache,
                                 size_t layer) const {
    const int64_t n = position_, row = s_.G * s_.D;
    const bool global = n < s_.global_tokens;
    const std::vector<T>&keys = global ? cache.global_keys : cache.keys,
          &values = global ? cache.global_values : cache.values;
    const int64_t key_row = s_.G * kept_width();
    std::vector<T> o(q.size()), q_eff(static_cast<size_t>(E())), k_eff(q_eff.size());
    for (int64_t h = 0; h < s_.H; ++h) {
      const int64_t g = h / (s_.H / s_.G), at_head = g * s_.D;
      std::vector<T> p;
      std::vector<int64_t> seen;
      rotate(q.data() + h * s_.D, n, q_eff.data(), nullptr);
      adjust(w, h, n, q_eff);
      for (int64_t m = 0; m < static_cast<int64_t>(keys.size()) / key_row; ++m) {
        if (!sees(layer, h, n, m)) continue;
        rotate(keys.data() + m * key_row + g * kept_width(), m, nullptr, k_eff.data());
        T dot(0);
        for (size_t d = 0; d < q_eff.size(); ++d) dot += q_eff[d] * k_eff[d];
        T score = dot / T(std::sqrt(static_cast<double>(s_.D)));
        if (!slopes_.empty())
          score -= T(static_cast<double>(slopes_[static_cast<size_t>(h)]) * static_cast<double>(std::abs(n - m)));
        if (!cache.decay.empty())
          score += cache.decay[static_cast<size_t>(n * s_.H + h)] - cache.decay[static_cast<size_t>(m * s_.H + h)];
        p.push_back(score);
        seen.push_back(m);
      }
      softmax(w, h, p);
      for (size_t i = 0; i < p.size(); ++i)
        for (int64_t d = 0; d < s_.D; ++d)
          o[static_cast<size_t>(h * s_.D + d)] += p[i] * values[static_cast<size_t>(seen[i] * row + at_head + d)];
    }
    return o;
  }

  std::vector<T> attend(const std::vector<T>& q, const model::LayerTensors<TensorRef>& w, Layer& cache,
                        size_t index) const {
    if (s_.pattern.far()) return attend_by_pattern(q, w, cache, index);
    if (!s_.dilation.empty() || s_.global_tokens > 0 || s_.direction == model::Direction::kBidirectional ||
        !s_.modifiers.empty() || memory_ == KeyMemory::kPlain)
      return attend_by_rules(q, w, cache, index);
    const int64_t window = s_.window_of(index);
    const int64_t n = position_, S = n + 1, row = s_.G * s_.D,
                  first = window > 0 ? std::max<int64_t>(0, S - window) : 0;
    std::vector<T> keys = cache.keys;
    for (int64_t m = n; m < S; ++m)
      for (int64_t g = 0; g < s_.G; ++g)
        rotate(cache.keys.data() + m * row + g * s_.D, m, nullptr, keys.data() + m * row + g * s_.D);
    cache.keys = keys;
    std::vector<T> o(q.size()), q_eff(static_cast<size_t>(s_.D)), p(static_cast<size_t>(S));
    for (int64_t h = 0; h < s_.H; ++h) {
      const int64_t g = h / (s_.H / s_.G);
      rotate(q.data() + h * s_.D, n, q_eff.data(), nullptr);
      for (int64_t m = 0; m < S; ++m) {
        T dot(0);
        for (int64_t d = 0; d < s_.D; ++d)
          dot += q_eff[static_cast<size_t>(d)] * keys[static_cast<size_t>(m * row + g * s_.D + d)];
        p[static_cast<size_t>(m)] = dot / T(std::sqrt(static_cast<double>(s_.D)));
        if (!slopes_.empty())
          p[static_cast<size_t>(m)] -=
              T(static_cast<double>(slopes_[static_cast<size_t>(h)]) * static_cast<double>(n - m));
      }
      std::vector<T> seen(p.begin() + first, p.end());
      ref::softmax_row(seen);
      std::fill(p.begin(), p.begin() + first, T(0));
      std::copy(seen.begin(), seen.end(), p.begin() + first);
      for (int64_t m = 0; m < S; ++m)
        for (int64_t d = 0; d < s_.D; ++d)
          o[static_cast<size_t>(h * s_.D + d)] +=
              p[static_cast<size_t>(m)] * cache.values[static_cast<size_t>(m * row + g * s_.D + d)];
    }
    return o;
  }

  std::vector<T> mlp(const std::vector<T>& x, const model::LayerTensors<TensorRef>& w) const {
    std::vector<T> up = linear(x, w.up_w, w.up_b, s_.F), act(up.size());
    if (s_.mlp == model::Mlp::kSwiGlu) {
      const std::vector<T> gate = linear(x, w.gate_w, w.gate_b, s_.F);
      for (size_t i = 0; i < act.size(); ++i) act[i] = gate[i] / (T(1) + std::exp(-gate[i])) * up[i];
    } else if (s_.mlp == model::Mlp::kGelu) {
      ref::gelu_exact_forward(s_.F, up.data(), act.data());
    } else {
      ref::gelu_tanh_forward(s_.F, up.data(), act.data());
    }
    return linear(act, w.down_w, w.down_b, s_.C);
  }

  // Fused: for each head q, k or t, v.
  Heads heads(const std::vector<T>& ln1, TensorRef qkv_w, TensorRef qkv_b, const std::array<TensorRef, 3>& w,
              const std::array<TensorRef, 3>& b) const {
    if (s_.qkv != model::Qkv::kFused)
      return {linear(ln1, w[0], b[0], s_.H * s_.D), at_full_width(linear(ln1, w[1], b[1], s_.G * s_.key_width())),
              linear(ln1, w[2], b[2], s_.G * s_.D)};
    Heads out;
    const std::vector<T> qkv = linear(ln1, qkv_w, qkv_b, s_.H * s_.qkv_width());
    for (int64_t h = 0; h < s_.H; ++h) {
      const T *q = qkv.data() + h * s_.qkv_width(), *k = q + s_.D, *v = k + s_.key_width();
      out.q.insert(out.q.end(), q, q + s_.D);
      out.k.insert(out.k.end(), k, k + s_.key_width());
      out.v.insert(out.v.end(), v, v + s_.D);
    }
    out.k = at_full_width(std::move(out.k));
    return out;
  }

  // Expands t of half width to the full t that folds to it, with the same number in both members of a pair.
  std::vector<T> at_full_width(std::vector<T> t) const {
    if (s_.t_width == model::TWidth::kFull || !expands()) return t;
    const auto width = static_cast<size_t>(s_.key_width()), content = static_cast<size_t>(s_.content),
               pairs = width - content, whole = 2 * pairs + content;
    const auto turned = static_cast<size_t>(s_.fold == ops::Fold::kOfficial ? s_.D / 2 : s_.R / 2);
    std::vector<T> full(t.size() / width * whole);
    for (size_t i = 0; i < t.size(); ++i) {
      T* head = full.data() + i / width * whole;
      const size_t p = i % width;
      if (p >= pairs)
        head[pairs + p] = t[i];  // a content channel
      else if (p < turned)
        head[p] = head[p + turned] = t[i];
      else
        head[turned + p] = head[pairs + p] = t[i];  // after the 2 * turned rotary dims, pairs - turned apart
    }
    return full;
  }

  // Adds the token's keys and values to the cache. Returns its query, from the global projection for a global token.
  std::vector<T> remember(const std::vector<T>& ln1, const model::LayerTensors<TensorRef>& w, Layer& cache) const {
    Heads own = heads(ln1, w.qkv_w, w.qkv_b, {w.q_w, w.k_w, w.v_w}, {w.q_b, w.k_b, w.v_b});
    head_norms(own.q, w.q_norm_w);
    head_norms(own.k, w.k_norm_w);
    if (const auto* m = modifier(w, "kv-shift")) {
      mix(at(m->w), static_cast<int64_t>(own.k.size()) / s_.G, own.k, cache.last_key);
      mix(at(m->b), s_.D, own.v, cache.last_value);
    }
    if (const auto* m = modifier(w, "forget-gate")) {
      const std::vector<T> logits = linear(ln1, m->w, m->b, s_.H);
      for (size_t h = 0; h < logits.size(); ++h) {
        const T before = cache.decay.size() < logits.size() ? T(0) : cache.decay[cache.decay.size() - logits.size()];
        cache.decay.push_back(before - std::log(T(1) + std::exp(-logits[h])));
      }
    }
    cache.keys.insert(cache.keys.end(), own.k.begin(), own.k.end());
    cache.values.insert(cache.values.end(), own.v.begin(), own.v.end());
    if (s_.global_tokens == 0) return own.q;
    const Heads global = heads(ln1, w.qkv_global_w, w.qkv_global_b, {w.q_global_w, w.k_global_w, w.v_global_w},
                               {w.q_global_b, w.k_global_b, w.v_global_b});
    cache.global_keys.insert(cache.global_keys.end(), global.k.begin(), global.k.end());
    cache.global_values.insert(cache.global_values.end(), global.v.begin(), global.v.end());
    return position_ < s_.global_tokens ? global.q : own.q;
  }

  std::vector<T> normed(const std::vector<T>& x, const model::LayerTensors<TensorRef>& w) const {
    return norm(x, w.ln1_w, w.ln1_b);
  }

  std::vector<T> finish(const std::vector<T>& x, std::vector<T> o, const model::LayerTensors<TensorRef>& w) const {
    if (const auto* m = modifier(w, "output-gate")) {
      const std::vector<T> gate = linear(normed(x, w), m->w, m->b, s_.H * s_.D);
      for (size_t i = 0; i < o.size(); ++i) o[i] /= T(1) + std::exp(-gate[i]);
    }
    const std::vector<T> branch = linear(o, w.o_w, w.o_b, s_.C);
    std::vector<T> mid(x.size()), y(x.size());
    for (size_t c = 0; c < x.size(); ++c) mid[c] = x[c] + branch[c];
    const bool sequential = s_.residual == model::ResidualKind::kSequential;
    const std::vector<T> second = mlp(norm(sequential ? mid : x, w.ln2_w, w.ln2_b), w);
    for (size_t c = 0; c < x.size(); ++c) y[c] = mid[c] + second[c];
    return y;
  }

  std::vector<T> layer(const std::vector<T>& x, const model::LayerTensors<TensorRef>& w, Layer& cache,
                       size_t index) const {
    const std::vector<T> q = remember(normed(x, w), w, cache);
    return finish(x, attend(q, w, cache, index), w);
  }

  const model::ModelSpec& s_;
  const model::ParamStore& store_;
  KeyMemory memory_;
  std::vector<T> flat_;
  std::vector<Layer> layers_;
  std::vector<float> slopes_;
  ReferenceAngles angles_;
  int64_t position_ = 0, first_term_ = 0;
  size_t layer_ = 0;  // at work
  std::vector<double> positions_;
  std::vector<T> theta_;  // from CLEX's network; otherwise empty
};

// The naive form for the error rule of a whole network: eight float runs start their sums at different terms, and the
// one farthest from the exact result is used. run(first_term) returns the logits of one.
//
// Why one run is not enough: to first order the error of a logit is sum_i s_i r_i, with the roundings r_i that it
// depends on and the sensitivities s_i of the network, which are the same for the kernel and the naive form. The
// roundings are two draws from one distribution. Within one operation all s_i are similar, and the largest of many
// errors varies little. Across layers they are not: a CoCA score is cubic in its inputs and the softmax exponential in
// the score, so a single rounding before a large score can outweigh all others. The two errors are then two draws |g|,
// |g'| from one normal distribution, and |g| > 2 |g'| in 30 % of all cases for any kernel. It exceeds twice the largest
// of eight draws in 0.8 %. (Measured for 14 kinds of model and 40 seeds with AVX-512 and scalar kernels: their error is
// 0.8 of that of one naive run in the geometric mean, at worst 3.9 times it, and at worst 1.9 times the largest of
// eight.)
template <typename Run>
std::vector<float> farthest_naive(std::span<const double> exact, const Run& run) {
  constexpr int64_t kRuns = 8, kApart = 2;
  std::vector<float> farthest;
  double largest = -1;
  for (int64_t i = 0; i < kRuns; ++i) {
    std::vector<float> naive = run(i * kApart);
    double error = 0;
    for (size_t j = 0; j < exact.size(); ++j)
      error = std::max(error, std::abs(static_cast<double>(naive[j]) - exact[j]));
    if (error > largest) {
      largest = error;
      farthest = std::move(naive);
    }
  }
  return farthest;
}

// Logits of B sequences of equal length, concatenated in ids.
template <typename T>
std::vector<T> run_rows(ReferenceDecoder<T>& decoder, std::span<const int32_t> ids, int64_t B) {
  const size_t N = ids.size() / static_cast<size_t>(B);
  std::vector<T> all;
  for (size_t at = 0; at < ids.size(); at += N) {
    const std::vector<T> row = decoder.run(ids.subspan(at, N), static_cast<int64_t>(N));
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

// -log softmax(logits [V])[target].
template <typename T>
T reference_nll(const T* logits, int64_t V, int32_t target) {
  std::vector<T> row(logits, logits + V);
  return ref::softmax_row(row) - logits[target];
}

}  // namespace coca::test
