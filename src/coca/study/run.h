// coca/study/run.h - trains and evaluates every method and seed; finished parts are kept in files and not repeated.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "coca/study/corpus.h"
#include "coca/study/results.h"

namespace coca::study {

// The present state, for a progress line: a stage begins, advances, ends.
struct StudyProgress {
  std::string stage;  // "coca-slack: training"
  int64_t done = 0, total = 0, start = 0;
  std::string unit, text;
  std::optional<double> seconds_left;  // of the whole study, as soon as something of it is measured
};

// What a study refuses before it reads its text: a folder that holds another study, models that do not fit into memory,
// lengths without room for the passkey task. Writes nothing, as does the other, which looks at the text's size too.
void check_study(const StudyConfig& resolved, const text::Tokenizer&);
void check_corpus(const StudyConfig& resolved, const Corpus&);

// The folder of a training of a study: runs/<method>-s<seed>.
std::filesystem::path run_folder(const StudyConfig&, const std::string& method, int64_t seed);

using StudyListener = std::function<void(const StudyProgress&)>;

// Layout of config.out: study.json (the resolved config; another one in the same folder is an Error), data/,
// runs/<method>-s<seed>/ (a training folder with result.json when finished). A training whose numbers are no longer
// finite is given up: its result says so, its checkpoints remain, and the study continues.
StudyResults run_study(const StudyConfig& resolved, const Corpus&, const StudyListener& listen = {});

}  // namespace coca::study
