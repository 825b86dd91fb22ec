// coca verify DIR: compares a model folder with stored results of the official code.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/base/count.h"
#include "coca/eval/verify.h"
#include "coca/report/table.h"

namespace coca::tools {

namespace {

struct Options {
  std::vector<std::string> dirs;
  double tolerance = 1e-4;
  bool quiet = false;

  template <class V>
  void visit(V&& v) {
    v("model", "model folders with config.json, model.safetensors, manifest.json and cases", dirs);
    v("tolerance", "largest error allowed, relative to the tensor's largest magnitude", tolerance);
    v("quiet", "list only the tensors that fail", quiet);
  }
};

void print_case(const eval::CaseCheck& check, const Options& options) {
  report::Table table;
  table.title = fmt::format("{} (rope scaling: {})", check.file, check.scaling);
  table.header = {"tensor", "max relative error", "worst index", "verdict"};
  int64_t passed = 0;
  for (const eval::TensorCheck& t : check.tensors) {
    const bool pass = t.verdict == eval::Verdict::kPass;
    passed += pass;
    if (!options.quiet || !pass)
      table.rows.push_back({t.name, fmt::format("{:.2e}", t.error), t.worst_index, pass ? "pass" : "FAIL"});
  }
  if (!table.rows.empty()) print(table_text(table));
  print_prose(fmt::format("{}: {} of {} within {:g}\n\n", check.file, passed, counted(check.tensors.size(), "tensor"),
                          options.tolerance));
}

int run(const Options& options) {
  COCA_CHECK(!options.dirs.empty(), "DIR: no model folder given");
  int64_t cases = 0, failed = 0;
  for (const std::string& dir : options.dirs) {
    print_prose(fmt::format("== {}\n", dir));
    for (const eval::CaseCheck& check : eval::verify_folder(
             dir, {.tolerance = options.tolerance, .on_case = [&](const auto& c) { print_case(c, options); }})) {
      ++cases;
      failed += check.verdict == eval::Verdict::kFail;
    }
  }
  print_prose(fmt::format("{}, {} failed\n", counted(cases, "case"), grouped(failed)));
  return failed == 0 ? 0 : kExitFailed;
}

}  // namespace

void add_verify(CLI::App& root, Action* action) {
  add_command<Options>(root, action, "verify",
                       "Compare our logits, attention, hidden states, gradients and greedy ids with stored ones",
                       "Example: coca verify out/golden --quiet", run, {{"model", "DIR"}});
}

}  // namespace coca::tools
