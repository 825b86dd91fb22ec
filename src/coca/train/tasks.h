// coca/train/tasks.h - training on synthetic tasks (data/task.h), and their exam: the share of right answers at several
// lengths, on windows that are not trained on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/data/task.h"
#include "coca/dist/communicator.h"
#include "coca/model/params.h"
#include "coca/train/batches.h"

namespace coca::train {

int64_t task_vocabulary(const data::TaskOptions&, int64_t length);  // of a training without text
// Stands for the text of a training without one.
data::TokenFile no_text(const TrainConfig&, const text::Tokenizer&);
// The share of windows that are tasks: 0 without tasks.
double task_share(const data::TaskOptions&, const text::Tokenizer&);
// Error if a task has no room in the windows of the training or the exam.
void check_tasks(const TrainConfig&, const text::Tokenizer&);

// The windows of another source, a share of them replaced by tasks. Which, and what they hold, depends on (seed, k)
// alone. Positions are those of the source. All arguments but the options must outlive this.
class TaskBatches : public BatchSource {
 public:
  // text: where needles are hidden, unless all is symbols.
  TaskBatches(const BatchSource&, const BatchShape&, const data::TaskOptions&, const data::TaskMaker&,
              const data::TokenFile& text, double share, uint64_t seed);

  int64_t drawn_length(int64_t step) const override { return source_.drawn_length(step); }
  void fill(int64_t step, int64_t part, const Batch&) const override;
  int64_t counted(int64_t step) const override;

 private:
  std::optional<data::TaskWindow> window(int64_t k) const;  // nothing: one of the source

  const BatchSource& source_;
  BatchShape shape_;
  std::vector<data::Task> tasks_;
  const data::TaskMaker& maker_;
  const data::TokenFile& text_;
  double share_;
  uint64_t seed_;
};

struct TaskScore {
  data::Task task = data::Task::kMqar;
  int64_t length = 0;
  int64_t tokens = 0, right_tokens = 0;    // asked for, each after the right tokens before it
  int64_t answers = 0, right_answers = 0;  // runs of them
  double accuracy() const { return static_cast<double>(right_tokens) / static_cast<double>(tokens); }
  double whole() const { return static_cast<double>(right_answers) / static_cast<double>(answers); }
};
// The columns of metrics.csv: "mqar_128" (share of right tokens) and "mqar_128_whole" (of right answers).
std::string task_column(data::Task, int64_t length);

class TaskExam {
 public:
  // The maker and the text (of needles) must outlive this.
  TaskExam(const data::TaskOptions&, int64_t length, uint64_t seed, const data::TaskMaker&,
           const data::TokenFile& text);

  std::vector<std::string> columns() const;
  // Each task at each length, always the same windows. Ranks take batches in turn, and all get the same scores.
  std::vector<TaskScore> take(Context&, const model::ModelSpec&, const model::Weights&, dist::Communicator&) const;

 private:
  data::TaskOptions options_;
  int64_t length_;
  uint64_t seed_;
  const data::TaskMaker& maker_;
  const data::TokenFile& text_;
};

}  // namespace coca::train
