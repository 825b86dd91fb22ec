// coca verify DIR: hold a model folder against stored results of the official code.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/eval/verify.h"
#include "coca/report/table.h"

namespace coca::tools {

namespace {

struct Options {
  std::vector<std::string> dirs;
  double tolerance = 1e-4;
  bool quiet = false;
};

void print_case(const eval::CaseCheck& check, const Options& options) {
  report::Table table;
  table.title = fmt::format("{} (rope scaling: {})", check.file, check.scaling);
  table.header = {"tensor", "max relative error", "worst index", "verdict"};
  int64_t passed = 0;
  for (const eval::TensorCheck& t : check.tensors) {
    const bool pass = t.verdict == eval::Verdict::kPass;
    passed += pass;
    if (!options.quiet || !pass) table.rows.push_back({t.name, fmt::format("{:.2e}", t.error), t.worst_index, pass ? "pass" : "FAIL"});
  }
  if (!table.rows.empty()) print(report::to_text(table));
  print(fmt::format("{}: {} of {} tensors within {:g}\n\n", check.file, passed, check.tensors.size(), options.tolerance));
}

int run(const Options& options) {
  int64_t cases = 0, failed = 0;
  for (const std::string& dir : options.dirs) {
    print(fmt::format("== {}\n", dir));
    for (const eval::CaseCheck& check :
         eval::verify_folder(dir, {.tolerance = options.tolerance, .on_case = [&](const auto& c) { print_case(c, options); }})) {
      ++cases;
      failed += check.verdict == eval::Verdict::kFail;
    }
  }
  print(fmt::format("{} cases, {} failed\n", cases, failed));
  return failed == 0 ? 0 : kExitFailed;
}

}  // namespace

void add_verify(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("verify", "Compare our logits, attention, hidden states, gradients and greedy ids with stored ones");
  auto options = std::make_shared<Options>();
  app->add_option("DIR", options->dirs, "model folders with config.json, model.safetensors, manifest.json and cases")->required();
  app->add_option("--tolerance", options->tolerance, "largest error allowed, relative to the tensor's largest magnitude")->capture_default_str();
  app->add_flag("--quiet", options->quiet, "list only the tensors that fail");
  app->callback([=] { *action = [=] { return run(*options); }; });
}

}  // namespace coca::tools
