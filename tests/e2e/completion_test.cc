// Completions and the manual page agree with --help on every command, flag and named value.
// SPDX-License-Identifier: Apache-2.0
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "e2e/cli_fixture.h"

namespace coca::completion_test {
namespace {

using test::Args;
using test::Outcome;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSupersetOf;

struct HelpFlag {
  std::string name, type;  // for example "--cache", "{f32, bf16, int8}"; type is "" for a flag without a value
};

class Completion : public test::CliFixture {
 protected:
  bool there(const std::string& program) { return shell("command -v " + program).code == 0; }
  std::string script(const std::string& shell_name) {
    const Outcome o = coca({"completion", shell_name});
    EXPECT_EQ(o.code, 0) << o.err;
    return put("coca." + shell_name, o.out);
  }
  // What bash offers for each command line, run in the folder of the test. Words are separated by '|'.
  std::vector<std::set<std::string>> bash_offers(const std::vector<std::string>& lines) {
    std::string text = "cd '" + at("files") + "'\nsource '" + script("bash") + "'\n";
    for (const std::string& line : lines)
      text += "IFS='|' read -r -a COMP_WORDS <<< '" + line + "'\n[[ '" + line + "' != *'|' ]] || COMP_WORDS+=('')\n" +
              "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _coca; printf '%s\\n' \"${COMPREPLY[@]}\" =\n";
    std::filesystem::create_directories(at("files/folder"));
    put("files/text one.txt", "");
    const Outcome o = shell("bash --norc '" + put("ask.sh", text) + "'");
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(o.err, "");
    std::vector<std::set<std::string>> offers(1);
    std::istringstream out(o.out);
    for (std::string word; std::getline(out, word);)
      if (word == "=")
        offers.emplace_back();
      else if (!word.empty())
        offers.back().insert(word);
    offers.pop_back();
    EXPECT_EQ(offers.size(), lines.size());
    return offers;
  }
  std::set<std::string> bash_offer(const std::string& line) { return bash_offers({line}).front(); }

  // Every command and its flags, as --help prints them.
  std::map<std::string, std::vector<HelpFlag>> help() {
    std::map<std::string, std::vector<HelpFlag>> found;
    const std::function<void(const Args&)> walk = [&](const Args& command) {
      std::istringstream lines(coca(with(command, {"--help"})).out);
      const std::regex flag(R"(  (?:-., )?(--[a-z0-9-]+)(?: (\{[^}]*\}|\[BOOL\]|[A-Z]+)([,. =].*)?)?( .*)?)");
      std::string path;
      for (const std::string& word : command) path += (path.empty() ? "" : " ") + word;
      std::smatch match;
      bool listed = false;
      for (std::string line; std::getline(lines, line);) {
        if (listed && line.size() > 2 && line[0] == ' ' && line[2] != ' ')
          walk(with(command, {line.substr(2, line.find(' ', 2) - 2)}));
        if (std::regex_match(line, match, flag)) found[path].push_back({match[1], match[2]});
        listed = listed || line == "Subcommands:";
      }
    };
    walk({});
    return found;
  }
};

TEST_F(Completion, BashOffersCommandsFlagsAndValues) {
  EXPECT_THAT(bash_offer("coca|gen"), ElementsAre("generate"));
  EXPECT_THAT(bash_offer("coca|eval|"), ElementsAre("mlm", "passkey", "ppl", "recall", "ruler", "stream"));
  EXPECT_THAT(bash_offer("coca|generate|--mo"), ElementsAre("--model"));
  EXPECT_THAT(bash_offer("coca|--threads|2|generate|--mo"), ElementsAre("--model"));
  EXPECT_THAT(bash_offer("coca|generate|--thr"), ElementsAre("--threads")) << "of every command";
  EXPECT_THAT(bash_offer("coca|train|--out|generate|--ar"), ElementsAre("--architecture")) << "a value is no command";
  EXPECT_THAT(bash_offer("coca|generate|--chat|--mo"), ElementsAre("--model")) << "--chat stands alone";
  EXPECT_THAT(bash_offer("coca|generate|--chat|=|"), ElementsAre("false", "true"));
  EXPECT_THAT(bash_offer("coca|generate|--cache|"), ElementsAre("bf16", "f32", "int8"));
  EXPECT_THAT(bash_offer("coca|generate|--cache|=|b"), ElementsAre("bf16"));
  EXPECT_THAT(bash_offer("coca|generate|--cache|="), ElementsAre("bf16", "f32", "int8"));
  EXPECT_THAT(bash_offer("coca|generate|--cache|f32|"), IsEmpty());
  EXPECT_THAT(bash_offer("coca|generate|--max-new-tokens|"), IsEmpty());
  EXPECT_THAT(bash_offer("coca|completion|"), ElementsAre("bash", "fish", "zsh"));
  EXPECT_THAT(bash_offer("coca|study|--methods|rope,coca-slack+p"), ElementsAre("rope,coca-slack+pose"));
  EXPECT_THAT(bash_offer("coca|eval|ppl|--protocol|yarn"), ElementsAre("yarn", "yarn-truncate"));
  EXPECT_THAT(bash_offer("coca|eval|passkey|--protocol|yarn"), ElementsAre("yarn"));
  EXPECT_THAT(bash_offer("coca|eval|ruler|--tasks|vt,cw"), ElementsAre("vt,cwe"));
  EXPECT_THAT(bash_offer("coca|tokenizer|train|--type|"), ElementsAre("bpe", "unigram"));
}

TEST_F(Completion, BashOffersFilesWhereAPathIsTaken) {
  EXPECT_THAT(bash_offer("coca|generate|--model|"), ElementsAre("folder", "text one.txt"));
  EXPECT_THAT(bash_offer("coca|generate|--model|=|f"), ElementsAre("folder"));
  EXPECT_THAT(bash_offer("coca|train|--text|folder,te"), ElementsAre("folder,text one.txt"));
  EXPECT_THAT(bash_offer("coca|info|fo"), ElementsAre("folder"));
  EXPECT_THAT(bash_offer("coca|train|--tokenizer|"), ElementsAre("byte", "folder", "text one.txt"));
  EXPECT_THAT(bash_offer("coca|generate|--chat-template|"), IsSupersetOf({"auto", "chatml", "folder"}));
  EXPECT_THAT(bash_offer("coca|generate|"), IsEmpty()) << "no argument is taken there";
}

// For all commands: bash offers the flags of --help, the names or files that the type of each flag promises, and
// nothing for numbers.
TEST_F(Completion, BashAndTheManualAgreeWithHelp) {
  const auto commands = help();
  ASSERT_GE(commands.size(), 30u);
  const std::string manual = coca({"man"}).out, zsh = coca({"completion", "zsh"}).out,
                    fish = coca({"completion", "fish"}).out;
  std::vector<std::string> lines;
  std::vector<std::pair<std::string, std::set<std::string>>> expected;
  const auto ask = [&](const std::string& line, std::set<std::string> offer) {
    lines.push_back(line);
    expected.emplace_back(line, std::move(offer));
  };
  const std::regex separator(", ");
  for (const auto& [path, flags] : commands) {
    const std::string words = path.empty() ? "coca|" : "coca|" + std::regex_replace(path, std::regex(" "), "|") + "|";
    std::set<std::string> names;
    if (!path.empty()) names = {"--cpu-target", "--device", "--force-impl", "--threads"};
    for (const HelpFlag& flag : flags) {
      names.insert(flag.name);
      EXPECT_THAT(zsh, HasSubstr(flag.name)) << path;
      EXPECT_THAT(fish, HasSubstr("-l " + flag.name.substr(2) + " ")) << path;
      EXPECT_THAT(manual, HasSubstr(std::regex_replace(flag.name, std::regex("-"), "\\-"))) << path;
      if (flag.type == "PATH") ask(words + flag.name + "|fold", {"folder"});
      if (flag.type == "INT" || flag.type == "NUMBER") ask(words + flag.name + "|", {});
      if (!flag.type.starts_with("{")) continue;
      const std::string list = flag.type.substr(1, flag.type.size() - 2);
      ask(words + flag.name + "|", {std::sregex_token_iterator(list.begin(), list.end(), separator, -1), {}});
    }
    ask(words + "--", names);
    EXPECT_THAT(manual, HasSubstr("coca " + path)) << path;
  }
  ASSERT_GT(lines.size(), 300u);
  const std::vector<std::set<std::string>> offers = bash_offers(lines);
  for (size_t i = 0; i < std::min(offers.size(), expected.size()); ++i)
    EXPECT_EQ(offers[i], expected[i].second) << expected[i].first;
}

TEST_F(Completion, ZshReadsItsScript) {
  if (!there("zsh")) GTEST_SKIP() << "zsh is not installed";
  const Outcome o = shell("zsh -n '" + script("zsh") + "'");
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.err, "");
}

TEST_F(Completion, FishOffersTheSame) {
  if (!there("fish")) GTEST_SKIP() << "fish is not installed";
  const std::string file = script("fish");
  EXPECT_EQ(shell("fish -n '" + file + "'").code, 0);
  const auto offer = [&](const std::string& line) {
    return shell("HOME='" + at("home") + "' fish --no-config -c \"source '" + file + "'; complete -C '" + line + "'\"")
        .out;
  };
  EXPECT_THAT(offer("coca generate --mo"), testing::MatchesRegex("--model\t[^\n]*\n"));
  EXPECT_THAT(offer("coca eval "), testing::ContainsRegex("(^|\n)ppl\t"));
  EXPECT_THAT(offer("coca eval ppl --protocol=yarn-"), HasSubstr("--protocol=yarn-truncate\t"));
  EXPECT_THAT(offer("coca study --methods rope,coca-tied-a"), HasSubstr("rope,coca-tied-alibi\t"));
  EXPECT_THAT(offer("coca train --steps "), "");
}

TEST_F(Completion, TheManualIsProperRoff) {
  const std::string page = put("coca.1", coca({"man"}).out);
  EXPECT_THAT(io::read_file(page), HasSubstr(".SH EXIT STATUS\n"));
  if (!there("man") && !there("mandoc")) GTEST_SKIP() << "neither man nor mandoc is installed";
  if (there("man")) {
    const Outcome o = shell("LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l '" + page + "'");
    EXPECT_EQ(o.code, 0);
    EXPECT_EQ(o.err, "");
    EXPECT_THAT(o.out, HasSubstr("--max-new-tokens INT"));
  }
  if (there("mandoc")) {
    EXPECT_EQ(shell("mandoc -T lint -W error '" + page + "'").out, "");
  }
}

TEST_F(Completion, AShellMustBeNamed) {
  const Outcome none = coca({"completion"}), other = coca({"completion", "csh"});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, HasSubstr("SHELL: none given; expected one of bash, zsh, fish"));
  EXPECT_EQ(other.code, 2);
  EXPECT_THAT(other.err, HasSubstr("\"csh\" is unknown; expected one of bash, zsh, fish"));
}

}  // namespace
}  // namespace coca::completion_test
