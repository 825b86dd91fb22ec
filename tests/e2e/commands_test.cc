// coca tokenizer, methods, verify and a tiny study, run as a user runs them.
// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "coca/base/rng.h"
#include "coca/io/json_file.h"
#include "e2e/cli_fixture.h"

namespace coca::commands_test {
namespace {

using test::Args;
using test::Outcome;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kShape =
    R"({"model_type": "llama", "attention_type": "coca-slack", "vocab_size": 260, "hidden_size": 32,
  "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32})";

class Commands : public test::CliFixture {
 protected:
  std::string model() {
    if (!std::filesystem::exists(at("model"))) {
      EXPECT_EQ(coca({"init", "--model-config", put("shape.json", kShape), "--out", at("model")}).code, 0);
    }
    return at("model");
  }
  std::string text() { return put("text.txt", cats_and_dogs(20)); }
  std::string out_of(const Args& args) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(o.err, "");
    return o.out;
  }
  // Exit code 2 for a wrong command line, 1 for an invalid file.
  void expect_refused(const Args& args, int code, const std::string& text) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, code) << text;
    EXPECT_THAT(o.err, AllOf(StartsWith("coca: "), HasSubstr(text)));
    EXPECT_EQ(std::ranges::count(o.err, '\n'), 1) << o.err;
  }
};

TEST_F(Commands, TokenizerOfBytes) {
  const Args encode = {"tokenizer", "encode", "--tokenizer", "byte"},
             decode = {"tokenizer", "decode", "--tokenizer", "byte"};
  EXPECT_EQ(out_of(with(encode, {"abc"})), "97 98 99\n");
  EXPECT_EQ(out_of(with(decode, {"97", "98", "99"})), "abc\n");
  EXPECT_EQ(out_of(encode), "\n") << "standard input is empty";
  EXPECT_EQ(out_of(decode), "\n");
  const std::string lines = put("lines.txt", "ab\n\nc"), json = put("texts.jsonl", "\"a\\nb\"\n\"\"\n"),
                    ids = put("ids.jsonl", "[97,10]\n[]\n[255]\n");
  EXPECT_EQ(out_of(with(encode, {"--lines", lines})), "[97,98]\n[]\n[99]\n");
  EXPECT_EQ(out_of(with(encode, {"--json-lines", json})), "[97,10,98]\n[]\n");
  EXPECT_EQ(out_of(with(decode, {"--lines", ids})), "\"a\\n\"\n\"\"\n\"\xef\xbf\xbd\"\n")
      << "half a character is replaced";
  expect_refused(with(encode, {"--lines", lines, "abc"}), 2, "exclude each other");
  expect_refused(with(encode, {"--json-lines", lines}), 1, "lines.txt:1");
  expect_refused(with(encode, {"--json-lines", ids}), 1, "ids.jsonl:1: expected a JSON string");
  expect_refused(with(decode, {"--lines", json}), 1, "texts.jsonl:1: expected a JSON array of ids");
  expect_refused(with(decode, {"--lines", ids, "97"}), 2, "exclude each other");
  expect_refused({"tokenizer", "encode", "--tokenizer", at("none"), "abc"}, 1, "none");
}

TEST_F(Commands, AConfigurationOfAnotherKindIsRecognised) {
  const std::string options = put("options.json", R"({"layers": 8, "width": 320, "steps": 800})"),
                    shape = put("shape.json", kShape);
  const Outcome init = coca({"init", "--model-config", options, "--out", at("out")});
  EXPECT_EQ(init.code, 1);
  EXPECT_THAT(init.err, AllOf(StartsWith("coca: --model-config " + options +
                                         ": holds options of a command (\"layers\", "
                                         "\"width\", \"steps\")"),
                              HasSubstr("run coca train --config " + options)));
  for (const Args& command : {Args{"train"}, Args{"eval", "ppl"}}) {
    const Outcome o = coca(with(command, {"--config", shape}));
    EXPECT_EQ(o.code, 2);
    EXPECT_THAT(o.err, StartsWith("coca: --config " + shape + ": describes a model; expected the options of coca " +
                                  (command.size() == 1 ? "train" : "eval ppl") + ". coca init --model-config"));
  }
  EXPECT_FALSE(std::filesystem::exists(at("out")));
}

// Options that do nothing unless another is given. In a --config file, the default value is no mistake.
TEST_F(Commands, OptionsWithoutEffectAreRefused) {
  const Args train = {"train", "--text", text(), "--out", at("out")},
             study = {"study", "--text", text(), "--out", at("out"), "--passkey-share", "0"};
  const Args on_text = {"finetune", "--model", model(), "--text", text(), "--out", at("out")},
             on_examples = {"finetune", "--model", model(), "--data", put("e.jsonl", R"({"text": "a"})"),
                            "--out",    at("out")};
  const Args ppl = {"eval", "ppl", "--model", model(), "--text", text()};
  for (const auto& [args, more, why] : std::vector<std::tuple<Args, Args, std::string>>{
           {train, {"--passkey-wording", "coca"}, "no passkeys are taught; add --passkey-share"},
           {train, {"--passkey-digits", "5"}, "no passkeys are taught; add --passkey-share"},
           {train, {"--task-pairs", "3"}, "no task is trained; add --task"},
           {train, {"--task-share", "0.5"}, "no task is trained; add --task"},
           {with(train, {"--task", "mqar"}), {"--task-vocabulary", "64"}, "tasks are written in its tokens"},
           {{"train", "--task", "mqar", "--out", at("out")}, {"--task-share", "0.5"}, "all windows are tasks"},
           {{"train", "--task", "mqar", "--out", at("out")}, {"--tokenizer", "byte"}, "a vocabulary of their own"},
           {{"train", "--task", "mqar", "--out", at("out")},
            {"--validation-text", text()},
            "a vocabulary of their own"},
           {train, {"--clex-rate", "0.1"}, "only rope scaling clex"},
           {with(train, {"--attention", "rope"}), {"--t-width", "full"}, "only CoCA has a T projection"},
           {with(train, {"--architecture", "llama"}), {"--parallel-residual", "true"}, "only --architecture gpt_neox"},
           {with(train, {"--attention", "alibi"}), {"--rope-theta", "1000"}, "--attention alibi has no rotary"},
           {with(train, {"--attention", "alibi"}), {"--rotary-pct", "0.5"}, "--attention alibi has no rotary"},
           {study, {"--passkey-wording", "coca"}, "passkeys are neither taught nor measured"},
           {study, {"--passkey-digits", "3"}, "passkeys are neither taught nor measured"},
           {study, {"--passkey-trials", "3"}, "passkeys are neither taught nor measured"},
           {study, {"--passkey-first-steps", "3"}, "passkeys are neither taught nor measured"},
           {with(study, {"--methods", "alibi"}), {"--factors", "2"}, "no method is evaluated with dynamic NTK"},
           {on_text, {"--format", "text"}, "is about examples"},
           {on_text, {"--long-documents", "truncate"}, "is about examples"},
           {on_text, {"--chat-template", "chatml"}, "is about examples"},
           {on_text, {"--bos", "never"}, "is about examples"},
           {on_text, {"--clex-rate", "0.1"}, "only rope scaling clex"},
           {on_examples, {"--chat-var", "a=1"}, "the template plain has no variables"},
           {ppl, {"--cut", "start"}, "add --max-tokens"},
           {{"eval", "passkey", "--model", model(), "--place", "random"}, {"--depths", "0,1"}, "--place random"},
           {{"generate", "--model", model(), "--prompt", "x", "--chat", "--chat-template", "plain"},
            {"--chat-var", "a=1"},
            "the template plain has no variables"},
           {{"convert", model(), at("out")}, {"--seed", "1"}, "only --t-init random"}}) {
    const Outcome o = coca(with(args, more));
    EXPECT_EQ(o.code, 2) << more[0];
    EXPECT_THAT(o.err, AllOf(StartsWith("coca: " + more[0] + ": "), HasSubstr(why)));
    EXPECT_FALSE(std::filesystem::exists(at("out"))) << more[0];
  }
  const Args tiny = with(train, {"--layers", "1", "--width", "16", "--heads", "2", "--length", "16", "--steps", "1",
                                 "--warmup-steps", "1"});
  const auto config = [&](const std::string& json) { return with(tiny, {"--config", put("c.json", json)}); };
  EXPECT_THAT(coca(config(R"({"passkey_digits": 3})")).err, StartsWith("coca: --passkey-digits: no passkeys"));
  EXPECT_EQ(coca(config(R"({"passkey_digits": 5, "passkey_share": 0})")).code, 0) << "what a saved configuration holds";
  const Args generate = {"generate",         "--model", model(),         "--prompt", "x",
                         "--max-new-tokens", "1",       "--temperature", "0"};
  EXPECT_THAT(coca(with(generate, {"--top-k", "4"})).err,
              HasSubstr("note: --top-k has no effect with --temperature 0"));
}

// Arguments are named as in --help; the same option given by its flag is named by that.
TEST_F(Commands, ArgumentsWithoutFlagsAreNamedAsInHelp) {
  struct Case {
    Args command, values;
    std::string flag, label, text;
  };
  const std::string none = at("none"), missing = " " + none + " does not exist";
  for (const Case& c :
       {Case{{"tokenizer", "decode", "--tokenizer", "byte"}, {"x"}, "--ids", "IDS", ": \"x\" is not an"},
        {{"tokenizer", "decode", "--tokenizer", "byte"}, {"99999999999999999999"}, "--ids", "IDS", ": 9999"},
        {{"info"}, {none}, "--model", "DIR", missing},
        {{"info"}, {""}, "--model", "DIR", ": the path is empty"},
        {{"verify"}, {none}, "--model", "DIR", missing},
        {{"data", "info"}, {none}, "--file", "FILE", missing},
        {{"tokenizer", "info"}, {none}, "--tokenizer", "TOKENIZER", missing},
        {{"convert", "--out", at("out")}, {none}, "--model", "SOURCE", missing},
        {{"convert", "--model", model()}, {""}, "--out", "OUT", ": the path is empty"},
        {{"completion"}, {"dash"}, "--shell", "SHELL", ": \"dash\" is unknown"}}) {
    Args plain = c.command, flagged = c.command;
    plain.push_back(c.values[0]);
    flagged.insert(flagged.end(), {c.flag, c.values[0]});
    EXPECT_THAT(coca(plain).err, StartsWith("coca: " + c.label + c.text));
    EXPECT_THAT(coca(flagged).err, StartsWith("coca: " + c.flag + c.text));
    Args help(c.command.begin(), std::ranges::find_if(c.command, [](const std::string& a) { return a[0] == '-'; }));
    help.emplace_back("--help");
    EXPECT_THAT(coca(help).out, HasSubstr("[" + c.label));
  }
  EXPECT_THAT(coca({"tokenizer", "info"}).err, StartsWith("coca: TOKENIZER: none given"));
  EXPECT_THAT(shell("echo 97 y | '" + std::string(COCA_PROGRAM) + "' tokenizer decode --tokenizer byte").err,
              StartsWith("coca: standard input: \"y\" is not an integer"));
}

// The output of a writer that has not finished is refused before any work. One that was killed keeps nobody out.
TEST_F(Commands, OneWriterOfAnOutputAtATime) {
  const std::string folder = at("made"), file = at("made.tok"), shape = put("shape.json", kShape);
  const std::vector<Args> of_folder = {{"init", "--model-config", shape, "--out", folder},
                                       {"convert", model(), folder}};
  const Args build = {"data", "build", "--text", text(), "--tokenizer", "byte", "--out", file};
  {
    const io::AtomicDir held(folder, io::AtomicDir::Existing::kRefuse);
    const io::AtomicFile also(file, io::AtomicFile::Writers::kOne);
    for (const Args& args : of_folder) expect_refused(args, 1, folder + ": another process (");
    expect_refused(build, 1, file + ": another process (");
    EXPECT_FALSE(std::filesystem::exists(folder) || std::filesystem::exists(file));
  }
  std::filesystem::create_directory(at(".tmp-made-1-0123456789abcdef"));
  for (const Args& args : {of_folder[1], build}) EXPECT_EQ(coca(args).code, 0);
}

TEST_F(Commands, ChartsNameTheMethodWithoutEmptyParentheses) {
  const Args ppl = {"eval", "ppl", "--model", model(), "--text", text(), "--lengths", "16,32", "--plot", at("p.svg")};
  const auto drawn = [&](const Args& more) {
    const Outcome o = coca(with(ppl, more));
    EXPECT_EQ(o.code, 0) << o.err;
    return o.code == 0 ? io::read_file(at("p.svg")) : "";
  };
  if (const Outcome o = coca(ppl); o.err.find("gnuplot is not installed") != std::string::npos)
    GTEST_SKIP() << "no gnuplot";
  EXPECT_THAT(drawn({}), AllOf(HasSubstr("coca-slack"), testing::Not(HasSubstr("(none)"))));
  EXPECT_THAT(drawn({"--rope-scaling", "dynamic", "--factor", "2", "--pattern", "lm-infinite", "--window", "8"}),
              HasSubstr("coca-slack (dynamic x2, lm-infinite, window 8"));
}

TEST_F(Commands, GeneratingNoTokensIsSaid) {
  const Args generate = {"generate", "--model", model(), "--prompt", "abc"};
  const Outcome o = coca(with(generate, {"--max-new-tokens", "0"}));
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out, "\n");
  EXPECT_THAT(o.err, AllOf(StartsWith("note: nothing was generated, as --max-new-tokens is 0; the prompt was run\n"),
                           HasSubstr("decode 0 tokens")));
  EXPECT_EQ(coca(with(generate, {"--max-new-tokens", "0", "--echo"})).out, "abc\n");
  const Outcome json = coca(with(generate, {"--max-new-tokens", "0", "--json", "-"}));
  EXPECT_THAT(json.err, HasSubstr("note: nothing was generated"));
  const auto result = nlohmann::json::parse(json.out);
  EXPECT_EQ(result["text"], "");
  EXPECT_EQ(result["ids"], nlohmann::json::array());
  EXPECT_EQ(result["finish"], "length");
  put("model/generation_config.json", R"({"max_new_tokens": 0})");
  EXPECT_THAT(coca(generate).err, HasSubstr("model/generation_config.json allows no new tokens"));
  EXPECT_THAT(coca(with(generate, {"--max-new-tokens", "1"})).err, testing::Not(HasSubstr("nothing was generated")));
}

TEST_F(Commands, TokenizerIsTrainedUsedAndDescribed) {
  const std::string text = put("text.txt", cats_and_dogs(50) + "\n" + cats_and_dogs(50));
  EXPECT_THAT(out_of({"tokenizer", "train", "--text", text, "--out", at("tok"), "--vocab-size", "290"}),
              AllOf(HasSubstr("tok/tokenizer.model: 290 ids"), HasSubstr("trained in")));
  const std::string ids = out_of({"tokenizer", "encode", "--tokenizer", at("tok"), "the cat sat"});
  EXPECT_LT(std::ranges::count(ids, ' '), 8) << "words, not letters: " << ids;
  Args decode = {"tokenizer", "decode", "--tokenizer", at("tok/tokenizer.model")};
  for (size_t at = 0, end = 0; end != std::string::npos; at = end + 1) {
    end = ids.find(' ', at);
    decode.push_back(ids.substr(at, end == std::string::npos ? ids.size() - 1 - at : end - at));
  }
  EXPECT_EQ(out_of(decode), "the cat sat\n");
  EXPECT_THAT(out_of({"tokenizer", "info", "--tokenizer", at("tok")}),
              AllOf(HasSubstr("ids                 290"), HasSubstr("fingerprint")));
  const nlohmann::json facts =
      nlohmann::json::parse(out_of({"tokenizer", "info", "--json", "-", "--tokenizer", "byte"}));
  EXPECT_EQ(facts.at("vocab_size"), 257);
  EXPECT_EQ(facts.at("bos"), 256);
  const std::string trained = io::read_file(at("tok/tokenizer.model"));
  for (const std::string& out : {at("tok"), at("tok/tokenizer.model")})
    expect_refused({"tokenizer", "train", "--text", text, "--out", out, "--vocab-size", "280"}, 1, "exists already");
  EXPECT_EQ(io::read_file(at("tok/tokenizer.model")), trained);
  put("json/tokenizer.json", "{}");
  expect_refused({"tokenizer", "train", "--text", text, "--out", at("json"), "--vocab-size", "280"}, 1,
                 "json/tokenizer.json exists already; choose another folder");
  expect_refused({"tokenizer", "train", "--out", at("tok2")}, 2, "--text: no text given");
  expect_refused({"tokenizer", "train", "--text", text}, 2, "--out: no folder or file given");
  expect_refused({"tokenizer", "train", "--text", at("none.txt"), "--out", at("tok2")}, 1, "none.txt");
}

TEST_F(Commands, TokenizerTrainingStopsAtTheFirstSignal) {
  Rng rng(1);
  std::string text;  // words that hardly repeat keep the trainer busy
  while (text.size() < 6'000'000) {
    for (uint64_t letters = 3 + rng.below(9); letters > 0; --letters) text += static_cast<char>('a' + rng.below(26));
    text += rng.below(12) == 0 ? '\n' : ' ';
  }
  test::Program program(dir_.path(), {"tokenizer", "train", "--text", put("long.txt", text), "--out", at("tok"),
                                      "--vocab-size", "20000"});
  while (io::read_file(at("stderr.txt")).find("training on ") == std::string::npos && !program.ended()) usleep(1000);
  program.interrupt();
  const Outcome stopped = program.wait();
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_THAT(stopped.err,
              AllOf(HasSubstr("reading 5.7 MiB of text\n"), HasSubstr("coca: stopped; nothing was written\n")));
  EXPECT_FALSE(std::filesystem::exists(at("tok")));
}

TEST_F(Commands, MethodsAreListedAndCounted) {
  const std::string text = out_of({"methods", "--reasons", "--json", at("methods.json")});
  EXPECT_THAT(text, AllOf(HasSubstr("coca-slack"), HasSubstr("streaming-llm"), HasSubstr("refused because\n")));
  EXPECT_THAT(out_of({"methods"}), testing::Not(HasSubstr("refused because")));
  const std::string reasons = text.substr(text.find("refused because"));
  EXPECT_THAT(reasons, HasSubstr("  rope scaling S needs rotary positions; attention A has none ("));
  EXPECT_LT(std::ranges::count(reasons, '\n'), 30) << "one for each kind";
  const nlohmann::json written = io::read_json(at("methods.json")), all = written.at("combinations");
  EXPECT_THAT(text, AllOf(HasSubstr("kv-shift"), HasSubstr("arXiv 2411.19574")));
  EXPECT_EQ(written.at("modifiers").at(1).at("modifier"), "kv-shift");
  std::map<std::string, int> uses;
  for (const auto& m : all) {
    ++uses[m.at("use")];
    EXPECT_EQ(m.at("use") == "refused", !m.at("reason").get<std::string>().empty()) << m.dump();
  }
  EXPECT_EQ(all.size(), 1944u);
  const int trained = uses.at("training"), evaluated = uses.at("evaluation") + trained;
  EXPECT_THAT(text, HasSubstr(fmt::format("{} of 1,944 combinations can be evaluated, {} of these trained", evaluated,
                                          trained)));
}

TEST_F(Commands, MethodsFitATerminal) {
  const auto widest = [](const std::string& text) {
    size_t most = 0;
    for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) most = std::max(most, text.find('\n', at) - at);
    return most;
  };
  const std::string table = out_of({"methods"});
  EXPECT_LE(widest(table.substr(0, table.find("\n\n") + 1)), 100u);
  setenv("COLUMNS", "80", 1);
  const std::string narrow = out_of({"methods"});
  unsetenv("COLUMNS");
  EXPECT_LE(widest(narrow.substr(0, narrow.find("\n\n") + 1)), 80u);
}

TEST_F(Commands, StudyWritesItsReportAndIsNotDoneTwice) {
  const char* words[] = {"the ", "cat ", "sat ", "on ", "a ", "mat ", "and ", "ran ", "off. "};
  for (int d = 0; d < 12; ++d) {
    std::string text;
    for (int w = 0; w < 300; ++w) text += words[(w * w + d * w + d) % 9];
    put(fmt::format("text/doc{:02d}.txt", d), text);
  }
  const Args study = {"study",
                      "--text",
                      at("text"),
                      "--out",
                      at("out"),
                      "--methods",
                      "rope,coca-slack",
                      "--ntk-methods",
                      "rope",
                      "--layers",
                      "1",
                      "--width",
                      "16",
                      "--heads",
                      "2",
                      "--length",
                      "64",
                      "--batch",
                      "2",
                      "--steps",
                      "12",
                      "--warmup-steps",
                      "2",
                      "--multiples",
                      "1,2",
                      "--eval-documents",
                      "1",
                      "--eval-tokens",
                      "300",
                      "--passkey-trials",
                      "1"};
  const auto tables = [](const std::string& out) {
    return out.substr(out.find("Perplexity by"), out.find("Training") - out.find("Perplexity by"));
  };
  const Outcome dry = coca(with(study, {"--dry-run"}));
  EXPECT_EQ(dry.code, 0) << dry.err;
  EXPECT_THAT(dry.out, AllOf(HasSubstr("2 trainings of 12 steps, 3 evaluations"), HasSubstr("memory: about"),
                             HasSubstr("disk: about"), HasSubstr("nothing was written\n")));
  EXPECT_FALSE(std::filesystem::exists(at("out")));
  const Outcome first = coca(study);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("2 trainings and 3 evaluations are to be done: about "));
  EXPECT_THAT(first.out, AllOf(HasSubstr("coca-slack"), HasSubstr("rope + dynamic NTK"),
                               HasSubstr("report: " + at("out/report.html"))));
  EXPECT_THAT(first.err, HasSubstr("coca-slack seed 0: training  12 steps"));
  for (const char* file : {"out/report.html", "out/report.md"})
    EXPECT_GT(std::filesystem::file_size(at(file)), 1000u) << file;
  const auto trained = std::filesystem::last_write_time(at("out/report.html"));
  const Outcome second = coca(study);
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_THAT(second.out, testing::Not(HasSubstr("are to be done")));
  EXPECT_EQ(tables(second.out), tables(first.out));
  EXPECT_GE(std::filesystem::last_write_time(at("out/report.html")), trained);
  expect_refused(with(study, {"--methods", "ropes"}), 2, "ropes");
}

TEST_F(Commands, AStudyNamesTheTrainingsThatWereGivenUp) {
  for (int d = 0; d < 12; ++d) put(fmt::format("text/doc{:02d}.txt", d), cats_and_dogs(6 + d));
  const Args study = {"study",      "--text",           at("text"), "--out",          at("out"), "--methods",
                      "rope,alibi", "--ntk-methods",    "rope",     "--layers",       "1",       "--width",
                      "16",         "--heads",          "2",        "--length",       "32",      "--batch",
                      "2",          "--steps",          "20",       "--warmup-steps", "1",       "--multiples",
                      "1,2",        "--eval-documents", "1",        "--eval-tokens",  "200",     "--passkey-share",
                      "0",          "--learning-rate",  "1e39"};
  const Outcome none = coca(study);
  EXPECT_EQ(none.code, 1);
  EXPECT_THAT(none.err, HasSubstr("coca: 2 of 2 trainings were given up, because their numbers were no longer finite: "
                                  "rope seed 0, alibi seed 0; "));
  EXPECT_THAT(none.out, HasSubstr("report: " + at("out/report.html")));
  EXPECT_TRUE(std::filesystem::exists(at("out/results.json")));
  // Another study, in which the stored result of one training says that it was given up.
  const Args sound = with(study, {"--learning-rate", "1e-3", "--out", at("some")});
  for (const std::string file : {"runs/alibi-s0/result.json", "runs/alibi-s0/metrics.csv"})
    put("some/" + file, io::read_file(at("out/" + file)));
  const Outcome some = coca(sound);
  EXPECT_EQ(some.code, 0) << some.err;
  EXPECT_THAT(
      some.err,
      HasSubstr("warning: 1 of 2 trainings was given up, because its numbers were no longer finite: alibi seed 0\n"));
  // A model whose perplexity at one length is NaN.
  nlohmann::json result = io::read_json(at("some/runs/rope-s0/result.json"));
  result["evaluations"][0]["perplexity"][1]["perplexity"] = "nan";
  io::write_json(at("some/runs/rope-s0/result.json"), result);
  const Outcome unmeasured = coca(sound);
  EXPECT_EQ(unmeasured.code, 1);
  EXPECT_THAT(
      unmeasured.err,
      HasSubstr("warning: the perplexity is nan at length 64 of rope seed 0: a model cannot be measured there\n"));
  EXPECT_THAT(unmeasured.out, HasSubstr("report: " + at("some/report.html")));
}

// The code in a Markdown text: lines of fenced blocks, with continued lines joined, and spans between backquotes.
std::vector<std::string> code_of(const std::string& markdown) {
  std::vector<std::string> out;
  const auto parts_of = [](const std::string& text, const std::string& mark) {
    std::vector<std::string> parts(1);
    for (size_t at = 0, end = 0; end != std::string::npos; at = end + mark.size()) {
      end = text.find(mark, at);
      parts.back() = text.substr(at, end - at);
      if (end != std::string::npos) parts.emplace_back();
    }
    return parts;
  };
  const std::vector<std::string> blocks = parts_of(markdown, "```");
  for (size_t b = 0; b < blocks.size(); ++b) {
    if (b % 2 == 1) {
      std::istringstream lines(std::regex_replace(blocks[b], std::regex("\\\\\n"), " "));
      for (std::string line; std::getline(lines, line);) out.push_back(line.substr(0, line.find(" # ")));
      continue;
    }
    const std::vector<std::string> spans = parts_of(blocks[b], "`");
    for (size_t s = 1; s < spans.size(); s += 2) out.push_back(std::regex_replace(spans[s], std::regex("\n"), " "));
  }
  return out;
}

// Every command in the README and docs exists and has the flags shown there.
TEST_F(Commands, TheDocumentationsCommandsAndFlagsExist) {
  const std::filesystem::path root = COCA_SOURCE_DIR;
  std::vector<std::filesystem::path> files{root / "README.md", root / "bench" / "README.md"};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root / "docs"))
    if (entry.path().extension() == ".md") files.push_back(entry.path());
  std::map<std::string, std::string> help_of;
  const auto help = [&](const Args& command) -> const std::string& {
    std::string& text = help_of[testing::PrintToString(command)];
    if (text.empty()) text = coca(with(command, {"--help"})).out;
    return text;
  };
  const std::regex command("(^|\\s)coca (?:help )?((eval|bench|data|tokenizer) )?([a-z]+)(?![|a-z-])(.*)"),
      flag("(^|\\s)(--[a-z][a-z0-9-]*)");
  int seen = 0;
  for (const std::filesystem::path& file : files)
    for (const std::string& code : code_of(io::read_file(file))) {
      std::smatch match;
      if (!std::regex_search(code, match, command)) continue;
      if (match[4] == "help") continue;  // applies to any command
      Args name{match[4]};
      if (match[3].matched) name.insert(name.begin(), match[3]);
      const std::string &text = help(name), rest = match[5];
      EXPECT_THAT(text, HasSubstr("Usage: coca " + name[0])) << file << ": " << code;
      for (std::sregex_iterator f(rest.begin(), rest.end(), flag), end; f != end; ++f, ++seen)
        EXPECT_TRUE(std::regex_search(text + help({}), std::regex((*f)[2].str() + "(?![a-z0-9-])")))
            << (*f)[2] << " in " << file << ": " << code;
    }
  EXPECT_GT(seen, 300);
}

// Of the configurations that come with coca, which need neither text, tokenizer nor weights here.
TEST_F(Commands, ThePlanOfATrainingIsItsMemory) {
  const auto plan = [&](Args args) {
    args.insert(args.end(), {"--json", at("plan.json")});
    out_of(args);
    return io::read_json(at("plan.json"));
  };
  const std::string configs = COCA_SOURCE_DIR "/configs/";
  const nlohmann::json scratch = plan({"info", "--plan", configs + "train-350m.json", "--vocab-size", "100864"});
  const int64_t parameters = scratch["parameters"], width = 1024, layers = 24;
  // T has half the width; the biases of the four projections, of the mlp, and three norms.
  EXPECT_EQ(parameters, 2 * 100864 * width +
                            layers * (5 * width * width / 2 + width * width + 8 * width * width + 5 * width / 2 +
                                      width + 5 * width + 4 * width) +
                            2 * width);
  const nlohmann::json only = scratch["stages"][0];
  EXPECT_EQ(only["weights"], 4 * parameters);
  EXPECT_EQ(only["gradients"], 4 * parameters);
  EXPECT_EQ(only["moments"], 8 * parameters);
  EXPECT_EQ(only["all"], scratch["most"]);
  EXPECT_LT(scratch["activations"]["layer"], scratch["activations"]["none"]);
  const nlohmann::json tuned = plan({"info", configs + "model-llama-7b.json", "--plan", configs + "finetune-7b.json"});
  const int64_t t = 32 * 4096 * 2048;  // 32 layers
  ASSERT_EQ(tuned["stages"].size(), 3u);
  EXPECT_EQ(tuned["stages"][0]["trained_parameters"], t);
  EXPECT_EQ(tuned["stages"][1]["trained_parameters"], 5 * t);
  EXPECT_EQ(tuned["parameters"], 6738415616 - t);
  expect_refused({"info", "--plan", configs + "train-350m.json"}, 1, "give the number of its ids with --vocab-size");
  expect_refused({"info", "--plan", configs + "finetune-7b.json"}, 1, "its model, out/llama-7b-coca, is not here");
}

// The check of a card, on the CPU instead: what it runs, what it writes, and that a failure is a line and an exit code.
TEST_F(Commands, TheCheckOfACardRunsOnTheCpuToo) {
  const std::string check = COCA_CARD_CHECK;
  const auto run = [&](const std::string& home, const std::string& sections) {
    return shell(fmt::format("'{}' --home '{}' --out '{}' --device cpu --small --minutes 2 --only {}", check, home,
                             at("check"), sections));
  };
  const std::string home = std::filesystem::path(COCA_PROGRAM).parent_path().parent_path();
  const Outcome passed = run(home, "card,training");
  EXPECT_EQ(passed.code, 0) << passed.out << passed.err;
  EXPECT_THAT(passed.out, HasSubstr("passed  greedy text equals the CPU's: yes"));
  const nlohmann::json lines = io::read_json(at("check/results.json"))["lines"];
  EXPECT_EQ(lines.size(), 10u);
  for (const auto& line : lines) EXPECT_EQ(line["passed"], true) << line.dump();
  EXPECT_THAT(io::read_file(at("check/report.md")), HasSubstr("| a resumed run has the same bits |"));
  const Outcome failed = run(at("nowhere"), "card,speed");
  EXPECT_EQ(failed.code, 1) << failed.out;
  EXPECT_THAT(failed.out, AllOf(HasSubstr("FAILED  section card"), HasSubstr("FAILED  section speed")));
}

TEST_F(Commands, VerifyPassesAndFails) {
  const auto golden = test::golden_dir();
  COCA_SKIP_WITHOUT(golden);
  const std::string model = (golden / "gpt_neox_coca").string();
  EXPECT_THAT(out_of({"verify", model}),
              AllOf(HasSubstr("== " + model), HasSubstr("pass"), HasSubstr(" cases, 0 failed\n")));
  EXPECT_THAT(out_of({"verify", model, "--quiet"}), testing::Not(HasSubstr("pass\n")));
  const Outcome strict = coca({"verify", model, "--tolerance", "1e-12"});
  EXPECT_EQ(strict.code, 1);
  EXPECT_THAT(strict.out, AllOf(HasSubstr("FAIL"), testing::Not(HasSubstr(" 0 failed"))));
  expect_refused({"verify", at("nowhere")}, 1, "nowhere");
}

}  // namespace
}  // namespace coca::commands_test
