// tools/estimate.h - predicts the time and memory of long work, for --dry-run and for the line printed before a study.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coca/model/decoder.h"

namespace coca::tools {

enum class Pass : uint8_t { kForward, kTraining };

struct Part {
  std::string name;
  Pass pass = Pass::kForward;
  int64_t tokens = 0;  // processed by the model
  double flops = 0;    // of matrix products in the forward pass; training takes three times as many
  int64_t length = 0;  // evaluation only: tokens per window or prompt
  int64_t units = 0;   // evaluation only: units in which progress is counted, tokens or prompts
};

struct Work {
  std::vector<Part> parts;
  model::ModelSpec spec;  // the speed is measured on a model of this shape
  model::Precision precision = model::Precision::kF32;
  model::Recompute recompute = model::Recompute::kNone;
  int64_t length = 0;  // tokens of a typical window
  int64_t batch = 1;   // windows per batch
  int64_t memory = 0;  // bytes, in addition to what the process already uses
  int64_t disk = 0;    // bytes written
};

// The windows on which the speed is measured: a batch, reduced in number and length until it takes about a second.
struct Measured {
  int64_t batch = 1, length = 0;
};
Measured measured_windows(const Work&);
// FLOP/s of the model's operations on this machine, with random weights and measured_windows(). Models of more than 50
// million parameters are assumed to reach three quarters of the rate of a large matrix product.
double measured_rate(const Work&, Pass);

double seconds_of(const Work&);
// Prints the estimate as a table. Returns the seconds.
double print_work(const Work&);
// Prints the last line of a dry run. Returns 0, the exit code.
int end_dry_run();
inline int print_dry_run(const Work& work) {
  print_work(work);
  return end_dry_run();
}

// Bytes during training. Gradients and moments exist only for the trained parameters; copy: of the weights in bf16.
struct TrainingMemory {
  int64_t weights = 0, copy = 0, gradients = 0, moments = 0, activations = 0;
  int64_t all() const { return weights + copy + gradients + moments + activations; }
};
TrainingMemory training_memory_parts(const Work&, int64_t trained_parameters);
inline int64_t training_memory(const Work& work, int64_t trained_parameters) {
  return training_memory_parts(work, trained_parameters).all();
}
// Bytes of a model folder and of this many checkpoints.
int64_t training_disk(int64_t parameters, int64_t checkpoints);
// Bytes of the weights, and of the activations of one batch of windows.
int64_t evaluation_memory(const model::ModelSpec&, model::Precision, int64_t batch_tokens, int64_t length);

}  // namespace coca::tools
