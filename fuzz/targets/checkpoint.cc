// Files of a checkpoint other than its tensors: train_state.json, train_config.json, and the run's metrics.csv (parts 0
// to 2).
// SPDX-License-Identifier: Apache-2.0
#include "coca/train/checkpoint.h"
#include "coca/train/metrics.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.per_byte = 256}) {
  using namespace coca;
  const auto parts = fuzz::parts_of(input);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  folder.write("train_state.json", fuzz::part(parts, 0));
  folder.write("train_config.json", fuzz::part(parts, 1));
  const auto metrics = folder.write("metrics.csv", fuzz::part(parts, 2));
  fuzz::attempt([&] {
    const train::TrainState state = train::load_state(folder.path());
    fuzz::require(state.step >= 0 && state.updates >= 0 && state.tokens >= 0, "a negative count");
  });
  fuzz::attempt([&] { train::load_train_config(folder.path()); });
  fuzz::attempt([&] { train::read_metrics(metrics); });
}
