// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "ranks.h"

namespace coca::tools {

report::Progress make_progress(report::ProgressOptions options) {
  options.terminal = isatty(STDERR_FILENO) ? report::Terminal::kYes : report::Terminal::kNo;
  return report::Progress(std::move(options), [](std::string_view text) {
    if (!first_rank()) return;
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  });
}

void print(std::string_view text) {
  if (!first_rank()) return;
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

namespace detail {

std::string flag_name(std::string_view option) {
  std::string flag = "--" + std::string(option);
  for (char& c : flag)
    if (c == '_') c = '-';
  return flag;
}

void parse_text(std::string_view flag, const std::string& text, int64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  COCA_CHECK(error == std::errc() && end == text.data() + text.size(), "{}: \"{}\" is not an integer", flag, text);
}

void parse_text(std::string_view flag, const std::string& text, double& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  COCA_CHECK(error == std::errc() && end == text.data() + text.size() && std::isfinite(out), "{}: \"{}\" is not a finite number",
             flag, text);
}

void parse_text(std::string_view flag, const std::string& text, float& out) {
  double wide = 0;
  parse_text(flag, text, wide);
  out = static_cast<float>(wide);
}

void parse_text(std::string_view flag, const std::string& text, bool& out) {
  COCA_CHECK(text == "true" || text == "false", "{}: \"{}\" is neither true nor false", flag, text);
  out = text == "true";
}

}  // namespace detail

void OptionFlags::add_config_flag() {
  app_->add_option("--config", config_file_, "JSON file with these options (underscores for dashes); flags win over it")
      ->type_name("FILE")->group("Configuration");
}

void OptionFlags::finish() {
  if (!config_file_.empty()) from_json_(io::read_json(config_file_), config_file_);
  for (const auto& apply : apply_) apply();
}

}  // namespace coca::tools
