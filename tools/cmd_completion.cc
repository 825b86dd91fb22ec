// coca completion SHELL and coca man: print the completions and the manual page that the package installs.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "describe.h"

namespace coca::tools {

namespace {

struct Options {
  std::optional<Shell> shell;

  template <class V>
  void visit(V&& v) {
    v("shell", "shell to write for", shell);
  }
};

struct NoOptions {
  template <class V>
  void visit(V&&) {}
};

}  // namespace

void add_completion(CLI::App& root, Action* action) {
  add_command<Options>(
      root, action, "completion", "Print a script with which a shell completes commands, flags and values",
      "Examples:\n  eval \"$(coca completion bash)\"\n  coca completion fish > ~/.config/fish/completions/coca.fish",
      [&root](const Options& options) {
        COCA_CHECK(options.shell, "SHELL: none given; expected one of {}", enum_choices<Shell>());
        write_stdout(completion_script(*options.shell, describe(root)));
        return 0;
      },
      {{"shell", "SHELL"}});
  add_command<NoOptions>(root, action, "man", "Print the manual page", "Example: coca man | man -l -",
                         [&root](const NoOptions&) {
                           write_stdout(manual_page(describe(root)));
                           return 0;
                         });
}

}  // namespace coca::tools
