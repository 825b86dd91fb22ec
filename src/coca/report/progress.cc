// SPDX-License-Identifier: Apache-2.0
#include "coca/report/progress.h"

#include <algorithm>
#include <utility>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/report/escape.h"
#include "coca/report/table.h"

namespace coca::report {

namespace {

// The first `columns` code points of UTF-8 text.
std::string_view cut(std::string_view text, int columns) {
  int seen = 0;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80 && ++seen > columns) return text.substr(0, i);
  return text;
}

}  // namespace

Progress::Progress(ProgressOptions options, Sink sink) : options_(std::move(options)), sink_(std::move(sink)) {
  COCA_CHECK(options_.total >= 0 && options_.max_lines >= 1 && options_.columns >= 10,
             "[progress] total={} max_lines={} columns={}: out of range", options_.total, options_.max_lines,
             options_.columns);
  if (!options_.clock) options_.clock = [watch = Stopwatch()] { return watch.seconds(); };
  interval_ = options_.min_seconds.value_or(options_.terminal == Terminal::kYes ? 0.2 : 10.0);
  last_seconds_ = options_.clock();
  start_seconds_ = last_seconds_ - options_.began;
  done_ = last_done_ = options_.start;
}

void Progress::begin(std::string_view text) {
  const double now = options_.clock();
  if (finished_ || (lines_ > 0 && now - last_seconds_ < interval_)) return;
  last_seconds_ = now;
  if (options_.terminal == Terminal::kNo && lines_ >= options_.max_lines / 2) interval_ *= 1.25;
  write(line(now, text), false);
}

void Progress::update(int64_t done, std::string_view text, std::optional<double> share) {
  if (finished_) return;
  done_ = done;
  share_ = share;
  const double now = options_.clock();
  if (now - last_seconds_ < interval_) return;
  if (options_.terminal == Terminal::kNo) {
    // Few lines in all: each stands for a share of the work, or, when the total is not known, for ever more
    // time.
    if (options_.total > 0 && (done - last_done_) * options_.max_lines < options_.total - options_.start) return;
    if (options_.total == 0 && lines_ >= options_.max_lines / 2) interval_ *= 1.25;
  }
  last_seconds_ = now;
  last_done_ = done;
  write(line(now, text), false);
}

void Progress::finish(std::string_view text) {
  if (std::exchange(finished_, true)) return;
  const double seconds = options_.clock() - start_seconds_;
  std::string out = options_.label.empty() ? "" : options_.label + "  ";
  std::string_view unit = options_.unit;
  const int64_t done = done_ - options_.start;
  if (done == 1 && unit.ends_with('s')) unit.remove_suffix(1);
  out += fmt::format("{} {} in {}", grouped(done), unit, format_duration(seconds));
  if (options_.start > 0) out += fmt::format(" ({} in all)", grouped(done_));
  if (!text.empty()) out += "  " + std::string(text);
  write(std::move(out), true);
}

std::string Progress::line(double now, std::string_view text) const {
  std::string out = options_.label.empty() ? "" : options_.label + "  ";
  out += grouped(done_);
  if (options_.total > 0)
    out += fmt::format("/{} {} ({:.0f}%)", grouped(options_.total), options_.unit,
                       100.0 * static_cast<double>(done_) / static_cast<double>(options_.total));
  else
    out += " " + options_.unit;
  if (!text.empty()) out += "  " + std::string(text);
  if (options_.total == 0 || done_ >= options_.total) return out;
  const double share = share_.value_or(static_cast<double>(done_ - options_.start) /
                                       static_cast<double>(options_.total - options_.start));
  if (share > 0) out += "  " + format_duration((now - start_seconds_) / share * (1 - share)) + " left";
  return out;
}

void Progress::write(std::string text, bool last) {
  ++lines_;
  if (!sink_) return;
  text = single_line(text);
  if (options_.terminal == Terminal::kNo) return sink_(text + "\n");
  // Carriage return, text, erase to the end of the line (what a longer line before left there).
  sink_("\r" + std::string(last ? std::string_view(text) : cut(text, options_.columns)) + "\x1b[K" +
        (last ? "\n" : ""));
}

}  // namespace coca::report
