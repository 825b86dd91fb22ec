// tools/ranks.h - the ranks this program runs as: one, or those of the MPI job that mpirun started it in.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "coca/dist/communicator.h"

namespace coca::tools {

// Joins the job, where the process was started as part of one. Error where MPI was not built in.
void start_ranks();
// After this no other rank can be spoken to.
void finish_ranks();
// Ends all ranks with this exit code, where there are others; the message of the lowest rank that fails has been
// printed by then.
void abort_ranks(int exit_code);

dist::Communicator& ranks();
std::string ranks_text();  // ", 4 ranks", or "" of one
inline bool first_rank() { return ranks().rank() == 0; }

// Error naming the command where several ranks run one that does not share its work.
void check_ranks(std::string_view command);

// Before any work: one error on all ranks where they were not started with the same program, command and options, or
// where a file that the options name has another content on one of them. It names the rank and the option or file.
// Files of more than 1 GiB together are compared by their sizes and by 64 blocks of 4 KiB of each.
void compare_ranks(std::string_view command, const nlohmann::ordered_json& options);
// Error, on all ranks, where `out` is not one folder that all of them see: it names the lowest rank that sees another
// one. The disk is left as it was.
void require_shared_out(const std::filesystem::path& out);

}  // namespace coca::tools
