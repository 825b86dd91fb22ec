// coca eval from the command line: protocols and flags that override them, PG-19's layout, RULER's tasks.
// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cmath>
#include <cstring>
#include <sstream>
#include <thread>

#include "coca/base/count.h"
#include "coca/io/json_file.h"
#include "e2e/cli_fixture.h"

namespace coca::eval_test {
namespace {

using test::Args;
using test::Outcome;
using testing::HasSubstr;

// The model's logits are no longer finite.
void spoil(const std::string& model) {
  std::string bytes = io::read_file(model + "/model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto range = nlohmann::json::parse(bytes.substr(8, header)).at("embed_out.weight").at("data_offsets");
  const float huge = 3e38f;
  for (uint64_t i = range[0]; i < range[1]; i += sizeof huge)
    std::memcpy(bytes.data() + 8 + header + i, &huge, sizeof huge);
  io::write_file_atomic(model + "/model.safetensors", bytes);
}

class EvalCli : public test::CliFixture {
 protected:
  void SetUp() override {
    const Outcome made = coca({"train", "--text", put("train.txt", std::string(500, 'a')), "--out", at("run"),
                               "--layers", "1", "--width", "16", "--heads", "2", "--length", "16", "--batch", "1",
                               "--steps", "1", "--warmup-steps", "1"});
    ASSERT_EQ(made.code, 0) << made.err;
  }
  Outcome coca(Args args) {
    if (args[0] == "eval")
      args.insert(args.begin() + 2, {"--model", at("run/model"), "--json", at("out.json"), "--csv", at("out.csv")});
    return CliFixture::coca(args);
  }
  nlohmann::json result() const { return io::read_json(at("out.json")); }
};

TEST_F(EvalCli, FlagsWinOverTheProtocol) {
  std::string words;
  for (int i = 0; i < 300; ++i) words += "word ";  // 1500 bytes
  const std::string text = put("a.txt", words);
  Outcome o = coca({"eval", "ppl", "--text", text, "--protocol", "llama.cpp"});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("protocol: llama.cpp (stride the window, windows begins, scored second-half"));
  auto r = result();
  EXPECT_EQ(r["protocol"]["scored"], "second-half");
  EXPECT_EQ(r["results"][0]["windows"], 2);  // of 512 among 1501 tokens
  EXPECT_EQ(r["results"][0]["scored_tokens"], 2 * 255);
  EXPECT_EQ(r["results"][0]["run_tokens"], 2 * 512);
  o = coca({"eval", "ppl", "--text", text, "--protocol", "llama.cpp", "--lengths", "100", "--scored", "new", "--bos",
            "never"});
  ASSERT_EQ(o.code, 0) << o.err;
  r = result();
  EXPECT_EQ(r["protocol"]["join"], "joined");
  EXPECT_EQ(r["results"][0]["scored_tokens"], 15 * 99);
  EXPECT_EQ(r["results"][0]["words"], 15 * 20 - 15);  // a word whose first letter begins a window is not scored
  o = coca({"eval", "ppl", "--text", text, "--protocol", "yarm"});
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.err, HasSubstr("expected one of sliding, coca"));
  o = coca({"eval", "ppl", "--text", text, "--protocol", "coca"});
  EXPECT_THAT(o.err, HasSubstr("--min-tokens is 32768; of 1 document none has as many"));
}

TEST_F(EvalCli, AShortenedStrideIsReported) {
  const Args ppl = {"eval", "ppl", "--text", put("a.txt", cats_and_dogs(5))};
  EXPECT_THAT(coca(with(ppl, {"--lengths", "8,16,64", "--stride", "16"})).out,
              HasSubstr("stride: 7 at length 8, 15 at length 16, since a window holds no more tokens of the text; bos "
                        "takes one place\n"));
  EXPECT_THAT(coca(with(ppl, {"--lengths", "8", "--stride", "16", "--bos", "never"})).out,
              HasSubstr("stride: 8 at length 8, since a window holds no more tokens of the text\n"));
  EXPECT_THAT(coca(with(ppl, {"--lengths", "16", "--stride", "8"})).out, testing::Not(HasSubstr("stride: ")));
  EXPECT_THAT(coca({"eval", "passkey", "--lengths", "16"}).err,
              HasSubstr("--lengths holds 16 (tokens, of which bos is one): a passkey prompt of 15 tokens"));
  EXPECT_THAT(coca({"eval", "ruler", "--lengths", "16", "--tasks", "vt"}).err,
              HasSubstr(", and bos is one more; give greater lengths"));
}

TEST_F(EvalCli, Pg19FoldersAreReadAsPublished) {
  put("pg/metadata.csv", "7,Seven by A,1870,http://x/7\n9,Nine by B,1901,http://x/9\n");
  put("pg/train/1.txt", "not to be read");
  put("pg/test/7.txt", "one two three four");
  put("pg/test/9.txt", "five six\nseven");
  const Outcome o = coca({"eval", "ppl", "--text", at("pg"), "--lengths", "8", "--stride", "4", "--by-document", "true",
                          "--document-csv", at("documents.csv")});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("(split test)"));
  EXPECT_THAT(o.out, HasSubstr("Nine by B"));
  const auto r = result();
  ASSERT_EQ(r["documents"].size(), 2u);
  EXPECT_EQ(r["documents"][0]["title"], "Seven by A");
  EXPECT_EQ(r["documents"][1]["year"], 1901);
  EXPECT_EQ(r["documents"][1]["words"], 3);
  EXPECT_EQ(r["results"][0]["words"], 7);
  double nll = 0;
  for (const auto& d : r["documents"]) nll += d["nll"].get<double>() * d["scored_tokens"].get<double>();
  EXPECT_NEAR(r["results"][0]["word_perplexity"].get<double>() / std::exp(nll / 7), 1, 1e-9);
  EXPECT_EQ(lines("documents.csv"), 3);
  EXPECT_THAT(coca({"eval", "ppl", "--text", at("pg"), "--split", "validation"}).err, HasSubstr("pg/validation"));
}

// Two books with title pages, cut by hand and by --max-tokens. If --min-tokens exceeds --max-tokens, the program first
// keeps a longer excerpt.
TEST_F(EvalCli, MaxTokensTakesTheMiddleOfEachDocument) {
  std::string first(1001, 'a'), second(700, 'b');
  for (size_t i = 0; i < first.size(); ++i) first[i] = static_cast<char>('a' + i * i % 23);
  for (size_t i = 0; i < second.size(); ++i) second[i] = static_cast<char>('a' + i * i % 19);
  put("whole/1.txt", first);
  put("whole/2.txt", second);
  put("middle/1.txt", first.substr(450, 100));
  put("middle/2.txt", second.substr(300, 100));
  put("start/1.txt", first.substr(0, 100));
  put("start/2.txt", second.substr(0, 100));
  const auto nll = [&](const Args& flags) {
    const Outcome o = coca(with({"eval", "ppl", "--lengths", "32", "--stride", "16"}, flags));
    EXPECT_EQ(o.code, 0) << o.err;
    return result()["results"][0]["nll"].get<double>();
  };
  EXPECT_EQ(nll({"--text", at("whole"), "--max-tokens", "100"}), nll({"--text", at("middle")}));
  EXPECT_EQ(nll({"--text", at("whole"), "--max-tokens", "100", "--min-tokens", "601"}), nll({"--text", at("middle")}));
  EXPECT_EQ(nll({"--text", at("whole"), "--max-tokens", "100", "--cut", "start"}), nll({"--text", at("start")}));
  EXPECT_NE(nll({"--text", at("start")}), nll({"--text", at("middle")}));
  EXPECT_THAT(coca({"eval", "ppl", "--text", at("whole"), "--lengths", "32", "--max-tokens", "100"}).out,
              HasSubstr("; at most 100 of each, from its middle"));
}

TEST_F(EvalCli, BooksOfPg19sLayout) {
  COCA_SKIP_WITHOUT(test::books_dir());
  const Outcome o = coca({"eval", "ppl", "--text", test::books_dir().string(), "--lengths", "64", "--stride", "64",
                          "--max-tokens", "200", "--max-documents", "2"});
  ASSERT_EQ(o.code, 0) << o.err;
  const auto r = result();
  ASSERT_EQ(r["documents"].size(), 2u);
  for (const auto& d : r["documents"]) {
    EXPECT_FALSE(d["title"].get<std::string>().empty());
    EXPECT_LT(d["year"].get<int>(), 1919);
  }
}

TEST_F(EvalCli, PasskeyProtocolsAndTheirOverrides) {
  Outcome o = coca({"eval", "passkey", "--protocol", "landmark", "--lengths", "0,50", "--trials", "3"});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("protocol: landmark (lengths in characters, wording landmark, place random, keys "
                               "1..50000, 3 trials a cell)"));
  EXPECT_THAT(o.out, HasSubstr("rule first-number in 10 tokens"));
  EXPECT_THAT(o.out, HasSubstr("No key was found. No length lies within the trained 16 tokens"));
  EXPECT_THAT(o.out, HasSubstr("These passkeys were worded \"landmark\"; a model trained with --passkey-share knows "
                               "\"compact\""));
  auto r = result();
  EXPECT_EQ(r["protocol"]["new_tokens"], 10);
  ASSERT_EQ(r["cells"].size(), 2u);
  EXPECT_TRUE(r["cells"][1]["depth"].is_null() && r["cells"][1]["nll"].is_null());
  EXPECT_EQ(lines("out.csv"), 3);
  o = coca({"eval", "passkey", "--protocol", "coca", "--lengths", "400", "--trials", "2", "--depths", "0,1", "--rule",
            "exact", "--digits", "2"});
  ASSERT_EQ(o.code, 0) << o.err;
  r = result();
  EXPECT_EQ(r["protocol"]["wording"], "coca");
  EXPECT_EQ(r["protocol"]["place"], "depths");
  EXPECT_EQ(r["protocol"]["new_tokens"], 0);
  EXPECT_EQ(r["protocol"]["key_least"], 10);
  ASSERT_EQ(r["cells"].size(), 2u);
  EXPECT_TRUE(r["cells"][0]["nll"].is_number());
  const std::string tokens = r["cells"][1]["most_tokens"].dump();
  EXPECT_EQ(r["cells"][1]["least_tokens"].dump(), tokens);
  EXPECT_THAT(o.out, testing::ContainsRegex("400 +1 +" + tokens + " ")) << "one number is no range";
  EXPECT_THAT(o.out, testing::ContainsRegex("400 +all +" + tokens + " "));
  EXPECT_THAT(coca({"eval", "passkey", "--protocol", "posy"}).err, HasSubstr("expected one of ours, landmark"));
  EXPECT_THAT(coca({"eval", "passkey", "--rule", "contains", "--new-tokens", "0"}).err,
              HasSubstr("--new-tokens is 0; expected at least 1 with --rule contains"));
  EXPECT_THAT(coca({"eval", "passkey", "--digits", "3", "--key-least", "5"}).err, HasSubstr("give one of them"));
}

TEST_F(EvalCli, PasskeysAreThoseThatTheModelWasTaught) {
  const Args length = {"--trials", "1", "--depths", "0", "--lengths", "400"};
  ASSERT_EQ(CliFixture::coca({"train",
                              "--text",
                              put("train.txt", cats_and_dogs(20)),
                              "--out",
                              at("taught"),
                              "--layers",
                              "1",
                              "--width",
                              "16",
                              "--heads",
                              "2",
                              "--length",
                              "400",
                              "--batch",
                              "1",
                              "--steps",
                              "1",
                              "--warmup-steps",
                              "1",
                              "--passkey-share",
                              "0.5",
                              "--passkey-wording",
                              "coca",
                              "--passkey-digits",
                              "3"})
                .code,
            0);
  ASSERT_EQ(CliFixture::coca({"finetune", "--model", at("taught/model"), "--text", at("train.txt"), "--steps", "1",
                              "--length", "32", "--out", at("tuned")})
                .code,
            0);
  const auto asked = [&](const std::string& model, const Args& more, bool said) {
    const Outcome o =
        CliFixture::coca(with(with({"eval", "passkey", "--model", at(model), "--json", at("out.json")}, length), more));
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(o.out.find("those that the model was taught") != std::string::npos, said) << o.out;
    const auto protocol = result()["protocol"];
    return std::pair(protocol["wording"].get<std::string>(), protocol["key_most"].get<int64_t>());
  };
  const std::pair<std::string, int64_t> taught = {"coca", 999}, ours = {"landmark", 99999};
  for (const char* model : {"taught/model", "taught/checkpoints/step-00000001", "tuned/model"})
    EXPECT_EQ(asked(model, {}, true), taught) << model;
  EXPECT_EQ(asked("run/model", {}, false), ours);
  EXPECT_EQ(asked("taught/model", {"--wording", "compact"}, false), (std::pair<std::string, int64_t>{"compact", 999}));
  EXPECT_EQ(asked("taught/model", {"--digits", "5"}, false), (std::pair<std::string, int64_t>{"coca", 99999}));
  EXPECT_EQ(asked("taught/model", {"--protocol", "landmark"}, false).first, "landmark");
  put("taught/model/passkey.json", R"({"wording": "coca", "digits": 30})");
  const Outcome damaged = CliFixture::coca({"eval", "passkey", "--model", at("taught/model")});
  EXPECT_EQ(damaged.code, 1);
  EXPECT_THAT(damaged.err, HasSubstr("taught/model/passkey.json: digits is 30; expected 1 to 18"));
}

TEST_F(EvalCli, SeveralModels) {
  std::filesystem::create_directories(at("other"));
  std::filesystem::copy(at("run/model"), at("other/model"), std::filesystem::copy_options::recursive);
  const std::string text = put("a.txt", cats_and_dogs(20));
  const Args both = {
      "eval",  "ppl",          "--model",        at("run/model"),    "--model", at("other/model"), "--text",
      text,    "--lengths",    "16,32",          "--stride",         "8",       "--json",          at("both.json"),
      "--csv", at("both.csv"), "--document-csv", at("documents.csv")};
  Outcome o = CliFixture::coca(both);
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, testing::ContainsRegex("other +32"));
  const auto r = io::read_json(at("both.json"));
  ASSERT_EQ(r["models"].size(), 2u);
  EXPECT_EQ(r["models"][1]["model"], at("other/model"));
  EXPECT_EQ(r["models"][1]["trained_length"], 16);
  ASSERT_EQ(r["results"].size(), 4u);
  EXPECT_EQ(r["results"][0]["model"], at("run/model"));
  EXPECT_EQ(r["results"][2]["model"], at("other/model"));
  EXPECT_EQ(r["results"][1]["nll"], r["results"][3]["nll"]);  // the same weights
  EXPECT_EQ(r["documents"][3]["model"], at("other/model"));
  EXPECT_EQ(lines("both.csv"), 5);
  EXPECT_TRUE(io::read_file(at("both.csv")).starts_with("model,adapter,rope_scaling,pattern,length,"));
  EXPECT_EQ(lines("documents.csv"), 5);
  // A single model keeps its usual format.
  ASSERT_EQ(coca({"eval", "ppl", "--text", text, "--lengths", "16"}).code, 0);
  EXPECT_EQ(result()["model"], at("run/model"));
  const nlohmann::json options = result()["options"];
  EXPECT_EQ(options["model"], at("run/model"));
  EXPECT_TRUE(options["adapter"].is_null() && options["factor"].is_null()) << "both were not given";
  for (const auto& item : options.items()) EXPECT_NE(item.value(), nlohmann::json("")) << item.key();
  EXPECT_EQ(coca({"eval", "ppl", "--config", put("again.json", options.dump())}).code, 0) << "null reads back";
  EXPECT_FALSE(result().contains("models") || result()["results"][0].contains("model"));
  // If the second model fails, the results of the first are kept.
  const std::string weights = at("other/model/model.safetensors"), sound = io::read_file(weights);
  std::string bytes = sound;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + bytes.size() - sizeof nan, &nan, sizeof nan);
  io::write_file_atomic(weights, bytes);
  o = CliFixture::coca(both);
  EXPECT_NE(o.code, 0);
  EXPECT_THAT(o.err, HasSubstr("other/model"));
  EXPECT_THAT(o.out, HasSubstr("partial: missing length 16 of " + at("other/model")));
  const auto kept = io::read_json(at("both.json"));
  EXPECT_EQ(kept["partial"], true);
  EXPECT_EQ(kept["missing"].size(), 2u);
  ASSERT_EQ(kept["results"].size(), 2u);
  EXPECT_EQ(kept["results"][1]["nll"], r["results"][1]["nll"]);
  EXPECT_EQ(lines("documents.csv"), 3);
  EXPECT_THAT(io::read_file(at("documents.csv")), HasSubstr("partial"));
  // Errors that can be found without running a model are reported before any work: here an adapter or file that does
  // not fit the second model.
  io::write_file_atomic(weights, sound);
  ASSERT_EQ(CliFixture::coca({"finetune", "--model", at("run/model"), "--text", text, "--length", "16", "--lora-rank",
                              "2", "--steps", "1", "--out", at("lora")})
                .code,
            0);
  ASSERT_EQ(CliFixture::coca({"train", "--text", text, "--out", at("wide"), "--layers", "1", "--width", "32", "--heads",
                              "2", "--length", "16", "--batch", "1", "--steps", "1", "--warmup-steps", "1"})
                .code,
            0);
  for (const Args& more : {Args{}, Args{"--dry-run"}}) {
    o = CliFixture::coca(with({"eval", "ppl", "--model", at("run/model"), "--model", at("wide/model"), "--adapter",
                               at("lora/adapter"), "--text", text, "--json", at("none.json")},
                              more));
    EXPECT_NE(o.code, 0);
    EXPECT_THAT(o.err, AllOf(HasSubstr("coca: " + at("wide/model") + ": "), HasSubstr("lora/adapter")));
    EXPECT_EQ(o.out, "");
  }
  std::filesystem::resize_file(weights, 100);
  o = CliFixture::coca(with(both, {"--json", at("none.json")}));
  EXPECT_THAT(o.err, testing::StartsWith("coca: " + at("other/model") + ": "));
  EXPECT_EQ(o.out, "");
  EXPECT_THAT(CliFixture::coca({"eval", "ppl", "--model", at("run/model"), "--model", at("nowhere"), "--text", text,
                                "--json", at("none.json")})
                  .err,
              HasSubstr("nowhere"));
  EXPECT_FALSE(std::filesystem::exists(at("none.json")));
}

// The model was trained on 16 tokens. No passkey prompt is so short, so its lengths begin at a later doubling.
TEST_F(EvalCli, LengthsFollowTheTrainedLength) {
  const std::string text = put("a.txt", cats_and_dogs(20));
  ASSERT_EQ(coca({"eval", "ppl", "--text", text}).code, 0);
  EXPECT_EQ(result()["protocol"]["lengths"], (nlohmann::json{16, 32, 64, 128}));
  ASSERT_EQ(coca({"eval", "ppl", "--text", text, "--protocol", "alibi"}).code, 0);
  EXPECT_EQ(result()["protocol"]["lengths"], (nlohmann::json{512, 1024, 2048, 4096})) << "a published protocol's own";
  ASSERT_EQ(CliFixture::coca({"train", "--text", text, "--out", at("longer"), "--layers", "1", "--width", "16",
                              "--heads", "2", "--length", "24", "--batch", "1", "--steps", "1", "--warmup-steps", "1"})
                .code,
            0);
  ASSERT_EQ(coca({"eval", "ppl", "--text", text, "--model", at("longer/model")}).code, 0);
  EXPECT_EQ(result()["protocol"]["lengths"], (nlohmann::json{16, 32, 64, 128})) << "of the shortest";
  const auto expect_doublings = [&](const Args& args, const nlohmann::json& lengths) {
    const int64_t first = lengths.at(0);
    EXPECT_GT(first, 16);
    EXPECT_EQ(first & (first - 1), 0) << first;
    EXPECT_EQ(lengths, (nlohmann::json{first, 2 * first, 4 * first, 8 * first}));
    EXPECT_EQ(coca(with(args, {"--lengths", std::to_string(first / 2)})).code, 2) << "no prompt fits";
  };
  const Args passkey = {"eval", "passkey", "--trials", "1", "--depths", "0", "--wording", "compact"},
             ruler = {"eval", "ruler", "--samples", "1", "--tasks", "niah_single_1"};
  ASSERT_EQ(coca(passkey).code, 0);
  expect_doublings(passkey, result()["protocol"]["lengths"]);
  ASSERT_EQ(coca(ruler).code, 0);
  expect_doublings(ruler, result()["options"]["lengths"]);
  EXPECT_THAT(coca({"eval", "ruler", "--tasks", "niah_single_2"}).err, HasSubstr("--tasks holds niah_single_2"));
}

// The same columns for one model as for several.
TEST_F(EvalCli, EveryCsvRowSaysWhatWasMeasured) {
  const std::string text = put("a.txt", cats_and_dogs(20)), model = at("run/model"), adapter = at("lora/adapter"),
                    masked = at("masked/model");
  ASSERT_EQ(CliFixture::coca({"finetune", "--model", model, "--text", text, "--length", "16", "--lora-rank", "2",
                              "--steps", "1", "--out", at("lora")})
                .code,
            0);
  ASSERT_EQ(
      CliFixture::coca({"train", "--text",         text, "--out",       at("masked"),   "--layers", "1", "--width",
                        "16",    "--heads",        "2",  "--length",    "16",           "--batch",  "1", "--steps",
                        "1",     "--warmup-steps", "1",  "--direction", "bidirectional"})
          .code,
      0);
  const Args ppl = {"eval", "ppl", "--model", model, "--text", text, "--lengths", "16,32"};
  const std::string none = ",,none,full,", streaming = ",,none,\"streaming-llm, window 12, 4 sinks\",";
  const std::vector<std::pair<Args, std::string>> cases = {
      {ppl, model + none},
      {with(ppl, {"--adapter", adapter, "--rope-scaling", "dynamic", "--factor", "2"}),
       model + "," + adapter + ",dynamic x2,full,"},
      {with(ppl, {"--model", model}), model + none},
      {{"eval", "stream", "--model", model, "--text", text, "--tokens", "50", "--pattern", "streaming-llm", "--sinks",
        "4", "--window", "12"},
       model + streaming},
      {{"eval", "passkey", "--model", model, "--lengths", "400", "--trials", "1", "--depths", "0"}, model + none},
      {{"eval", "ruler", "--model", model, "--lengths", "700", "--samples", "1", "--tasks", "niah_single_1"},
       model + none},
      {{"eval", "mlm", "--model", masked, "--text", text, "--lengths", "16"}, masked + none},
      {{"analyse", "--model", model, "--text", text, "--windows", "1"}, model + none}};
  for (const auto& [args, of] : cases) {
    const Outcome o = CliFixture::coca(with(args, {"--csv", at("rows.csv")}));
    ASSERT_EQ(o.code, 0) << o.err;
    std::istringstream csv(io::read_file(at("rows.csv")));
    std::string line;
    std::getline(csv, line);
    EXPECT_THAT(line, testing::StartsWith("model,adapter,rope_scaling,pattern,")) << args[1];
    int rows = 0;
    for (; std::getline(csv, line); ++rows) EXPECT_THAT(line, testing::StartsWith(of)) << args[1];
    EXPECT_GT(rows, 0);
  }
  ASSERT_EQ(CliFixture::coca(with(ppl, {"--document-csv", at("rows.csv")})).code, 0);
  EXPECT_THAT(io::read_file(at("rows.csv")),
              testing::StartsWith("model,adapter,rope_scaling,pattern,length,document,"));
}

// More prompts than can be run. Each attempt is stopped later, until some prompts are done.
TEST_F(EvalCli, TermKeepsFinishedTrials) {
  Outcome o;
  for (int milliseconds = 250; !std::filesystem::exists(at("out.json")); milliseconds *= 2) {
    ASSERT_LT(milliseconds, 300000) << o.err;
    test::Program program(
        dir_.path(), {"eval", "passkey", "--model", at("run/model"), "--lengths", "100", "--trials", "5000", "--depths",
                      "0.5", "--wording", "compact", "--json", at("out.json"), "--csv", at("out.csv")});
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    program.terminate();
    o = program.wait();
    ASSERT_TRUE(o.code == 130 || o.code == 1000 + SIGTERM)
        << o.code << o.err;  // SIGTERM: stopped before the program watches for signals
  }
  EXPECT_EQ(o.code, 130);
  const auto r = result();
  EXPECT_EQ(r["partial"], true);
  const int64_t done = r["cells"][0]["trials"];
  EXPECT_GT(done, 0);
  EXPECT_LT(done, 5000);
  EXPECT_THAT(r["missing"][0].get<std::string>(),
              HasSubstr(fmt::format("{} of 5,000 trials of length 100", grouped(5000 - done))));
  EXPECT_THAT(r["ended_by"].get<std::string>(), HasSubstr("stopped at length 100"));
  EXPECT_THAT(o.out, HasSubstr("partial: missing "));
  EXPECT_THAT(o.err, HasSubstr("stopped at length 100"));
  EXPECT_THAT(o.out, testing::Not(HasSubstr("stopped"))) << "said once";
  EXPECT_THAT(io::read_file(at("out.csv")), HasSubstr("partial"));
}

// If stopped within its first length, the perplexity covers the windows done so far and is marked as partial.
TEST_F(EvalCli, TermKeepsTheWindowsOfAnUnfinishedLength) {
  const std::string text = put("long.txt", cats_and_dogs(20000));
  ASSERT_EQ(coca({"train",   "--text",      put("a.txt", cats_and_dogs(5)),
                  "--out",   at("masked"),  "--layers",
                  "1",       "--width",     "16",
                  "--heads", "2",           "--length",
                  "16",      "--batch",     "1",
                  "--steps", "1",           "--warmup-steps",
                  "1",       "--direction", "bidirectional"})
                .code,
            0);
  for (const Args& task : {Args{"eval", "ppl", "--model", at("run/model"), "--stride", "1"},
                           {"eval", "mlm", "--model", at("masked/model"), "--batch-tokens", "12"}}) {
    Outcome o;
    std::filesystem::remove(at("out.json"));
    for (int milliseconds = 250; !std::filesystem::exists(at("out.json")); milliseconds *= 2) {
      ASSERT_LT(milliseconds, 300000) << o.err;
      test::Program program(dir_.path(), with(task, {"--text", text, "--lengths", "12,64", "--json", at("out.json"),
                                                     "--csv", at("out.csv")}));
      std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
      program.terminate();
      o = program.wait();
      ASSERT_TRUE(o.code == 130 || o.code == 1000 + SIGTERM) << o.code << o.err;
    }
    const auto r = result();
    ASSERT_EQ(r["results"].size(), 1u) << task[1];
    const int64_t done = r["results"][0]["windows"], planned = r["results"][0]["planned_windows"];
    EXPECT_GT(done, 0);
    EXPECT_LT(done, planned);
    EXPECT_EQ(r["missing"],
              (nlohmann::json{fmt::format("{} of {} windows of length 12", grouped(planned - done), grouped(planned)),
                              "length 64"}));
    EXPECT_THAT(o.out, HasSubstr("12 (partial)"));
    EXPECT_THAT(o.out, testing::Not(HasSubstr("exceed the trained length"))) << "64 was not run";
    EXPECT_THAT(io::read_file(at("out.csv")), HasSubstr("partial"));
  }
}

// No interval is given for a few windows, or for one window and a tail.
TEST_F(EvalCli, TooFewWindowsHaveNoInterval) {
  const auto row = [&](int64_t tokens) {
    const Outcome o = coca({"eval", "ppl", "--text", put("a.txt", cats_and_dogs(20)), "--lengths", "16", "--stride",
                            "16", "--max-tokens", std::to_string(tokens)});
    EXPECT_EQ(o.code, 0) << o.err;
    return o.out;
  };
  EXPECT_THAT(row(161), testing::ContainsRegex("16 +15 +11 +161 +[0-9.]+ +[0-9.]+ +[0-9.]+ "));
  EXPECT_THAT(row(161), testing::Not(HasSubstr("left out")));
  const std::string few = row(16);
  EXPECT_THAT(few, testing::ContainsRegex("16 +15 +2 +16 +[0-9.]+ +- +[0-9.]+ "));
  EXPECT_THAT(few, HasSubstr("left out where there are fewer than 10"));
  EXPECT_THAT(few, HasSubstr("at length 16 they score from 1 to 15 tokens"));
}

TEST_F(EvalCli, StreamsThroughTheForgettingCache) {
  put("a/1.txt", cats_and_dogs(40));
  put("a/2.txt", cats_and_dogs(40));
  Outcome o = coca({"eval", "stream", "--text", at("a"), "--tokens", "3000", "--interval", "500", "--pattern",
                    "streaming-llm", "--sinks", "4", "--window", "12"});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("stream: 2 documents, 3,000 tokens scored"));
  EXPECT_THAT(o.out, testing::Not(HasSubstr("note")));
  EXPECT_THAT(o.out, HasSubstr("the window of 12; with 128 tokens run together these are at most 650."));
  auto r = result();
  ASSERT_EQ(r["points"].size(), 6u);
  for (const auto& point : r["points"]) EXPECT_LE(point["cache_tokens"].get<int64_t>(), 650);
  EXPECT_EQ(r["points"][5]["tokens"], 3000);
  EXPECT_EQ(r["points"][5]["cache_bytes"], r["points"][1]["cache_bytes"]);
  EXPECT_EQ(lines("out.csv"), 7);
  o = coca({"eval", "stream", "--text", at("a"), "--pattern", "lm-infinite", "--middle-top-k", "2",
            "--middle-from-layer", "0"});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("the 2 best keys of the middle from layer 0 on"));
  EXPECT_THAT(o.out, HasSubstr("nothing is forgotten"));
  EXPECT_THAT(o.out, HasSubstr("the text ends before 1,000,000 tokens"));
  EXPECT_THAT(coca({"eval", "stream", "--text", at("a"), "--pattern", "streaming-llm", "--middle-top-k", "2"}).err,
              HasSubstr("--middle-top-k 2: --pattern streaming-llm has none"));
}

TEST_F(EvalCli, RulerByTaskAndLength) {
  const Outcome o = coca({"eval", "ruler", "--tasks", "fwe,niah_multivalue", "--lengths", "1100,1200", "--samples", "2",
                          "--predictions", at("pred.jsonl")});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("niah_multivalue"));
  EXPECT_THAT(o.out, HasSubstr("effective length"));
  const auto r = result();
  ASSERT_EQ(r["cells"].size(), 4u);
  EXPECT_EQ(r["cells"][1]["task"], "fwe");
  EXPECT_EQ(r["cells"][1]["length"], 1200);
  EXPECT_LE(r["cells"][1]["most_tokens"], 1200 - 50);
  EXPECT_EQ(lines("out.csv"), 5);
  EXPECT_EQ(lines("pred.jsonl"), 8);
  std::istringstream predictions(io::read_file(at("pred.jsonl")));
  std::string line;
  for (int i = 0; std::getline(predictions, line); ++i) {  // in the order of the cells, though the tasks take turns
    const auto sample = nlohmann::json::parse(line);
    EXPECT_EQ(sample["task"], i < 4 ? "fwe" : "niah_multivalue");
    EXPECT_EQ(sample["length"], i % 4 < 2 ? 1100 : 1200);
    EXPECT_EQ(sample["index"], i % 2);
  }
  EXPECT_THAT(o.out, HasSubstr("No answer was found. No length lies within the trained 16 tokens"));
  EXPECT_THAT(coca({"eval", "ruler", "--tasks", "qa_1"}).err,
              HasSubstr("\"qa_1\" asks questions about SQuAD and HotpotQA, which coca does not have"));
}

// 2^32 and more: refused by the flag, or limited to what the text has.
TEST_F(EvalCli, HugeCountsAreRefusedAtOnce) {
  const std::string text = put("a.txt", cats_and_dogs(3)), most = "2147483647", tokens = "1099511627776";
  EXPECT_THAT(coca({"eval", "passkey", "--trials", "4294967296"}).err,
              HasSubstr("--trials is 4294967296; expected at most 1000000"));
  EXPECT_THAT(coca({"eval", "ruler", "--samples", "4294967296"}).err,
              HasSubstr("--samples is 4294967296; expected at most 1000000"));
  for (const char* task : {"passkey", "ruler", "ppl"})
    EXPECT_THAT(coca({"eval", task, "--lengths", "1100,4611686018427387904"}).err,
                HasSubstr("--lengths is 4611686018427387904; expected at most " + most));
  EXPECT_EQ(coca({"eval", "ppl", "--text", text, "--lengths", most, "--stride", most, "--max-tokens", tokens,
                  "--max-documents", most})
                .code,
            0);
  EXPECT_EQ(coca({"eval", "stream", "--text", text, "--tokens", tokens, "--chunk", most, "--interval", most}).code, 0);
}

// Finite weights that produce infinite logits.
TEST_F(EvalCli, APerplexityThatIsNotFiniteIsWrittenAndFails) {
  const std::string text = put("a.txt", cats_and_dogs(5)), masked = at("masked/model");
  ASSERT_EQ(coca({"train", "--text",         text, "--out",       at("masked"),   "--layers", "1", "--width",
                  "16",    "--heads",        "2",  "--length",    "16",           "--batch",  "1", "--steps",
                  "1",     "--warmup-steps", "1",  "--direction", "bidirectional"})
                .code,
            0);
  const Args ppl = {"eval", "ppl", "--text", text, "--lengths", "8,16"},
             stream = {"eval", "stream", "--text", text, "--tokens", "100"};
  const Args mlm = {"eval", "mlm", "--text", text, "--lengths", "16", "--model", masked};
  const auto run = [&](const Args& args) {
    return args == mlm ? CliFixture::coca(with(args, {"--json", at("out.json")})) : coca(args);
  };
  for (const Args& args : {ppl, stream, mlm}) ASSERT_EQ(run(args).code, 0) << args[1];
  spoil(at("run/model"));
  spoil(masked);
  const auto expect_fails = [&](const Args& args, const std::string& where) {
    std::filesystem::remove(at("out.json"));
    const Outcome o = run(args);
    EXPECT_EQ(o.code, 1) << where;
    EXPECT_THAT(o.err, testing::ContainsRegex("warning: the perplexity is (nan|inf) at " + where +
                                              ": the model cannot be measured there\n"));
    EXPECT_FALSE(result().empty());
  };
  expect_fails(ppl, "length 8, (nan|inf) at length 16");
  EXPECT_EQ(result()["results"].size(), 2u);
  expect_fails(stream, "100 tokens");
  expect_fails(mlm, "length 16");
}

// Zeros would say that the model has not learned the task.
TEST_F(EvalCli, RetrievalByAModelWhoseNumbersAreNotFiniteFails) {
  spoil(at("run/model"));
  const auto expect_fails = [&](const Args& args, const std::string& length) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 1) << args[1];
    EXPECT_THAT(o.err, HasSubstr("warning: the model's numbers are not finite at length " + length +
                                 ": the model cannot be measured there\n"));
    EXPECT_THAT(o.out, testing::AllOf(HasSubstr("nan"), testing::Not(HasSubstr("was found"))));
    return result();
  };
  const nlohmann::json passkey =
      expect_fails({"eval", "passkey", "--lengths", "400", "--depths", "0.5", "--trials", "2"}, "400");
  for (const char* key : {"accuracy", "accuracy_low", "accuracy_high", "digit_accuracy", "nll"})
    EXPECT_EQ(passkey.at("totals")[0].at(key), "nan") << key;
  const nlohmann::json ruler =
      expect_fails({"eval", "ruler", "--tasks", "niah_single_1", "--lengths", "700", "--samples", "1"}, "700");
  for (const char* key : {"score", "score_low", "score_high"}) EXPECT_EQ(ruler.at("cells")[0].at(key), "nan") << key;
  EXPECT_TRUE(ruler.at("averages")[0].is_null());
  EXPECT_TRUE(ruler.at("effective_length").is_null());
  const Outcome generated = CliFixture::coca({"generate", "--model", at("run/model"), "--prompt", "a"});
  EXPECT_EQ(generated.code, 1);
  EXPECT_THAT(generated.err,
              testing::ContainsRegex(at("run/model") + ": the logit of token [0-9]+ is -?(nan|inf): the "
                                                       "model's numbers are not finite, so no token can be chosen"));
}

}  // namespace
}  // namespace coca::eval_test
