// A small random decoder: its parameters, and the distribution of the next token after three tokens.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "coca/model/decoder.h"
#include "coca/ops/linear.h"

using namespace coca;

int main() {
  model::ModelSpec spec;  // GPT-NeoX blocks by default
  spec.attention = model::AttentionKind::kCocaSlack;
  spec.V = 100;
  spec.C = 64;
  spec.F = 256;
  spec.L = 2;
  spec.H = 4;
  spec.G = 4;
  spec.D = 16;
  spec.R = 16;
  model::ParamStore params(spec);
  model::initialise(spec, 1, params);
  std::printf("%lld parameters in %zu tensors, for example:\n", static_cast<long long>(model::parameter_count(spec)),
              params.infos().size());
  for (const char* part : {"embed_in", "query_key_value.weight", "embed_out"})
    for (const model::ParamInfo& info : params.infos())
      if (info.name.find(part) != std::string::npos) {
        std::printf("  %-52s %s\n", info.name.c_str(), info.shape.text().c_str());
        break;
      }

  Context cx;
  cx.set_trace([](std::string_view name, TensorRef value) {  // receives every named intermediate tensor
    std::printf("  %-16.*s %s\n", static_cast<int>(name.size()), name.data(), value.shape.text().c_str());
  });
  std::printf("intermediates of a forward pass:\n");
  model::Decoder decoder(spec, params.weights());
  Tensor ids({1, 3}, DType::kI32);
  std::ranges::copy(std::initializer_list<int32_t>{7, 42, 99}, ids.values<int32_t>().begin());
  const TensorRef hidden = decoder.forward(cx, ids);  // [B * N, C], after the final norm

  Tensor logits({1, spec.V});
  ops::linear_forward(cx, {.x = hidden.narrow(0, 2, 1), .w = params.weights().head, .y = logits});
  double sum = 0;
  for (const float x : logits.values<float>()) sum += std::exp(x);
  const auto best = std::ranges::max_element(logits.values<float>());
  std::printf("most likely next token: %d with probability %.4f (uniform would be %.4f)\n",
              static_cast<int>(best - logits.values<float>().begin()), std::exp(*best) / sum,
              1.0 / static_cast<double>(spec.V));
  return 0;
}
