// Training steps by hand: forward and backward, then AdamW. The loss on one small batch falls.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "coca/base/rng.h"
#include "coca/model/decoder.h"
#include "coca/optim/optimizer.h"

using namespace coca;

int main() {
  model::ModelSpec spec;
  spec.attention = model::AttentionKind::kCocaSlack;
  spec.V = 32;
  spec.C = 64;
  spec.F = 256;
  spec.L = 2;
  spec.H = 2;
  spec.G = 2;
  spec.D = 32;
  spec.R = 32;
  constexpr int64_t B = 4, N = 16;

  model::ParamStore params(spec), grads(spec);  // the same layout for weights, gradients and moments
  model::initialise(spec, 1, params);
  optim::AdamW optimizer(spec, {.weight_decay = 0.1, .clip_norm = 1.0});
  model::TrainingDecoder decoder(spec, B, N);
  std::printf("%lld parameters, activations %.1f KiB\n", static_cast<long long>(model::parameter_count(spec)),
              static_cast<double>(decoder.activation_bytes()) / 1024);

  Tensor ids({B, N}, DType::kI32), targets({B, N}, DType::kI32);
  Rng rng(2);
  for (int64_t row = 0; row < B; ++row) {
    auto token = static_cast<int32_t>(rng.below(32));
    for (int64_t n = 0; n < N; ++n) {  // each token determines the next: t -> 3 t + 1 mod 32
      ids.values<int32_t>()[static_cast<size_t>(row * N + n)] = token;
      token = (3 * token + 1) % 32;
      targets.values<int32_t>()[static_cast<size_t>(row * N + n)] = token;
    }
  }

  Context cx;
  double first = 0, loss = 0;
  for (int step = 1; step <= 20; ++step) {
    grads.zero();  // weight gradients accumulate
    const float scale = 1.0f / static_cast<float>(B * N);
    const TensorRef nll = decoder.forward_backward(cx, params.weights(), ids, targets, scale, grads.tensors());
    loss = 0;
    for (int64_t i = 0; i < nll.numel(); ++i) loss += nll.as<float>()[i] / static_cast<double>(B * N);
    const optim::UpdateReport update = optimizer.step(cx, 3e-3, grads, params);
    if (step == 1) first = loss;
    if (step == 1 || step % 5 == 0)
      std::printf("step %2d  loss %.4f  gradient norm %.3f\n", step, loss, update.grad_norm);
  }
  return loss < 0.5 * first ? 0 : 1;
}
