// SPDX-License-Identifier: Apache-2.0
#include "coca/model/modifier.h"

#include <algorithm>

#include "coca/model/spec.h"

namespace coca::model {

void Modifier::start(const ModelSpec&, size_t, Rng&, std::span<float> values) const { std::ranges::fill(values, 0.0f); }

std::vector<const Modifier*> ordered(std::vector<const Modifier*> given) {
  std::vector<const Modifier*> out;
  for (const Modifier* m : all_modifiers()) {
    const auto times = std::ranges::count(given, m);
    COCA_CHECK(times <= 1, "attention modifier {} is named {} times; once is enough", m->info().name, times);
    if (times == 1) out.push_back(m);
  }
  return out;
}

bool has_stage(const ModelSpec& s, Stage stage) {
  return std::ranges::any_of(s.modifiers, [&](const Modifier* m) { return m->info().stage == stage; });
}

}  // namespace coca::model

std::span<const coca::EnumName<const coca::model::Modifier*>> coca::EnumTraits<const coca::model::Modifier*>::names() {
  static const std::vector<EnumName<const model::Modifier*>> all = [] {
    std::vector<EnumName<const model::Modifier*>> names;
    for (const model::Modifier* m : model::all_modifiers()) names.push_back({m, m->info().name});
    return names;
  }();
  return all;
}
