// SPDX-License-Identifier: Apache-2.0
#include "coca/train/config.h"

#include <cmath>

#include "coca/model/t_width.h"
#include "coca/train/slices.h"

namespace coca::train {

void check_config(const TrainConfig& c) {
  io::check_option_ranges(c);
  COCA_CHECK(c.width % c.heads == 0, "width {} is not a multiple of heads {}", c.width, c.heads);
  COCA_CHECK(c.kv_heads == 0 || c.heads % c.kv_heads == 0, "kv_heads is {}; expected a divisor of heads, {}",
             c.kv_heads, c.heads);
  COCA_CHECK(c.architecture != model::Architecture::kGptNeoX || c.kv_heads == 0 || c.kv_heads == c.heads,
             "kv_heads is {}; architecture gpt_neox has as many key/value heads as heads, {}", c.kv_heads, c.heads);
  check_slices(c);
  checked_product("tokens of the run",
                  {{"steps", c.steps}, {"batch", c.batch}, {"accumulation", c.accumulation}, {"length", c.length}});
  COCA_CHECK(
      c.direction == model::Direction::kCausal || (c.passkey_share == 0 && c.passkey_first_steps == 0),
      "passkey_share is {}, passkey_first_steps {}; direction {} predicts no next token, so it cannot learn them",
      c.passkey_share, c.passkey_first_steps, enum_name(c.direction));
  COCA_CHECK(c.direction == model::Direction::kCausal || c.tasks.tasks.empty(),
             "task is {}; direction {} predicts no next token, so it cannot learn tasks",
             enum_name(c.tasks.tasks.front()), enum_name(c.direction));
  check_positions(c.positions, c.attention, c.length);
  check_plain_steps(c.positions, c.steps);
  optim::check_schedule(make_schedule(c));
  optim::check_adamw(make_adamw(c));
  make_spec(c, 1, std::nullopt, std::nullopt);  // the checks of the model itself, before any text is read
}

model::ModelSpec make_spec(const TrainConfig& c, int64_t vocabulary, std::optional<int64_t> bos,
                           std::optional<int64_t> eos) {
  model::ModelSpec s;
  const bool neox = c.architecture == model::Architecture::kGptNeoX;
  s.architecture = c.architecture;
  s.attention = c.attention;
  s.modifiers = model::ordered(c.modifiers);
  s.norm = neox ? ops::NormKind::kLayerNorm : ops::NormKind::kRmsNorm;
  s.mlp = neox ? model::Mlp::kGelu : model::Mlp::kSwiGlu;
  s.residual = neox && c.parallel_residual ? model::ResidualKind::kParallel : model::ResidualKind::kSequential;
  s.qkv = neox ? model::Qkv::kFused : model::Qkv::kSeparate;
  s.attention_bias = s.output_bias = s.mlp_bias = neox ? model::Bias::kYes : model::Bias::kNone;
  if (c.architecture == model::Architecture::kQwen2) s.attention_bias = model::Bias::kYes;
  if (c.architecture == model::Architecture::kQwen3) s.head_norm = model::HeadNorm::kRms;
  if (model::has_half_t(s)) s.t_width = c.t_width;
  s.magnitude = c.magnitude;
  s.content = c.content_dims;
  s.embeddings = c.tie_embeddings ? model::Embeddings::kTied : model::Embeddings::kUntied;
  s.V = vocabulary;
  s.C = c.width;
  s.F = c.mlp_width > 0 ? c.mlp_width : neox ? 4 * c.width : (8 * c.width / 3 + 31) / 32 * 32;
  s.L = c.layers;
  s.H = c.heads;
  s.G = c.kv_heads > 0 ? c.kv_heads : c.heads;
  s.D = c.width / c.heads;
  const int64_t dims = s.plane_dims();
  s.R = static_cast<int64_t>(static_cast<double>(dims) * c.rotary_pct + 1e-6);
  const bool rotates = model::transforms_keys(c.attention);
  COCA_CHECK(dims % 2 != 0 || (s.R % 2 == 0 && (s.R >= 2 || !rotates)),
             "rotary_pct is {}, which rotates {} of the {} dims of a head; expected {}an even number", c.rotary_pct,
             s.R, dims, rotates ? "at least 2, and " : "");
  s.max_position = c.length;
  s.rope_theta = c.rope_theta;
  s.norm_eps = c.norm_eps;
  // 0.02 is meant for widths about 1024. A score is quadratic (CoCA: cubic) in the projections, whose size is
  // init_std sqrt(width): narrow models that begin with 0.02 have flat attention and hardly a gradient to leave it.
  s.direction = c.direction;
  s.init_std = c.init_std > 0 ? c.init_std : 0.64 / std::sqrt(static_cast<double>(c.width));
  s.bos_id = bos;
  if (eos) s.eos_ids = {*eos};
  model::validate(s);
  return model::with_windows(c.windows, scaled_spec(c.positions, s));
}

optim::Schedule make_schedule(const TrainConfig& c) {
  return {.decay = c.decay,
          .peak = c.learning_rate,
          .floor = c.min_learning_rate,
          .warmup_steps = c.warmup_steps,
          .total_steps = c.steps};
}

optim::AdamWOptions make_adamw(const TrainConfig& c) {
  return {.beta1 = c.beta1,
          .beta2 = c.beta2,
          .eps = c.adam_eps,
          .weight_decay = c.weight_decay,
          .clip_norm = c.clip_norm,
          .clex_rate = c.clex_rate};
}

}  // namespace coca::train
