// Names of flags and commands, old and misspelt; missing values; --config and --json in every command; help.
// SPDX-License-Identifier: Apache-2.0
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "coca/io/json_file.h"
#include "e2e/cli_fixture.h"

namespace coca::flags_test {
namespace {

namespace fs = std::filesystem;
using test::Args;
using test::Outcome;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* kShape =
    R"({"model_type": "llama", "attention_type": "coca-slack", "vocab_size": 260, "hidden_size": 32,
  "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32})";

// Sets an environment variable during its lifetime.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

const std::string kCommands =
    "study, init, train, finetune, merge, eval, analyse, generate, verify, methods, data, tokenizer, convert, info, "
    "bench, completion, man";

class Flags : public test::CliFixture {
 protected:
  // Refused because of the command line: prints only the message and where to find help.
  void expect_refused(const Args& args, const std::string& message, const std::string& help) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 2) << message << "\n" << o.err;
    EXPECT_EQ(o.err, "coca: " + message + "\nTry: coca " + help + "\n");
    EXPECT_EQ(o.out, "");
  }
  std::string model() {
    if (!fs::exists(at("model"))) {
      EXPECT_EQ(coca({"init", "--model-config", put("shape.json", kShape), "--out", at("model")}).code, 0);
    }
    return at("model");
  }
  std::string text() { return put("text.txt", cats_and_dogs(20)); }
  size_t widest(const Args& args) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 0) << o.err;
    return longest_line(o.out);
  }
  static size_t longest_line(const std::string& text) {
    std::istringstream lines(text);
    size_t most = 0;
    for (std::string line; std::getline(lines, line);) most = std::max(most, line.size());
    return most;
  }
  // All commands, with "eval ppl" as two words.
  std::vector<Args> commands() {
    std::vector<Args> found;
    const std::function<void(Args)> walk = [&](const Args& command) {
      std::istringstream lines(coca(with(command, {"--help"})).out);
      bool listed = false, inner = false;
      for (std::string line; std::getline(lines, line);) {
        if (listed && line.size() > 2 && line[0] == ' ' && line[2] != ' ') {
          inner = true;
          walk(with(command, {line.substr(2, line.find(' ', 2) - 2)}));
        }
        if (line == "Subcommands:") listed = true;
      }
      if (!inner) found.push_back(command);
    };
    walk({});
    return found;
  }
};

TEST_F(Flags, AMisspeltFlagGetsTheNearest) {
  expect_refused({"train", "--lr", "1e-3"}, "--lr: no such option of coca train; did you mean --learning-rate?",
                 "train --help");
  expect_refused({"finetune", "--lr=1e-3"}, "--lr: no such option of coca finetune; did you mean --learning-rate?",
                 "finetune --help");
  expect_refused({"train", "--stepz", "3"}, "--stepz: no such option of coca train; did you mean --steps?",
                 "train --help");
  expect_refused({"train", "--learning_rate", "3"},
                 "--learning_rate: no such option of coca train; did you mean --learning-rate?", "train --help");
  expect_refused({"train", "--num-layers", "3"}, "--num-layers: no such option of coca train; did you mean --layers?",
                 "train --help");
  expect_refused({"train", "--hidden-size", "3"}, "--hidden-size: no such option of coca train; did you mean --width?",
                 "train --help");
  expect_refused({"eval", "ppl", "--modl", "x"}, "--modl: no such option of coca eval ppl; did you mean --model?",
                 "eval ppl --help");
  expect_refused({"generate", "--max-tokens", "3"},
                 "--max-tokens: no such option of coca generate; did you mean --max-new-tokens?", "generate --help");
  expect_refused({"info", "--thread", "3"}, "--thread: no such option of coca info; did you mean --threads?",
                 "info --help");
  expect_refused({"train", "--zebra", "3"}, "--zebra: no such option of coca train", "train --help");
  expect_refused({"info", "-x"}, "-x: no such option of coca info", "info --help");
  expect_refused(
      {"--steps", "3", "train"},
      "--steps: no such option of coca; give the options of a command after its name: coca train --steps ...",
      "--help");
}

TEST_F(Flags, AMisspeltCommandGetsTheNearest) {
  expect_refused({"trian"}, "trian: no such command of coca; did you mean coca train?", "--help");
  expect_refused({"Train", "--steps", "3"}, "Train: no such command of coca; did you mean coca train?", "--help");
  expect_refused({"eval", "pl"}, "pl: no such command of coca eval; did you mean coca eval ppl?", "eval --help");
  expect_refused({"bench", "atention"}, "atention: no such command of coca bench; did you mean coca bench attention?",
                 "bench --help");
  expect_refused({"ppl"}, "ppl: no such command of coca; did you mean coca eval ppl?", "--help");
  expect_refused({"zebra"}, "zebra: no such command of coca; expected one of " + kCommands, "--help");
  expect_refused({"bench", "attn"}, "attn: no such command of coca bench; did you mean coca bench attention?",
                 "bench --help");
  expect_refused({"help", "trian"}, "trian: no such command of coca; did you mean coca train?", "--help");
}

TEST_F(Flags, AMissingCommandListsThem) {
  expect_refused({"eval"}, "coca eval needs a command: one of ppl, stream, mlm, recall, passkey, ruler", "eval --help");
  expect_refused({"bench", "--threads", "2"}, "coca bench needs a command: one of attention, train, eval, decode, ring",
                 "bench --help");
  expect_refused({}, "coca needs a command: one of " + kCommands, "--help");
  for (const Args& args : {Args{"--version"}, Args{"bench", "--help"}, Args{"help"}, Args{"eval", "help"}})
    EXPECT_EQ(coca(args).code, 0);
}

// No message may come straight from the command-line library.
TEST_F(Flags, InvalidNumbersAndWords) {
  const auto last = [&](const Args& args) { return coca(args).err; };
  for (const char* number : {"0", "4097", "-1"})
    expect_refused({"info", "--threads", number}, fmt::format("--threads is {}; expected 1 to 4096", number),
                   "info --help");
  const std::string config = put("empty.json", "{}");
  EXPECT_EQ(
      coca({"info", "--config", config, "--config", config, "--cpu-target", "SCALAR", "--cpu-target", "SCALAR"}).code,
      0);
  expect_refused({"info", "--threads", "two"}, "--threads: \"two\" is not an integer", "info --help");
  expect_refused({"eval", "ppl", "--", "x"}, "\"x\": coca eval ppl takes no argument here", "eval ppl --help");
  EXPECT_THAT(last({"train", "--batch", "9223372036854775808"}),
              HasSubstr("--batch: 9223372036854775808 is too large: it does not fit into 64 bits\n"));
  EXPECT_THAT(last({"train", "--seed", "-9223372036854775809"}),
              HasSubstr("--seed: -9223372036854775809 is too small: it does not fit into 64 bits\n"));
  EXPECT_THAT(last({"bench", "ring", "--lengths", "64,99999999999999999999"}),
              HasSubstr("--lengths: 99999999999999999999 is too large"));
  EXPECT_THAT(last({"train", "--learning-rate", "1e999"}), HasSubstr("--learning-rate: 1e999 is too large"));
  EXPECT_THAT(last({"train", "--learning-rate", "inf"}), HasSubstr("\"inf\" is not a finite number"));
  EXPECT_THAT(last({"train", "--batch", ""}), HasSubstr("--batch: \"\" is not an integer"));
}

TEST_F(Flags, AWrongValueGetsTheNearest) {
  const Outcome kind = coca({"train", "--text", text(), "--attention", "coca-slak"});
  EXPECT_EQ(kind.code, 2);
  EXPECT_THAT(kind.err, AllOf(StartsWith("coca: --attention: \"coca-slak\" is unknown; expected one of rope, "),
                              HasSubstr("; did you mean coca-slack?\n")));
  EXPECT_THAT(coca({"eval", "ppl", "--model", model(), "--text", text(), "--protocol", "slidng"}).err,
              HasSubstr("; did you mean sliding?\n"));
  EXPECT_THAT(coca({"generate", "--model", model(), "--prompt", "a", "--chat", "--chat-template", "chatmll"}).err,
              HasSubstr("; did you mean chatml?\n"));
  EXPECT_THAT(coca({"finetune", "--model", model(), "--text", text(), "--train", "*t_prj*"}).err,
              HasSubstr("\"*t_prj*\" matches none of 12 names; did you mean t_proj?\n"));
  EXPECT_THAT(coca({"finetune", "--model", model(), "--text", text(), "--train", "*zebra*"}).err,
              HasSubstr("; the parts of the names are down_proj, embed_tokens, "));
  EXPECT_THAT(coca({"info", "--cpu-target", "SCALR"}).err, HasSubstr("; did you mean SCALAR?\n"));
  EXPECT_THAT(coca({"info", "--force-impl", "attn:ref"}).err, HasSubstr("; did you mean attention?\n"));
  EXPECT_THAT(coca({"info", "--force-impl", "attention:rf"}).err, HasSubstr("; did you mean ref?\n"));
  EXPECT_THAT(coca({"study", "--preset", "smal"}).err, HasSubstr("; did you mean small?\n"));
  EXPECT_THAT(coca({"train", "--config", put("c.json", R"({"attention": "Rope"})")}).err,
              HasSubstr("; did you mean rope?\n"));
  EXPECT_THAT(coca({"train", "--config", put("d.json", R"({"lr": 1})")}).err,
              HasSubstr("unknown option \"lr\"; did you mean \"learning_rate\"?\n"));
}

// If an option's value is invalid, the message begins with its flag.
TEST_F(Flags, ErrorsBeginWithTheOption) {
  const Args train = {"train", "--text",   text(), "--layers", "1", "--width", "16",     "--heads",
                      "2",     "--length", "16",   "--steps",  "2", "--out",   at("out")};
  const Args lora = {"finetune", "--model", model(), "--text", text(), "--lora-rank", "2", "--out", at("out")};
  const Args ppl = {"eval", "ppl", "--model", model(), "--text", text()},
             passkey = {"eval", "passkey", "--model", model()};
  const Args ring = {"bench", "ring", "--lengths", "64"},
             tokens = {"tokenizer", "train", "--text", text(), "--out", at("out")};
  const std::vector<std::pair<Args, const char*>> cases = {
      {with(train, {"--learning-rate", "0"}), "--learning-rate is 0; expected more than 0"},
      {with(train, {"--min-learning-rate", "1"}), "--min-learning-rate is 1; expected 0 to --learning-rate, 0.001"},
      {with(train, {"--beta1", "1"}), "--beta1 is 1; expected at least 0 and less than 1"},
      {with(train, {"--kv-heads", "1"}),
       "--kv-heads is 1; architecture gpt_neox has as many key/value heads as --heads, 2"},
      {with(train, {"--dilation", "3", "--layer-window", "4"}),
       "--dilation has 1 number; expected 2, one per head, or 2, layer by layer"},
      {with(lora, {"--lora-alpha", "0"}), "--lora-alpha is 0; expected more than 0"},
      {with(lora, {"--lora-targets", "abc"}), "--lora-targets: \"abc\" matches none of "},
      {with(lora, {"--freeze", "*"}), "--freeze: chooses parameters of the model; with an adapter"},
      {{"finetune", "--model", model(), "--text", text(), "--freeze", "abc"}, "--freeze: \"abc\" matches none of "},
      {{"finetune", "--model", model()}, "--data: none given; expected examples, or plain text (--text)"},
      {{"study", "--methods", "abc"}, "--methods holds \"abc\": \"abc\" is no attention kind"},
      {{"study", "--eval-tokens", "1"}, "--eval-tokens is 1; expected at least 2"},
      {{"study", "--length", "1"}, "--length is 1; expected at least 2"},
      {with(ppl, {"--lengths", "8,1"}), "--lengths is 1; expected at least 2"},
      {with(ppl, {"--max-tokens", "1"}), "--max-tokens is 1; expected at least 2, or 0 (all)"},
      {with(ppl, {"--lengths", "8", "--min-tokens", "99999999"}),
       "--min-tokens is 99999999; of 1 document none has as many"},
      {with(ppl, {"--protocol", "abc"}), "--protocol is \"abc\"; expected one of sliding, "},
      {with(passkey, {"--lengths", "7"}), "--lengths holds 7 (tokens): a passkey prompt of 7 tokens has no room"},
      {{"eval", "ruler", "--model", model(), "--tasks", "niah_single_1", "--lengths", "7"},
       "--lengths holds 7: niah_single_1: the shortest prompt takes "},
      {with(passkey, {"--key-most", "7"}), "--key-most is 7; expected at least --key-least, 10000"},
      {with(passkey, {"--digits", "0"}), "--digits is 0; expected at least 1"},
      {with(passkey, {"--new-tokens", "7"}), "--new-tokens is 7; expected 0, as rule exact"},
      {{"generate", "--model", model(), "--prompt", "x", "--chat-template", "chatml"},
       "--chat-template chatml: needs --chat"},
      {{"generate", "--model", model(), "--prompt", "x", "--stop", ""}, "--stop: a string is empty"},
      {with(ring, {"--kv-heads", "3"}), "--kv-heads is 3; expected a divisor of heads, 4, or 0"},
      {{"bench", "ring", "--lengths", "100", "--machines", "64"},
       "--lengths holds 100; expected at least 128, two chunks for each of 64 machines"},
      {{"bench", "decode", "--tokens", "0"}, "--tokens is 0; expected at least 1"},
      {with(tokens, {"--vocab-size", "7"}), "--vocab-size is 7; expected 260 to 1000000"},
      {with(tokens, {"--type", "word"}), "--type is \"word\"; expected bpe or unigram"},
  };
  for (const auto& [args, message] : cases) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 2) << message;
    EXPECT_THAT("\n" + o.err, HasSubstr("\ncoca: " + std::string(message)));
    EXPECT_FALSE(fs::exists(at("out"))) << message;
  }
}

TEST_F(Flags, MissingInputsAreNamedFirst) {
  const std::string none = at("none");
  for (const auto& [args, flag] : std::vector<std::pair<Args, std::string>>{
           {{"train", "--text", text(), "--validation-text", none, "--out", at("out")}, "--validation-text"},
           {{"study", "--text", text(), "--test-text", none, "--out", at("out")}, "--test-text"},
           {{"finetune", "--model", model(), "--data", none, "--out", at("out")}, "--data"},
           {{"finetune", "--model", none, "--text", text(), "--out", at("out")}, "--model"},
           {{"data", "build", "--text", text(), "--tokenizer", none, "--out", at("out")}, "--tokenizer"},
           {{"data", "import", "--dataset", none, "--tokenizer", "byte", "--out", at("out")}, "--dataset"},
           {{"init", "--model-config", none, "--out", at("out")}, "--model-config"},
           {{"data", "info", "--file", none}, "--file"}}) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 1) << flag;
    EXPECT_THAT(o.err, StartsWith("coca: " + flag + " " + none));
    EXPECT_FALSE(fs::exists(at("out"))) << flag;
  }
}

TEST_F(Flags, MissingValues) {
  expect_refused({"train", "--steps"}, "--steps: needs a value (INT)", "train --help");
  expect_refused(
      {"train", "--steps", "--batch", "3"},
      "--steps: needs a value (INT), but --batch follows, which is a flag; if that is the value, write --steps=--batch",
      "train --help");
  expect_refused({"train", "--text", "--resume"},
                 "--text: needs a value (PATH,...), but --resume follows, which is a flag; if that is the value, write "
                 "--text=--resume",
                 "train --help");
  expect_refused({"train", "--text", "a.txt", "b.txt"},
                 "\"b.txt\": give --text once for each value, or the values separated by commas; put a pattern of file "
                 "names in quotes",
                 "train --help");
  expect_refused({"train", "--out", "a", "text"}, "\"text\": coca train takes no argument here; did you mean --text?",
                 "train --help");
  expect_refused({"info", "a", "b"}, "\"b\": coca info takes no argument here", "info --help");
  expect_refused({"info", "--help=3"}, "--help=3: takes no value", "info --help");
}

TEST_F(Flags, AValueMayLookLikeAFlag) {
  for (const Args& prompt :
       {Args{"--prompt=--chat"}, Args{"--prompt", "--not-a-flag"}, Args{"--prompt", "-5"}, Args{"--prompt", "[a,b]"}}) {
    const Outcome o = coca(with({"generate", "--model", model(), "--max-new-tokens", "1", "--json", "-"}, prompt));
    ASSERT_EQ(o.code, 0) << o.err;
    const std::string wanted = prompt.back().substr(prompt.size() == 1 ? prompt.back().find('=') + 1 : 0);
    std::string seen;
    const nlohmann::json result = nlohmann::json::parse(o.out);
    for (const auto& id : result["prompt_ids"]) seen += static_cast<char>(id.get<int>());
    EXPECT_EQ(seen, wanted);
  }
  EXPECT_EQ(coca({"tokenizer", "encode", "--tokenizer", "byte", "--", "--abc"}).out, "45 45 97 98 99\n");
}

TEST_F(Flags, TheLastOfARepeatedFlagCountsWithANote) {
  const Outcome o = coca({"info", model(), "--length", "5", "--length", "7", "--json", "-"});
  EXPECT_EQ(o.err, "note: --length is given more than once; only the last, 7, counts\n");
  EXPECT_EQ(nlohmann::json::parse(o.out)["length"], 7);
  EXPECT_EQ(coca({"info", model(), "--length", "5", "--length", "5"}).err, "");
  EXPECT_EQ(coca({"tokenizer", "decode", "--tokenizer", "byte", "--ids", "97", "--ids", "98,99"}).out, "abc\n")
      << "lists add up";
}

TEST_F(Flags, TwoModelsForACommandThatTakesOneAreRefused) {
  for (const char* command : {"passkey", "stream", "ruler", "mlm"}) {
    const Outcome o = coca({"eval", command, "--model", model(), "--model", at("other")});
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_THAT(o.err,
                testing::AllOf(testing::HasSubstr("--model: given more than once (" + model() + ", " + at("other")),
                               testing::HasSubstr(fmt::format("`coca eval {}` takes one model", command))));
  }
}

TEST_F(Flags, BenchTablesSayAttentionAndNoSpreadOfOneRound) {
  const Outcome o = coca({"bench", "attention", "--lengths", "256", "--heads", "2", "--head-dim", "32", "--repeats",
                          "1", "--warmup", "0", "--csv", at("bench.csv")});  // long enough for a rate that is not 0.0 %
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, testing::AllOf(testing::HasSubstr("attention"), testing::Not(testing::HasSubstr("kind"))));
  EXPECT_THAT(o.out,
              testing::AllOf(testing::Not(testing::HasSubstr(" 0.0 %")), testing::HasSubstr("one round has none")));
  EXPECT_THAT(io::read_file(at("bench.csv")), testing::StartsWith("length,attention,pass,seconds,"));
  EXPECT_THAT(coca({"bench", "--help"}).out, testing::HasSubstr("ring"));
}

TEST_F(Flags, OldNamesWorkWithOneNote) {
  const Outcome built =
      coca({"data", "build", "--input", text(), "--tokenizer", "byte", "--output", at("a.tok"), "--input", text()});
  EXPECT_EQ(built.code, 0) << built.err;
  EXPECT_THAT(built.err,
              StartsWith("note: --input is deprecated: use --text\nnote: --output is deprecated: use --out\n"));
  EXPECT_TRUE(fs::exists(at("a.tok")));
  const Outcome info = coca({"tokenizer", "info", "--json", "--tokenizer", "byte"});
  EXPECT_EQ(info.err, "note: --json without a file is deprecated: use --json -\n");
  EXPECT_EQ(nlohmann::json::parse(info.out)["vocab_size"], 257);
  const Outcome init = coca({"init", "--config", put("shape.json", kShape), "--out", at("old")});
  EXPECT_EQ(init.code, 0) << init.err;
  EXPECT_THAT(init.err, HasSubstr("use --model-config"));
  const std::string config =
      put("old.json", R"({"kind": "rope", "lengths": 16, "heads": 1, "head_dim": 8, "repeats": 1, "warmup": 0})");
  const Outcome bench = coca({"bench", "attention", "--config", config, "--json", at("bench.json")});
  EXPECT_EQ(bench.code, 0) << bench.err;
  EXPECT_THAT(bench.err, StartsWith("note: " + config + ": \"kind\" is deprecated: use \"attention\"\n"));
  EXPECT_EQ(io::read_json(at("bench.json"))["options"]["attention"], nlohmann::json({"rope"}));
  EXPECT_THAT(
      coca({"bench", "attention", "--config", put("both.json", R"({"kind": "rope", "attention": "rope"})")}).err,
      HasSubstr("which is also given"));
}

TEST_F(Flags, EveryCommandTakesConfigAndOneKindOfJson) {
  const std::vector<Args> all = commands();
  EXPECT_GE(all.size(), 25u);
  std::set<std::string> names;
  for (const Args& command : all) {
    const std::string help = coca(with(command, {"--help"})).out, name = testing::PrintToString(command);
    EXPECT_THAT(help, HasSubstr("--config PATH")) << name;
    if (help.find("--json ") != std::string::npos) {
      EXPECT_THAT(help, HasSubstr("--json PATH")) << name;
    }
    for (const char* old : {"--input", "--output", "--kind", "--haystack"})
      EXPECT_THAT(help, Not(HasSubstr(std::string(old) + " "))) << name;
    names.insert(command.back());
  }
  EXPECT_TRUE(names.contains("convert") && names.contains("ruler") && names.contains("ring"));
}

// Options by name, as JSON and errors of the library have them; "none" would be read as a value.
TEST_F(Flags, HelpsNameFlagsAndDefaultsAndEndWithAnExample) {
  std::vector<Args> all = commands();
  for (const char* group : {"eval", "bench", "data", "tokenizer"}) all.push_back({group});
  for (const Args& command : all) {
    const std::string help = coca(with(command, {"--help"})).out, name = testing::PrintToString(command);
    EXPECT_THAT(help, ContainsRegex("\nExamples?:")) << name;
    EXPECT_THAT(help, Not(ContainsRegex("; none: "))) << name;
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("  --")) continue;
      std::string option = line.substr(4, line.find(' ', 4) - 4);
      if (option.find('-') == std::string::npos || option == "max-new-tokens") continue;  // also a field of a file
      std::ranges::replace(option, '-', '_');
      EXPECT_THAT(help, Not(HasSubstr(option))) << name;
    }
  }
}

TEST_F(Flags, MoreThreadsThanProcessorsAreNoted) {
  EXPECT_THAT(coca({"methods", "--threads", "4096"}).err, HasSubstr("note: --threads 4096: this process has "));
  EXPECT_EQ(coca({"methods", "--threads", "1"}).err, "");
}

// Every numeric option has a range that is checked before anything else.
TEST_F(Flags, EveryNumberHasARange) {
  const std::set<std::string> any_sign = {"--seed", "--seeds", "--shifts"}, any_size = {"--seed", "--seeds"};
  int flags = 0;
  for (const Args& command : commands()) {
    std::istringstream lines(coca(with(command, {"--help"})).out);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string flag, type;
      words >> flag >> type;
      const bool whole = type.starts_with("INT");
      if (!flag.starts_with("--") || (!whole && !type.starts_with("NUMBER"))) continue;
      ++flags;
      const auto expect_end = [&](const std::string& value, const std::string& end) {
        const Outcome o = coca(with(command, {flag + "=" + value}));
        EXPECT_EQ(o.code, 2) << testing::PrintToString(command) << flag;
        EXPECT_THAT(o.err, AllOf(StartsWith("coca: " + flag + " is "), ContainsRegex("; expected " + end + " ")))
            << testing::PrintToString(command);
      };
      const bool logarithm = flag == "--key-least" && !whole;  // of a probability
      if (!any_sign.contains(flag)) expect_end(logarithm ? "-1e300" : "-1", "(at least|more than)");
      if (!any_size.contains(flag)) expect_end(whole ? "9000000000000000000" : "1e300", "at most");
    }
  }
  EXPECT_GT(flags, 150);
  for (const Args& args : {Args{"train", "--rope-theta", "1e-300"}, Args{"train", "--adam-eps", "0"},
                           Args{"bench", "ring", "--gbit", "1e-300"}, Args{"study", "--factors", "2,0.5"}})
    EXPECT_THAT(coca(args).err, HasSubstr("; expected at least ")) << testing::PrintToString(args);
  EXPECT_THAT(coca({"train", "--config", put("eps.json", R"({"norm_eps": 1e300})")}).err,
              HasSubstr("\"norm_eps\" of " + at("eps.json") + " is 1e+300; expected at most 1"));
}

TEST_F(Flags, ALengthBeyondAllMemoryIsNamedByBench) {
  for (const Args& args : {Args{"attention", "--lengths", "16,2147483647"}, Args{"ring", "--lengths", "2147483647"},
                           Args{"train", "--length", "2147483647"}}) {
    Args all = args;
    all.insert(all.begin(), "bench");
    const Outcome o = coca(all);
    EXPECT_EQ(o.code, 2);
    EXPECT_THAT(o.err,
                testing::ContainsRegex("lengths? 2147483647 x .* need at least .* of memory: lower one of these\n$"))
        << args[0];
    EXPECT_EQ(o.out, "");
  }
  EXPECT_EQ(coca({"bench", "ring", "--heads", "0"}).code, 2);
}

TEST_F(Flags, ConfigFilesHoldSwitchesPositionalsAndSingleValues) {
  const std::string folder = model();
  const std::string config = put(
      "generate.json",
      fmt::format(
          R"({{"model": "{}", "prompt": "the", "max_new_tokens": 3, "ignore_eos": true, "echo": true, "stop": "never, seen"}})",
          folder));
  const Outcome generated = coca({"generate", "--config", config});
  EXPECT_EQ(generated.code, 0) << generated.err;
  EXPECT_THAT(generated.out, StartsWith("the"));
  EXPECT_THAT(coca({"generate", "--config", config, "--echo", "false"}).out, Not(StartsWith("the"))) << "a flag wins";
  EXPECT_THAT(
      coca({"info", "--config", put("info.json", fmt::format(R"({{"model": "{}", "length": 64}})", folder))}).out,
      HasSubstr("generating at 64 tokens"));
  const Outcome made = coca(
      {"convert", "--config",
       put("convert.json", fmt::format(R"({{"model": "{}", "out": "{}", "dtype": "bf16"}})", folder, at("made")))});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(fs::exists(at("made/model.safetensors")));
  const Outcome ppl =
      coca({"eval", "ppl", "--config",
            put("ppl.json", fmt::format(R"({{"model": "{}", "text": "{}", "lengths": 32, "by_document": true}})",
                                        folder, text()))});
  EXPECT_EQ(ppl.code, 0) << ppl.err;
  EXPECT_THAT(coca({"generate", "--config", put("wrong.json", R"({"chat": "yes"})")}).err, HasSubstr("true or false"));
}

TEST_F(Flags, JsonGoesToAFileOrToStandardOutputAlone) {
  const std::string folder = model();
  const std::vector<Args> all = {
      {"info", folder},
      {"info"},
      {"tokenizer", "info", "--tokenizer", "byte"},
      {"methods"},
      {"generate", "--model", folder, "--prompt", "the", "--max-new-tokens", "2"},
      {"eval", "ppl", "--model", folder, "--text", text(), "--lengths", "32"},
      {"bench", "attention", "--lengths", "16", "--heads", "1", "--head-dim", "8", "--repeats", "1", "--warmup", "0"}};
  for (const Args& args : all) {
    const std::string name = testing::PrintToString(args);
    for (const char* file : {"-", "/dev/stdout"}) {
      const Outcome printed = coca(with(args, {"--json", file}));
      ASSERT_EQ(printed.code, 0) << name << printed.err;
      EXPECT_TRUE(nlohmann::json::accept(printed.out)) << name << printed.out;
    }
    const Outcome written = coca(with(args, {"--json", at("out.json")}));
    ASSERT_EQ(written.code, 0) << name << written.err;
    EXPECT_FALSE(nlohmann::json::accept(written.out)) << name << "the text is printed beside it";
    EXPECT_TRUE(io::read_json(at("out.json")).is_structured()) << name;
    fs::remove(at("out.json"));
  }
}

TEST_F(Flags, HelpIsACommandToo) {
  EXPECT_EQ(coca({"help"}).out, coca({"--help"}).out);
  EXPECT_EQ(coca({"help", "train"}).out, coca({"train", "--help"}).out);
  EXPECT_EQ(coca({"help", "eval", "ppl"}).out, coca({"eval", "ppl", "--help"}).out);
  EXPECT_EQ(coca({"eval", "help", "ppl"}).out, coca({"eval", "ppl", "--help"}).out);
  EXPECT_EQ(coca({"help", "help"}).out, coca({"--help"}).out);
  EXPECT_THAT(coca({"help"}).out, HasSubstr("--threads INT  "));
  EXPECT_THAT(coca({"help", "train"}).out,
              HasSubstr("Every command also takes --device, --threads, --cpu-target and --force-impl"));
  EXPECT_THAT(coca({"tokenizer", "info", "byte"}).out, HasSubstr("byte-257"));
  EXPECT_THAT(coca({"help", "eval", "ppl"}).out, HasSubstr("Usage: coca eval ppl"));
  EXPECT_EQ(coca({"-V"}).out, coca({"--version"}).out);
  EXPECT_THAT(coca({"-V"}).out, StartsWith("coca 0."));
}

TEST_F(Flags, ErrorsNameAnOptionAsItWasGiven) {
  const auto error_of = [&](const Args& args) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 2) << o.err;
    return o.err;
  };
  const Args train = {"train", "--text", text(), "--out", at("run")};
  EXPECT_EQ(error_of(with(train, {"--steps", "-3"})), "coca: --steps is -3; expected at least 1\n");
  const std::string file = put("steps.json", R"({"steps": -3})");
  EXPECT_EQ(error_of(with(train, {"--config", file})), "coca: \"steps\" of " + file + " is -3; expected at least 1\n");
  EXPECT_THAT(error_of(with(train, {"--config", file, "--steps", "-4"})), StartsWith("coca: --steps is -4"));
  EXPECT_THAT(error_of({"generate", "--model", model(), "--prompt", "x", "--top-p", "2"}),
              StartsWith("coca: --top-p is 2; expected at most 1"));
  EXPECT_THAT(error_of({"study", "--text", text(), "--out", at("s"), "--steps", "-1"}), HasSubstr(": --steps is -1"));
}

// The minimum stated in a message is the one for this command.
TEST_F(Flags, TheMinimumIsThatOfTheCommand) {
  const auto refused = [&](const Args& args, const std::string& text) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_EQ(o.err, "coca: " + text + "\n");
  };
  const Args train = {"train", "--text", text(), "--out", at("run")},
             tune = {"finetune", "--model", model(), "--text", text(), "--out", at("tuned")};
  refused(with(train, {"--steps", "0"}), "--steps is 0; expected at least 1");
  refused(with(tune, {"--steps", "-3"}), "--steps is -3; expected at least 0");
  refused({"study", "--text", text(), "--out", at("s"), "--steps", "-3"}, "--steps is -3; expected at least 0");
  refused(with(train, {"--length", "-1"}), "--length is -1; expected at least 1");
  refused(with(tune, {"--length", "-1"}), "--length is -1; expected at least 0");
  refused(with(train, {"--learning-rate", "-1"}), "--learning-rate is -1; expected more than 0");
  refused(with(tune, {"--learning-rate", "-1"}), "--learning-rate is -1; expected at least 0");
  refused(with(tune, {"--epochs", "-1"}), "--epochs is -1; expected more than 0");
  refused({"eval", "ppl", "--model", model(), "--text", text(), "--lengths", "32,-1"},
          "--lengths is -1; expected at least 2");
  refused({"analyse", "--model", model(), "--text", text(), "--windows", "-1"}, "--windows is -1; expected at least 1");
  refused({"generate", "--model", model(), "--prompt", "x", "--top-p", "-1"}, "--top-p is -1; expected more than 0");
  refused({"bench", "attention", "--lengths", "-1"}, "--lengths is -1; expected at least 1");
}

TEST_F(Flags, ALengthGivenTwiceIsMeasuredOnce) {
  const Outcome o =
      coca({"eval", "ppl", "--model", model(), "--text", text(), "--lengths", "32,16,32", "--json", at("o.json")});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("note: --lengths: 32 is given more than once and counts once"));
  EXPECT_EQ(io::read_json(at("o.json"))["results"].size(), 2u);
}

TEST_F(Flags, HelpFitsTheWidth) {
  EXPECT_GT(widest({"train", "--help"}), 120u) << "in a file lines are as long as they are";
  for (const char* columns : {"80", "100", "132"}) {
    const Variable wide("COLUMNS", columns);
    EXPECT_LE(widest({"train", "--help"}), std::stoul(columns));
    EXPECT_LE(widest({"--help"}), std::stoul(columns));
    EXPECT_LE(widest({"bench", "ring", "--help"}), std::stoul(columns));
  }
}

TEST_F(Flags, TablesAndSentencesFitTheWidth) {
  const std::string text = put("text.txt", cats_and_dogs(200)), dir = model(), copy = at("copy");
  fs::copy(dir, copy, fs::copy_options::recursive);
  const std::vector<Args> printing = {
      {"eval", "ppl", "--model", dir, "--text", text, "--lengths", "32,64", "--by-document"},
      {"eval", "ppl", "--model", dir, "--model", copy, "--text", text, "--lengths", "32,64"},
      {"eval", "stream", "--model", dir, "--text", text, "--tokens", "300"},
      {"analyse", "--model", dir, "--text", text, "--windows", "1"},
      {"bench", "ring", "--lengths", "64", "--machines", "1,2", "--repeats", "1"},
      {"bench", "attention", "--attention", "coca-strict", "--against", "rope", "--lengths", "16", "--repeats", "1"},
      {"info"},
      {"methods", "--reasons"}};
  for (const Args& args : printing)
    EXPECT_GT(widest(args), 80u) << args[0] << ": in a file lines are as long as they are";
  for (const char* columns : {"60", "80", "100"}) {
    const Variable wide("COLUMNS", columns);
    for (const Args& refused : {Args{"zebra"}, Args{"train", "--text", text, "--attention", "abc"}})
      EXPECT_LE(longest_line(coca(refused).err), std::stoul(columns));
    for (const Args& args : printing) EXPECT_LE(widest(args), std::stoul(columns)) << args[0] << " " << args[1];
  }
  const Variable wide("COLUMNS", "60");
  EXPECT_THAT(coca(printing[0]).out, testing::ContainsRegex("[0-9] [KMG]iB\n")) << "a number keeps its unit";
}

TEST_F(Flags, OnlyTerminalsGetColoursByDefault) {
  EXPECT_THAT(coca({"--help"}).out, Not(HasSubstr("\x1b[")));
  EXPECT_THAT(coca({"trian"}).err, Not(HasSubstr("\x1b[")));
  const Variable force("CLICOLOR_FORCE", "1");
  EXPECT_THAT(coca({"--help"}).out, HasSubstr("\x1b[1mSubcommands:\x1b[0m"));
  EXPECT_THAT(coca({"trian"}).err, StartsWith("\x1b[1;31mcoca: \x1b[0mtrian: no such"));
  const Variable none("NO_COLOR", "1");
  EXPECT_THAT(coca({"--help"}).out, Not(HasSubstr("\x1b[")));
}

}  // namespace
}  // namespace coca::flags_test
