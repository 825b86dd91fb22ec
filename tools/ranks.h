// tools/ranks.h - the ranks this program runs as: one, or those of the MPI job started by mpirun.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "coca/dist/communicator.h"

namespace coca::tools {

// Joins the MPI job if the process was started as part of one. Throws an error if MPI was not built in.
void start_ranks();
// No communication with other ranks is possible afterwards.
void finish_ranks();
// Ends all ranks with this exit code, if there are others. By then the lowest failing rank has printed its message.
void abort_ranks(int exit_code);

dist::Communicator& ranks();
std::string ranks_text();  // ", 4 ranks", or "" for one rank
inline bool first_rank() { return ranks().rank() == 0; }

// Throws an error naming the command if several ranks run a command that cannot share its work.
void check_ranks(std::string_view command);

// Call before any work. Throws the same error on all ranks if they differ in program, command or options, or if a file
// named by the options differs on one of them. The error names the rank and the option or file. If the files exceed 1
// GiB in total, their sizes and 64 blocks of 4 KiB of each are compared.
void compare_ranks(std::string_view command, const nlohmann::ordered_json& options);
// Throws an error on all ranks if `out` is not one folder shared by all of them. It names the lowest rank that sees a
// different folder. Leaves the disk unchanged.
void require_shared_out(const std::filesystem::path& out);

}  // namespace coca::tools
