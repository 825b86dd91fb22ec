// coca/data/task.h - synthetic tasks that show whether a model copies and looks things up, and how its accuracy grows
// with training. What each window holds: docs/tasks.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/base/rng.h"
#include "coca/base/sizes.h"
#include "coca/data/token_file.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

enum class Task : uint8_t {
  kMqar,           // multi-query associative recall: pairs of key and value, then keys (arXiv 2312.04927)
  kCopying,        // a random string, a gap, the string again
  kIndirectIndex,  // the symbol some places before or after a named one (after arXiv 2509.10534)
  kNeedle,         // the digits that stand behind a phrase, among others with other phrases
};

// Sizes of a window's task; 0: from the window's length.
struct TaskSizes {
  int64_t pairs = 0, string = 0, shifts = 0, needles = 0, digits = 5;

  template <class V>
  void visit(V&& v) {
    v("task_pairs", "mqar: pairs of key and value; default: an eighth of the window", pairs);
    v("task_string", "copying and indirect-index: symbols of the longest string; default: a quarter of the window",
      string);
    v("task_shifts", "indirect-index: largest shift; default: an eighth of the trained length, at most 15", shifts);
    v("task_needles", "needle: phrases with digits, one of which is asked for; default: one for 64 tokens, at least 2",
      needles);
    v("task_digits", "needle: digits behind a phrase", digits, Least{1});
  }
};

// The options of a training about its tasks.
struct TaskOptions {
  std::vector<Task> tasks;
  std::optional<double> share;  // of windows; nothing: all without text, else a quarter
  int64_t vocabulary = 0;       // of tasks without text
  TaskSizes sizes;
  std::vector<int64_t> multiples = {1, 2, 4};
  int64_t windows = 64;

  template <class V>
  void visit(V&& v) {
    v.group("Tasks");
    v("task", "synthetic tasks to train on and to measure", tasks);
    v("task_share", "share of the windows that are tasks, beside text; default: 0.25", share);
    v("task_vocabulary", "symbols of tasks without text; default: the length, at least 256", vocabulary);
    sizes.visit(v);
    v("task_multiples", "lengths at which accuracy is measured, as multiples of the trained one", multiples, Least{1});
    v("task_windows", "windows of each task and length in a measurement", windows, Least{1});
  }
};

// Inputs and what follows each, N of both; kNoTarget where nothing is asked. A run of targets is one answer.
struct TaskWindow {
  std::vector<int32_t> ids, targets;
};

// The ids that stand for symbols: all of a tokenizer of symbols; of any other the tokens that are printable ASCII,
// perhaps with a blank in front.
std::vector<int32_t> task_symbols(const text::Tokenizer&);

class TaskMaker {
 public:
  // Needles are text hidden in a text, unless the tokenizer is one of symbols. It must outlive this.
  TaskMaker(const TaskSizes&, int64_t trained_length, const text::Tokenizer&);

  // Error if a window of this length has no room for the task.
  void check(Task, int64_t length) const;
  // Depends on the generator and the text alone.
  TaskWindow window(Task, int64_t length, Rng&, const TokenFile& text) const;

 private:
  int64_t symbols() const { return static_cast<int64_t>(symbols_.size()); }
  int32_t symbol(int64_t i) const { return symbols_[static_cast<size_t>(i)]; }
  int32_t random_symbol(int64_t first, Rng&) const;  // any from symbol `first` on
  bool in_text() const { return tokenizer_.kind() != text::kSymbolsKind; }
  int64_t pairs(int64_t length) const;
  int64_t string(int64_t length) const;
  int64_t shifts() const;
  int64_t indexed(int64_t length) const;
  int64_t needles(int64_t length) const;
  TaskWindow mqar(int64_t length, Rng&) const;
  TaskWindow copying(int64_t length, Rng&) const;
  TaskWindow indirect_index(int64_t length, Rng&) const;
  TaskWindow needle(int64_t length, Rng&, const TokenFile& text) const;

  TaskSizes sizes_;
  int64_t trained_length_;
  const text::Tokenizer& tokenizer_;
  std::vector<int32_t> symbols_;
};

}  // namespace coca::data

COCA_ENUM_NAMES(coca::data::Task, "task", {coca::data::Task::kMqar, "mqar"}, {coca::data::Task::kCopying, "copying"},
                {coca::data::Task::kIndirectIndex, "indirect-index"}, {coca::data::Task::kNeedle, "needle"})
