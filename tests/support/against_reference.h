// tests/support/against_reference.h - a model's logits and gradients against the double reference
// (reference_decoder.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "coca/model/decoder.h"
#include "coca/ops/linear.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_model.h"

namespace coca::test {

// One layer: about ten operations with sums of up to 40 terms; and as much again for each further one.
inline constexpr double kTermsPerLayer = 400;

// The logits of one sequence of N random ids, in chunks of as many tokens.
inline void expect_reference_logits(const model::ModelSpec& spec, int64_t N,
                                    const model::DecoderOptions& options = {}) {
  const TinyModel m(spec);
  const std::vector<int32_t> ids = random_ids(N, m.spec.V, 3);
  Context cx;
  model::Decoder decoder(m.spec, m.params.weights(), options);
  Tensor logits({N, m.spec.V});
  ops::linear_forward(cx, {.x = decoder.forward(cx, TensorRef(ids.data(), DType::kI32, {1, N}, kHost)),
                           .w = m.params.weights().head,
                           .y = logits});
  ReferenceDecoder<double> exact(m.spec, m.params);
  ReferenceDecoder<float> naive(m.spec, m.params);
  const std::vector<double> right = exact.run(ids, N);
  const std::vector<float> rough = farthest_naive(right, [&](int64_t first_term) {
    naive.set_first_term(first_term);
    return naive.run(ids, N);
  });
  expect_close(logits.values<float>(), right, rough, {.terms = kTermsPerLayer * static_cast<double>(spec.L)}, "logits");
}

// The derivative of the loss along one random direction of all weights by complex step must equal the sum of gradient
// times direction. An error in a large part of any gradient changes that sum.
inline void expect_reference_gradient(const model::ModelSpec& spec, int64_t N,
                                      model::Recompute recompute = model::Recompute::kNone) {
  const TinyModel m(spec);
  const std::vector<int32_t> ids = random_ids(N + 1, m.spec.V, 4);
  model::ParamStore grads(m.spec);
  Context cx;
  model::TrainingDecoder decoder(m.spec, 1, N, {.recompute = recompute});
  decoder.forward_backward(cx, m.params.weights(), TensorRef(ids.data(), DType::kI32, {1, N}, kHost),
                           TensorRef(ids.data() + 1, DType::kI32, {1, N}, kHost), 1.0f, grads.tensors());
  ReferenceDecoder<Complex> reference(m.spec, m.params);
  Rng rng(7);
  constexpr double kStep = 1e-30;
  double ours = 0, size = 0;
  const float* g = grads.flat().as<float>();
  for (size_t i = 0; i < reference.weights().size(); ++i) {
    const double direction = rng.normal(), term = direction * static_cast<double>(g[i]);
    reference.weights()[i] += Complex(0, kStep * direction);
    ours += term;
    size += term * term;
  }
  const std::vector<Complex> logits = reference.run(std::span(ids).subspan(0, static_cast<size_t>(N)), N);
  Complex loss(0);
  for (int64_t n = 0; n < N; ++n)
    loss += reference_nll(logits.data() + n * m.spec.V, m.spec.V, ids[static_cast<size_t>(n) + 1]);
  // Each weight's gradient has an error of about 400 roundings of its size. In the sum they add up like independent
  // random numbers.
  EXPECT_NEAR(ours, loss.imag() / kStep, kTermsPerLayer * static_cast<double>(spec.L) * 0x1p-24 * 4 * std::sqrt(size))
      << std::sqrt(size);
}

}  // namespace coca::test
