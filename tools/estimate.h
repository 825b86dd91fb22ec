// tools/estimate.h - what long work takes, said before it begins: --dry-run, and a line ahead of a study.
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
  int64_t tokens = 0;  // run through the model
  double flops = 0;    // of the matrix products; those of training are three times the forward ones
  int64_t length = 0;  // of an evaluation: its windows' or prompts'
  int64_t units = 0;   // and what it counts as done: tokens or prompts
};

struct Work {
  std::vector<Part> parts;
  model::ModelSpec spec;  // the speed is that of a model of this shape
  model::Precision precision = model::Precision::kF32;
  model::Recompute recompute = model::Recompute::kNone;
  int64_t length = 0;  // tokens of a typical window
  int64_t batch = 1;   // windows that run together
  int64_t memory = 0;  // bytes, on top of what the process has
  int64_t disk = 0;    // bytes written
};

// The windows that the speed is measured on: those that run together, or as many of them, and as much of one, as take a
// second.
struct Measured {
  int64_t batch = 1, length = 0;
};
Measured measured_windows(const Work&);
// FLOP/s of the model's operations here, on random weights and measured_windows(). Models of more than 50 million
// parameters are taken to reach three quarters of the rate of a large matrix product.
double measured_rate(const Work&, Pass);

double seconds_of(const Work&);
// Prints what it takes, as a table; its time in seconds.
double print_work(const Work&);
// The last line of a dry run; 0, an exit code.
int end_dry_run();
inline int print_dry_run(const Work& work) {
  print_work(work);
  return end_dry_run();
}

// Bytes of weights, gradients, moments and activations of training; of the parameters that are trained.
int64_t training_memory(const Work&, int64_t trained_parameters);
// Bytes of a model folder and of so many checkpoints.
int64_t training_disk(int64_t parameters, int64_t checkpoints);
// Weights and activations of one batch of windows.
int64_t evaluation_memory(const model::ModelSpec&, model::Precision, int64_t batch_tokens, int64_t length);

}  // namespace coca::tools
