// SPDX-License-Identifier: Apache-2.0
#include "coca/model/attention_inputs.h"

namespace coca::model {

Positions Positions::narrow(int64_t first, int64_t count) const {
  Positions part = *this;
  for (ops::RopeRows* r : {&part.rows, &part.key_rows, &part.turn, &part.flat, &part.far_rows, &part.far_key_rows})
    *r = r->narrow(first, count);
  if (!log_tokens.empty()) part.log_tokens = log_tokens.narrow(log_tokens.rank() - 1, first, count);
  return part;
}

AttentionInputs AttentionInputs::in_layer(const ModelSpec& spec, size_t layer) const {
  AttentionInputs at = *this;
  at.scope.window = spec.window_of(layer);
  at.scope.dilation = spec.dilation_of(layer);
  at.scope.middle_keys = spec.pattern.top_keys_of(static_cast<int64_t>(layer));
  if (spec.has_positions(layer)) return at;
  at.scope.flat = true;
  Positions& p = at.positions;
  p.rows = p.flat;
  p.key_rows = p.turn = {};
  if (!p.far_rows.cos.empty()) p.far_rows = p.far_key_rows = p.flat;
  return at;
}

}  // namespace coca::model
