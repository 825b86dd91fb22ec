// SPDX-License-Identifier: Apache-2.0
#include "ranks.h"

#include <optional>

#include "coca/dist/mpi.h"

namespace coca::tools {

namespace {

std::optional<dist::MpiJob>& job() {
  static std::optional<dist::MpiJob> one;
  return one;
}

}  // namespace

void start_ranks() {
  if (dist::mpi_launched()) job().emplace();
}

void finish_ranks() { job().reset(); }

void abort_ranks(int exit_code) {
  if (job() && ranks().size() > 1) job()->end_all(exit_code);
}

dist::Communicator& ranks() { return job() ? job()->ranks() : dist::alone(); }

std::string ranks_text() { return ranks().size() == 1 ? "" : fmt::format(", {} ranks", ranks().size()); }

void check_ranks(std::string_view command) {
  for (const std::string_view shared : {"train", "finetune", "eval ppl", "eval passkey", "eval ruler", "eval mlm"})
    if (command == shared) return;
  COCA_CHECK(ranks().size() == 1, "coca {} runs as one process; here are {} ranks (train, finetune and eval ppl, passkey, ruler, mlm share their work)", command,
             ranks().size());
}

}  // namespace coca::tools
