// coca/report/progress.h - progress lines for long work: rewritten in place on a terminal, few in a log file.
//
//   Progress progress({.total = steps, .unit = "steps", .label = "train", .terminal = Terminal::kYes}, sink);
//   progress.update(step, "loss 2.31");   // as often as needed; most calls write nothing
//   progress.finish();
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace coca::report {

enum class Terminal : uint8_t { kNo, kYes };

struct ProgressOptions {
  int64_t total = 0;  // 0: not known; then neither share nor time left is shown
  int64_t start = 0;  // done before this run; the times are of this run alone
  double began = 0;   // seconds that this run took before the Progress was made
  std::string unit = "steps";
  std::string label;
  Terminal terminal = Terminal::kNo;
  std::optional<double> min_seconds;  // between lines; default 0.2 on a terminal, 10 elsewhere
  int max_lines = 40;                 // about this many in all without a terminal
  int columns = 100;                  // a line on a terminal is cut to this, so that it can be rewritten
  std::function<double()> clock;      // seconds; default: the monotonic clock
};

class Progress {
 public:
  using Sink = std::function<void(std::string_view)>;

  Progress(ProgressOptions options, Sink sink);  // an empty sink: nothing is written

  // `done` of the total is done; `text` is appended to the line. Writes at most one line, and mostly none.
  void update(int64_t done, std::string_view text = {}) { update(done, text, std::nullopt); }
  // The time left is estimated from `share`, of the work of this run, if its parts differ in cost.
  void update(int64_t done, std::string_view text, std::optional<double> share);
  // Writes a line about the present work at once, before a part that may take long. Not again within `min_seconds`.
  void begin(std::string_view text);
  // Writes the last line: the work of this run, how long it took, and `text`. Later calls do nothing.
  void finish(std::string_view text = {});

 private:
  std::string line(double now, std::string_view text) const;
  void write(std::string text, bool last);

  ProgressOptions options_;
  Sink sink_;
  double start_seconds_ = 0, last_seconds_ = 0, interval_ = 0;
  std::optional<double> share_;
  int64_t done_ = 0, last_done_ = 0;
  int lines_ = 0;
  bool finished_ = false;
};

}  // namespace coca::report
