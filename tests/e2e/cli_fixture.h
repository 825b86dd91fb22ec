// tests/e2e/cli_fixture.h - a separate folder for each test, the program run in it, and small texts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "coca/io/fs.h"
#include "e2e/program.h"
#include "support/paths.h"

namespace coca::test {

using Args = std::vector<std::string>;

class CliFixture : public testing::Test {
 protected:
  Outcome coca(const Args& args) { return run_program(dir_.path(), args); }
  // Runs a command line in /bin/sh.
  Outcome shell(const std::string& command) {
    const std::string out = at("shell.out"), err = at("shell.err");
    const int status = std::system(("( " + command + " ) </dev/null >'" + out + "' 2>'" + err + "'").c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), io::read_file(out), io::read_file(err)};
  }
  std::string at(const std::string& name) const { return (dir_.path() / name).string(); }
  // Writes a file and creates its parent folders.
  std::string put(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(at(name)).parent_path());
    std::ofstream(at(name)) << text;
    return at(name);
  }
  // A text that a small model learns quickly, with one sentence this many times.
  static std::string cats_and_dogs(int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += "the cat sat on the mat and the dog lay on the rug. ";
    return text;
  }
  int64_t lines(const std::string& file) const {
    const std::string text = io::read_file(at(file));
    return std::ranges::count(text, '\n');
  }
  // Flags in `more` replace those of the same name in `args`.
  static Args with(Args args, const Args& more) {
    for (size_t i = 0; i + 1 < more.size(); ++i)
      if (const auto given = std::ranges::find(args, more[i]); more[i].starts_with("--") && given != args.end())
        args.erase(given, given + 2);
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  std::string text_file() {  // written once, because a newer file would be tokenized again
    return std::filesystem::exists(at("text.txt")) ? at("text.txt") : put("text.txt", cats_and_dogs(200));
  }
  Args tiny_train(const std::string& out, const Args& more = {}) {
    const Args args = {"train", "--text",          text_file(), "--out",          at(out), "--layers",
                       "1",     "--width",         "32",        "--heads",        "2",     "--length",
                       "24",    "--batch",         "4",         "--steps",        "30",    "--warmup-steps",
                       "2",     "--learning-rate", "0.01",      "--log-interval", "1"};
    return with(args, more);
  }
  // The exit code and a one-line message. After a wrong flag, a second line says how to get help.
  void expect_refused(const Args& args, int code, const std::string& text) {
    const Outcome o = coca(args);
    std::string line;
    for (const std::string& arg : args) line += arg + " ";
    EXPECT_EQ(o.code, code) << line << o.err;
    EXPECT_THAT(o.err, testing::StartsWith("coca: ")) << line;
    EXPECT_THAT(o.err.substr(0, o.err.find('\n')), testing::HasSubstr(text)) << line;
    EXPECT_LE(std::ranges::count(o.err, '\n'), 2) << line << o.err;
    EXPECT_EQ(o.out, "") << line;
  }

  TempDir dir_;
};

}  // namespace coca::test
