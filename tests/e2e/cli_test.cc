// The program from outside: help, messages and exit codes; train, evaluate, generate. Runs that stop and
// continue are in runs_test.cc.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "coca/io/json_file.h"
#include "coca/train/config.h"
#include "coca/train/metrics.h"
#include "e2e/cli_fixture.h"

namespace coca::cli_test {
namespace {

namespace fs = std::filesystem;
using test::Args;
using test::Outcome;
using testing::HasSubstr;

using Cli = test::CliFixture;

// The names listed under "Subcommands:" in a help text.
Args subcommands_of(const std::string& help) {
  Args names;
  std::istringstream lines(help);
  bool listed = false;
  for (std::string line; std::getline(lines, line);) {
    if (listed && line.size() > 2 && line[0] == ' ' && line[2] != ' ')
      names.push_back(line.substr(2, line.find(' ', 2) - 2));
    if (line.find("Subcommands:") == 0) listed = true;
  }
  return names;
}

TEST_F(Cli, EveryCommandHasHelp) {
  int seen = 0;
  const std::function<void(Args)> walk = [&](Args command) {
    Args args = command;
    args.push_back("--help");
    const Outcome o = coca(args);
    const std::string name = testing::PrintToString(command);
    EXPECT_EQ(o.code, 0) << name << o.err;
    EXPECT_EQ(o.err, "") << name;
    EXPECT_THAT(o.out, HasSubstr("Usage: coca")) << name;
    EXPECT_THAT(o.out, HasSubstr("--help")) << name;
    ++seen;
    for (const std::string& sub : subcommands_of(o.out)) {
      Args next = command;
      next.push_back(sub);
      walk(next);
    }
  };
  walk({});
  EXPECT_GE(seen, 9);
  const Args commands = subcommands_of(coca({"--help"}).out);
  for (const char* name :
       {"init", "train", "eval", "analyse", "generate", "verify", "study", "data", "tokenizer", "info", "bench"})
    EXPECT_THAT(commands, testing::Contains(name));
  EXPECT_THAT(coca({"--version"}).out, testing::StartsWith("coca 0."));
}

TEST_F(Cli, TrainHelpNamesEveryOption) {
  const std::string help = coca({"train", "--help"}).out;
  train::TrainConfig config;
  io::detail::OptionNames names;
  config.visit(names);
  for (std::string flag : names.names) {
    std::ranges::replace(flag, '_', '-');
    EXPECT_THAT(help, HasSubstr("--" + flag + " "));
  }
  EXPECT_THAT(help, HasSubstr("--resume"));
  EXPECT_THAT(help, HasSubstr("--config"));
}

TEST_F(Cli, WrongUseIsRefusedInOneLine) {
  expect_refused({}, 2, "coca needs a command: one of study, ");
  expect_refused({"train"}, 2, "--text");
  expect_refused(tiny_train("a", {"--steps", "many"}), 2, "--steps: \"many\" is not an integer");
  expect_refused(tiny_train("a", {"--steps", "3.5"}), 2, "--steps: \"3.5\" is not an integer");
  expect_refused(tiny_train("a", {"--learning-rate", "fast"}), 2, "--learning-rate: \"fast\"");
  expect_refused(tiny_train("a", {"--learning-rate", "-1"}), 2, "--learning-rate is -1");
  expect_refused(tiny_train("a", {"--attention", "linear"}), 2,
                 "--attention: \"linear\" is unknown; expected one of rope, xpos");
  expect_refused(tiny_train("a", {"--width", "33"}), 2, "--width 33 is not a multiple of --heads 2");
  expect_refused({"--threads", "0", "info"}, 2, "--threads");
  EXPECT_FALSE(fs::exists(at("a") + "/checkpoints"));
}

TEST_F(Cli, BenchWritesJsonAndCsv) {
  const Args quick = {"--repeats", "2", "--warmup", "0", "--json", at("b.json"), "--csv", at("b.csv")};
  const Args model = {"--preset", "0.86m", "--layers",     "1",  "--width",   "16",
                      "--heads",  "2",     "--vocab-size", "31", "--against", "rope"};
  const auto check = [&](Args args, const Args& more, size_t results, const Args& fields) {
    args.insert(args.end(), more.begin(), more.end());
    args.insert(args.end(), quick.begin(), quick.end());
    const Outcome o = coca(args);
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_THAT(o.out, HasSubstr("coca-slack"));
    EXPECT_THAT(o.out, HasSubstr("x rope"));
    const auto json = io::read_json(at("b.json"));
    EXPECT_EQ(json["bench"], args[1]);
    for (const char* key : {"version", "build_type", "compiler", "cpu", "cpu_target"})
      EXPECT_NE(json["machine"][key], "") << key;
    EXPECT_EQ(json["machine"]["threads"], 1);
    EXPECT_EQ(json["options"]["against"], "rope");
    ASSERT_EQ(json["results"].size(), results);
    for (const std::string& field : fields) EXPECT_TRUE(json["results"][0][field].is_number()) << field;
    std::ifstream csv(at("b.csv"));
    std::string header;
    std::getline(csv, header);
    for (const std::string& field : fields) EXPECT_THAT("," + header, HasSubstr("," + field));
  };
  check({"bench", "attention", "--against", "rope", "--lengths", "16,24", "--heads", "2", "--head-dim", "8"}, {}, 12,
        {"length", "seconds", "seconds_low", "gflops", "matrix_gflops", "share_of_matrix_rate", "tokens_per_second",
         "ratio"});
  check({"bench", "train", "--length", "8", "--batch", "2"}, model, 2,
        {"seconds", "tokens_per_second", "share_of_matrix_rate", "state_bytes", "activation_bytes", "ratio"});
  check({"bench", "eval", "--lengths", "8"}, model, 2, {"length", "tokens_per_second", "peak_resident_bytes", "ratio"});
  check({"bench", "decode", "--lengths", "8", "--tokens", "2"}, model, 2,
        {"length", "tokens_per_second", "cache_bytes_per_token", "gbytes_per_second", "ratio"});
}

TEST_F(Cli, BenchRefusesInOneLine) {
  const Args attention = {"bench", "attention", "--lengths", "16", "--repeats", "1", "--warmup", "0"};
  EXPECT_THAT(coca(CliFixture::with(attention, {"--against", "rope"})).out,
              HasSubstr("\nx rope: the median of the rounds' ratios"));
  EXPECT_THAT(coca(attention).out, testing::Not(HasSubstr("ratio")));
  expect_refused({"bench"}, 2, "coca bench needs a command: one of attention, train");
  expect_refused({"bench", "attention", "--attention", "linear"}, 2,
                 "--attention: \"linear\" is unknown; expected one of rope, coca-");
  expect_refused({"bench", "attention", "--precision", "f64"}, 2,
                 "--precision: \"f64\" is unknown; expected one of f32");
  expect_refused({"bench", "attention", "--lengths", "0"}, 2, "--lengths is 0; expected at least 1");
  expect_refused({"bench", "train", "--heads", "7"}, 2, "width 320 is not a multiple of --heads 7");
  expect_refused({"bench", "eval", "--repeats", "0"}, 2, "repeats is 0");
  expect_refused({"bench", "decode", "--json", at("no/where.json")}, 1, "does not exist");
}

TEST_F(Cli, ImplementationsAndTargetsCanBeForced) {
  const Outcome o = coca({"--force-impl", "attention:ref,norm:cpu", "--cpu-target", "SCALAR", "info", "--json", "-"});
  ASSERT_EQ(o.code, 0) << o.err;
  const auto facts = nlohmann::json::parse(o.out);
  EXPECT_EQ(facts["cpu_target"], "SCALAR");
  EXPECT_EQ(facts["ops"]["attention"]["used"], "ref");
  EXPECT_EQ(facts["ops"]["attention"]["forced"], true);
  EXPECT_EQ(facts["ops"]["linear"]["used_bf16"], "widened");
  expect_refused({"--force-impl", "attention:gpu", "info"}, 2, "expected avx512_bf16, cpu or ref");
  expect_refused({"--force-impl", "tension:cpu", "info"}, 2, "op \"tension\", which does not exist");
  expect_refused({"--force-impl", "attention", "info"}, 2, "is not op:implementation");
  expect_refused({"--cpu-target", "MMX", "info"}, 2, "CPU target \"MMX\" is not available here");
}

TEST_F(Cli, TheDeviceIsChecked) {
  expect_refused({"--device", "gpu", "info"}, 2, "device \"gpu\" does not exist; expected cpu, auto, cuda or cuda:N");
  expect_refused({"info", "--device", "cuda:0"}, 2, "--device is cuda:0; coca info runs on the CPU");
  expect_refused({"bench", "ring", "--device", "cuda"}, 2, "--device is cuda; coca bench ring runs on the CPU");
  EXPECT_EQ(coca({"info", "--device", "auto"}).code, 0);
  EXPECT_EQ(coca({"--device", "cpu", "info"}).code, 0);
  // The reason depends on the build and the machine: no CUDA in it, no driver, or no such card.
  const Outcome o = coca({"verify", "--device", "cuda:63", "."});
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.err, HasSubstr("cuda:63 "));
}

TEST_F(Cli, MissingFilesAreNamed) {
  expect_refused({"train", "--text", at("no.txt"), "--out", at("a")}, 1, at("no.txt"));
  expect_refused({"train", "--config", at("no.json")}, 1, at("no.json"));
  expect_refused(tiny_train("a", {"--tokenizer", at("no.model")}), 1, at("no.model"));
  expect_refused({"generate", "--model", at("nowhere"), "--prompt", "a"}, 1, at("nowhere"));
  expect_refused({"eval", "ppl", "--model", at("nowhere"), "--text", text_file()}, 1, at("nowhere"));
}

TEST_F(Cli, WrongConfigFilesAreNamed) {
  expect_refused({"train", "--config", put("key.json", R"({"step": 3})")}, 2, "\"step\"");
  expect_refused({"train", "--config", put("type.json", R"({"steps": "3"})")}, 2, "steps");
  expect_refused({"train", "--config", put("broken.json", "{\"steps\": ")}, 1, "broken.json");
}

TEST_F(Cli, FlagsWinOverTheConfigFile) {
  const std::string config = put("run.json", R"({"steps": 3, "seed": 5, "decay": "linear"})");
  Args args = tiny_train("run", {"--config", config});
  args[std::distance(args.begin(), std::ranges::find(args, "30"))] = "2";
  ASSERT_EQ(coca(args).code, 0);
  const auto saved = io::read_json(at("run") + "/train_config.json");
  EXPECT_EQ(saved["steps"], 2);
  EXPECT_EQ(saved["seed"], 5);
  EXPECT_EQ(saved["decay"], "linear");
}

TEST_F(Cli, LongformerFromTrainingToGeneration) {
  const Outcome trained = coca(tiny_train(
      "long", {"--layer-window", "6", "--dilation", "1,2", "--global-tokens", "2", "--validation-text", text_file()}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const auto config = io::read_json(at("long") + "/model/config.json");
  EXPECT_EQ(config["layer_window"], (std::vector<int64_t>{6}));
  EXPECT_EQ(config["layer_dilation"], (std::vector<std::vector<int64_t>>{{1, 2}}));
  EXPECT_EQ(config["global_tokens"], 2);
  const auto rows = train::read_metrics(at("long") + "/metrics.csv");
  EXPECT_LT(rows.back().loss, rows.front().loss - 1);
  const std::string model = at("long") + "/model";
  EXPECT_EQ(
      coca({"eval", "ppl", "--model", model, "--text", text_file(), "--lengths", "24", "--max-tokens", "200"}).code, 0);
  EXPECT_EQ(
      coca({"generate", "--model", model, "--prompt", "the cat", "--max-new-tokens", "20", "--temperature", "0"}).code,
      0);
  EXPECT_THAT(coca({"info", model}).out,
              testing::AllOf(HasSubstr("6 tokens in 1 of 1 layer, dilation up to 2"), HasSubstr("global tokens"),
                             testing::Not(HasSubstr("op attention"))));
  const auto window = nlohmann::json::parse(coca({"info", model, "--json", "-"}).out);
  EXPECT_EQ(window["sliding_window"], 6);
  EXPECT_EQ(window["sliding_window_layers"], 1);
  EXPECT_EQ(window["largest_dilation"], 2);
  const Outcome tuned = coca({"finetune", "--model", model, "--text", text_file(), "--length", "24", "--steps", "2",
                              "--train", "*_global*", "--out", at("tuned")});
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  ASSERT_EQ(coca(tiny_train("base")).code, 0);
  const Outcome made =
      coca({"convert", at("base") + "/model", at("made"), "--layer-window", "8", "--global-tokens", "3"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.out,
              testing::AllOf(HasSubstr("of global tokens, copies"), HasSubstr("config.json: layer_window added, [8]\n"),
                             HasSubstr("config.json: global_tokens added, 3\n"),
                             HasSubstr("element types: as they were\n"), HasSubstr("copied: coca_tokenizer.json\n")));
  expect_refused(tiny_train("a", {"--layer-window", "3,4"}), 2, "--layer-window has 2 numbers; expected 1");
  expect_refused(tiny_train("a", {"--dilation", "1,2"}), 2, "no layer has a window");
}

TEST_F(Cli, AnEncoderTrainsAndIsMeasuredOnMaskedTokens) {
  const Outcome trained = coca(tiny_train("both", {"--direction", "bidirectional", "--layer-window", "6",
                                                   "--global-tokens", "1", "--validation-text", text_file()}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_THAT(trained.out, HasSubstr("validation loss"));
  const std::string model = at("both") + "/model";
  EXPECT_EQ(io::read_json(model + "/config.json")["mask_token_id"], 257);
  const Outcome measured =
      coca({"eval", "mlm", "--model", model, "--text", text_file(), "--lengths", "12,24", "--json", at("mlm.json")});
  ASSERT_EQ(measured.code, 0) << measured.err;
  EXPECT_EQ(io::read_json(at("mlm.json"))["results"].size(), 2u);
  ASSERT_EQ(coca({"eval", "mlm", "--model", model, "--text", text_file(), "--lengths", "12", "--max-tokens", "60",
                  "--json", at("mlm.json")})
                .code,
            0);
  EXPECT_EQ(io::read_json(at("mlm.json"))["results"][0]["windows"], 5);
  const Outcome tuned = coca(
      {"finetune", "--model", model, "--text", text_file(), "--length", "24", "--steps", "2", "--out", at("tuned")});
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  expect_refused({"eval", "ppl", "--model", model, "--text", text_file(), "--lengths", "24"}, 2,
                 "perplexity: the model is bidirectional");
  expect_refused({"generate", "--model", model, "--prompt", "the"}, 2, "generation: the model is bidirectional");
}

TEST_F(Cli, TrainsAtDrawnPositionsUnderAScaling) {
  const Args pose = {"--positions", "pose", "--target-length",   "96",       "--rope-scaling", "linear",
                     "--factor",    "4",    "--validation-text", text_file()};
  const Outcome trained = coca(tiny_train("pose", pose));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const auto rows = train::read_metrics(at("pose") + "/metrics.csv");
  EXPECT_LT(rows.back().loss, rows.front().loss - 1);
  const auto config = io::read_json(at("pose") + "/model/config.json");
  EXPECT_EQ(config["rope_scaling"]["type"], "linear");
  EXPECT_EQ(config["rope_scaling"]["factor"], 4.0);
  EXPECT_EQ(config["max_position_embeddings"], 24);
  const Outcome tuned =
      coca({"finetune", "--model", at("pose") + "/model", "--text", text_file(), "--positions", "random",
            "--target-length", "192", "--rope-scaling", "ntk", "--factor", "8", "--steps", "2", "--out", at("tuned")});
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  EXPECT_EQ(io::read_json(at("tuned") + "/model/config.json")["rope_scaling"]["rope_type"], "ntk");
  expect_refused(tiny_train("a", {"--positions", "pose", "--target-length", "96", "--attention", "alibi"}), 2,
                 "ALiBi's bias depends on the distance");
}

// Trains a CLEX network. Evaluation beyond the trained length and generation use its frequencies.
TEST_F(Cli, FinetunesUnderClex) {
  ASSERT_EQ(coca(tiny_train("base")).code, 0);
  const Args model = {"--model", at("base") + "/model", "--text", text_file()};
  Args args = {"finetune", "--rope-scaling",  "clex", "--factor", "3",       "--steps",
               "4",        "--learning-rate", "0.01", "--out",    at("clex")};
  args.insert(args.end(), model.begin(), model.end());
  const Outcome tuned = coca(args);
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  const auto config = io::read_json(at("clex") + "/model/config.json");
  EXPECT_EQ(config["rope_scaling"]["type"], "clex");
  EXPECT_EQ(config["rope_scaling"]["max_factor"], 3);
  const Outcome ppl = coca({"eval", "ppl", "--model", at("clex") + "/model", "--text", text_file(), "--lengths",
                            "24,72", "--stride", "24", "--max-tokens", "300"});
  EXPECT_EQ(ppl.code, 0) << ppl.err;
  EXPECT_EQ(coca({"generate", "--model", at("clex") + "/model", "--prompt", "the cat", "--max-new-tokens", "40"}).code,
            0);
  Args wrong = {"eval", "ppl", "--rope-scaling", "clex", "--lengths", "24", "--stride", "24"};
  wrong.insert(wrong.end(), model.begin(), model.end());
  const Outcome without = coca(wrong);
  EXPECT_NE(without.code, 0);
  EXPECT_THAT(without.err, HasSubstr("coca finetune --rope-scaling clex"));
}

TEST_F(Cli, TrainEvaluateGenerate) {
  const Outcome trained = coca(tiny_train("run", {"--validation-text", text_file(), "--validation-windows", "8"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_THAT(trained.out, HasSubstr("attention coca-slack"));
  EXPECT_THAT(trained.out, HasSubstr("validation loss"));
  const auto rows = train::read_metrics(at("run") + "/metrics.csv");
  ASSERT_EQ(rows.size(), 30u);
  EXPECT_LT(rows.back().loss, rows.front().loss - 1);

  const Outcome ppl = coca({"eval", "ppl", "--model", at("run") + "/model", "--text", text_file(), "--lengths", "24,48",
                            "--stride", "24", "--max-tokens", "500", "--json", at("ppl.json")});
  ASSERT_EQ(ppl.code, 0) << ppl.err;
  EXPECT_THAT(ppl.out, HasSubstr("48"));
  EXPECT_TRUE(fs::exists(at("ppl.json")));

  const Args generate = {"generate",         "--model", at("run") + "/model", "--prompt", "the cat",
                         "--max-new-tokens", "12",      "--temperature",      "0",        "--ignore-eos"};
  const Outcome text = coca(generate);
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_GE(text.out.size(), 5u);
  EXPECT_EQ(coca(generate).out, text.out);
}

TEST_F(Cli, AnalyseWritesTablesAndAReport) {
  ASSERT_EQ(coca(tiny_train("run", {"--attention", "coca-strict", "--steps", "3"})).code, 0);
  const Args analyse = {"analyse", "--model", at("run/model"), "--text", text_file(), "--windows", "3"};
  const auto with = [&](const Args& more) { return CliFixture::with(analyse, more); };
  const Outcome done = coca(with(
      {"--pairs", "0", "--multiples", "1,8", "--json", at("a.json"), "--csv", at("a.csv"), "--html", at("a.html")}));
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_THAT(done.out, HasSubstr("3 windows of 24 tokens; per window and head 300 token pairs and 23 rows"));
  EXPECT_THAT(done.out, HasSubstr("the collinear constraint holds"));
  const nlohmann::json j = io::read_json(at("a.json"));
  EXPECT_EQ(j["all"]["anomalous"], 0.0);
  EXPECT_LT(j["all"]["largest_angle"], 1e-6);
  EXPECT_EQ(j["layers"].size(), 1u);
  const std::string csv = io::read_file(at("a.csv")), html = io::read_file(at("a.html"));
  EXPECT_THAT(csv, testing::StartsWith("model,adapter,rope_scaling,pattern,layer,head,plane,theta,"));
  EXPECT_EQ(std::ranges::count(csv, '\n'), 1 + 1 * 2 * 8);  // layers, heads, planes
  EXPECT_THAT(html, HasSubstr("Collinear constraint"));
  const Outcome too_long = coca(with({"--length", "100000"}));
  EXPECT_EQ(too_long.code, 2);
  EXPECT_THAT(too_long.err, HasSubstr("a window of 100,000 tokens needs"));
  expect_refused(with({"--length", "1"}), 2, "--length 1");
  expect_refused(with({"--windows", "0"}), 2, "--windows is 0; expected at least 1");
  expect_refused(with({"--html", at("nowhere/a.html")}), 1, "nowhere");
  expect_refused({"analyse", "--model", at("run/model")}, 2, "--text");
}

// A RoPE model becomes a CoCA model with another type and shards, and keeps its tokenizer. Failed conversions leave
// nothing behind.
TEST_F(Cli, ConvertAndDescribe) {
  ASSERT_EQ(coca(tiny_train("rope", {"--attention", "rope", "--architecture", "llama", "--steps", "3"})).code, 0);
  const std::string model = at("rope/model");
  const Outcome done = coca({"convert", model, at("coca"), "--attention", "coca-slack", "--dtype", "bf16",
                             "--max-shard-gib", "0.00001", "--json", "-"});
  ASSERT_EQ(done.code, 0) << done.err;
  const auto report = nlohmann::json::parse(done.out);
  EXPECT_EQ(report["from"], "rope");
  EXPECT_EQ(report["attention"], "coca-slack");
  EXPECT_EQ(report["made"], 1);
  EXPECT_EQ(report["needs_training"], true);
  EXPECT_GT(report["shards"], 1);
  EXPECT_EQ(report["config"]["attention_type"]["after"], "coca-slack");
  EXPECT_TRUE(fs::exists(at("coca/coca_tokenizer.json")));
  const Outcome info = coca({"info", at("coca"), "--json", "-", "--length", "500"});
  ASSERT_EQ(info.code, 0) << info.err;
  const auto facts = nlohmann::json::parse(info.out);
  EXPECT_EQ(facts["architecture"], "llama");
  EXPECT_EQ(facts["attention"], "coca-slack");
  EXPECT_EQ(facts["length"], 500);
  const int64_t page = 256 * facts["cache_bytes_per_token"].get<int64_t>();
  EXPECT_EQ(facts["cache_bytes_at_trained_length"], page) << "24 tokens take a page";
  EXPECT_EQ(facts["generate_bytes"], facts["weights_bytes"].get<int64_t>() + 2 * page);
  EXPECT_THAT(coca({"info", model}).out, testing::AllOf(HasSubstr("byte, 257 ids; the vocabulary's other 15 rows are"),
                                                        HasSubstr("the cache in pages of 256 tokens")));
  EXPECT_EQ(facts["file_bytes"], report["bytes"]);
  int64_t parts = 0;
  for (const char* part : {"embedding", "attention", "mlp", "norms", "output"})
    parts += facts[std::string("parameters_") + part].get<int64_t>();
  EXPECT_EQ(parts, facts["parameters"]);
  EXPECT_FALSE(facts.contains("ops")) << "these are the program's";
  EXPECT_EQ(facts["rope_theta"], 10000.0);
  EXPECT_EQ(facts["rope_factor"], 1.0);
  EXPECT_EQ(facts["eos_ids"], nlohmann::json::array({256}));
  EXPECT_EQ(facts["tokenizer_ids"], 257);
  EXPECT_GT(facts["element_types"]["BF16"], 0);
  for (const auto& [key, value] : facts.items()) {
    EXPECT_FALSE(value.is_string() && !value.get<std::string>().empty() && std::isdigit(value.get<std::string>()[0]))
        << key;
  }
  EXPECT_EQ(coca({"generate", "--model", at("coca"), "--prompt", "the cat", "--max-new-tokens", "5"}).code, 0);
  const std::string needs_training = "train it further with coca finetune --model ";
  EXPECT_THAT(coca({"convert", at("coca"), at("strict"), "--attention", "coca-strict"}).out,
              HasSubstr(needs_training + at("strict")));
  EXPECT_THAT(coca({"convert", model, at("windows"), "--layer-window", "8"}).out, HasSubstr(needs_training));
  EXPECT_THAT(coca({"convert", at("coca"), at("same"), "--dtype", "f32"}).out, testing::Not(HasSubstr(needs_training)));
  expect_refused({"convert", model, at("coca")}, 1, "exists already");
  expect_refused({"convert", at("coca"), at("back"), "--attention", "rope"}, 2, "cannot convert to attention");
  expect_refused({"convert", at("nowhere"), at("back")}, 1, "does not exist");
  expect_refused({"info", model, "--length", "0"}, 2, "--length is 0; expected at least 1");
  EXPECT_FALSE(fs::exists(at("back")));
  EXPECT_EQ(std::ranges::count_if(
                fs::directory_iterator(dir_.path()),
                [](const fs::directory_entry& e) { return e.path().filename().string().starts_with(".tmp"); }),
            0);
}

TEST_F(Cli, GenerationEndsAtAStopStringAndFollowsItsConfig) {
  ASSERT_EQ(coca(tiny_train("run", {"--steps", "60"})).code, 0);
  const Args base = {"generate",         "--model", at("run/model"), "--prompt", "the cat sat on ",
                     "--max-new-tokens", "60",      "--json",        "-"};
  const auto with = [&](const Args& more) {
    Args args = base;
    args.insert(args.end(), more.begin(), more.end());
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 0) << o.err;
    return nlohmann::json::parse(o.out);
  };
  const auto whole = with({"--temperature", "0"});
  const std::string text = whole["text"];
  ASSERT_GT(text.size(), 20u);
  EXPECT_EQ(whole["finish"], "length");
  const std::string stop = text.substr(10, 3);
  const auto cut = with({"--temperature", "0", "--stop", "never, seen", "--stop", stop});
  EXPECT_EQ(cut["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(cut["finish"], "stop string");
  std::ofstream(at("run/model/generation_config.json")) << R"({"do_sample": false, "min_p": 0.2})";
  EXPECT_EQ(with({})["text"], text) << "greedy by its own settings";
  EXPECT_EQ(with({"--min-p", "0.5"})["sampling"]["min_p"], 0.5) << "a flag wins";
  std::ofstream(at("run/model/generation_config.json"))
      << R"({"temperature": 0.9, "num_beams": 4, "no_repeat_ngram_size": 0})";
  EXPECT_EQ(with({})["text"], text) << "without do_sample greedy, as in transformers";
  EXPECT_EQ(with({"--temperature", "0.5"})["sampling"]["temperature"], 0.5);
  EXPECT_EQ(with({"--top-k", "5"})["sampling"]["temperature"], 0.9) << "asks for sampling";
  const Outcome named = coca(base);
  EXPECT_THAT(named.err, testing::ContainsRegex("note: .*generation_config.json: .* does not have num_beams \\(4\\)"));
  EXPECT_EQ(named.err.find("no_repeat_ngram_size"), std::string::npos) << named.err;
  std::ofstream(at("run/model/generation_config.json")) << "{}";
  const auto chat = with({"--temperature", "0", "--chat", "--chat-template", "chatml", "--system", "Be brief."});
  EXPECT_EQ(chat["prompt_ids"].size(), std::string("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nthe cat "
                                                   "sat on <|im_end|>\n<|im_start|>assistant\n")
                                           .size());
  const Args framed = {"--temperature", "0", "--chat", "--chat-template", "chatml", "--echo"};
  EXPECT_THAT(with(framed)["text"].get<std::string>(),
              testing::StartsWith("<|im_start|>user\nthe cat sat on <|im_end|>\n<|im_start|>assistant\n"));
  std::ofstream(at("run/model/generation_config.json")) << R"({"max_new_tokens": 7})";
  Args unlimited = base;
  std::erase(unlimited, "--max-new-tokens"), std::erase(unlimited, "60");
  EXPECT_EQ(nlohmann::json::parse(coca(unlimited).out)["ids"].size(), 7u);
  EXPECT_EQ(with({})["ids"].size(), 60u) << "a flag wins";
  std::ofstream(at("run/model/generation_config.json")) << R"({"max_length": 20})";
  const auto twenty = nlohmann::json::parse(coca(unlimited).out);
  EXPECT_EQ(twenty["ids"].size() + twenty["prompt_ids"].size(), 20u) << "max_length counts the prompt";
  std::ofstream(at("run/model/generation_config.json")) << R"({"max_length": 3})";
  expect_refused(unlimited, 2,
                 "generation_config.json: max_length is 3 tokens, and the prompt alone has 16; give --max-new-tokens");
  EXPECT_EQ(with({})["ids"].size(), 60u) << "a flag wins";
  std::ofstream(at("run/model/generation_config.json")) << nlohmann::json{{"stop_strings", {stop}}};
  EXPECT_EQ(with({})["text"], cut["text"]);
  EXPECT_EQ(with({"--stop", "never, seen"})["text"], text) << "a flag wins";
  std::ofstream(at("run/model/generation_config.json")) << R"({"eos_token_id": [256, 99999]})";
  expect_refused(base, 1, "generation_config.json: eos_token_id 99999 is outside the vocabulary of 2");
  EXPECT_NE(coca({"info", at("run/model")}).code, 0);
  std::ofstream(at("run/model/generation_config.json")) << "{}";
  expect_refused({"generate", "--model", at("run/model"), "--prompt", "x", "--chat"}, 2, "has no chat template");
  expect_refused({"generate", "--model", at("run/model"), "--prompt", "x", "--chat", "--chat-template",
                  put("none.jinja", "{% if false %}x{% endif %}")},
                 2, "none.jinja: the chat template writes nothing for this conversation");
  expect_refused({"generate", "--model", at("run/model"), "--prompt", "x", "--system", "y"}, 2,
                 "--system: needs --chat");
  expect_refused({"generate", "--model", at("run/model"), "--prompt", "x", "--chat", "--chat-template", "odd"}, 2,
                 "chatml");
  EXPECT_TRUE(chat.contains("coca") && chat["options"]["seed"] == 0 && chat["options"]["precision"] == "f32" &&
              chat["options"]["cache"] == "f32" && chat["model"] == at("run/model"))
      << chat.dump(1);
  const std::string user = R"({"role": "user", "content": "u"})", answer = R"(, {"role": "assistant", "content": "a"})";
  const auto talk = [&](const std::string& messages, const Args& more) {
    Args args = {"generate",         "--model",
                 at("run/model"),    "--chat",
                 "--chat-template",  "chatml",
                 "--max-new-tokens", "1",
                 "--messages",       put("talk.json", "[" + messages + "]")};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  const std::string file = at("talk.json");
  expect_refused(talk(R"({"role": "system", "content": "s"}, )" + user, {"--system", "t"}), 2,
                 "--system: " + file + " has a system message of its own");
  expect_refused(talk(user, {"--prompt", "x"}), 2, "--prompt: " + file + " ends with a user's message already");
  expect_refused(talk(user + answer, {}), 2, file + ": the conversation ends with an answer of the assistant");
  EXPECT_EQ(coca(talk(user + answer, {"--prompt", "x", "--system", "s"})).code, 0);
  EXPECT_EQ(coca(talk(user, {})).code, 0);
  expect_refused(talk("", {}), 1, file + ": the list of messages is empty; expected a user's message at least");
  expect_refused(talk("3], [4", {}), 1, "; expected one conversation: a list of messages, or an object with");
  expect_refused(talk("]\n[", {}), 1, "This looks like JSON lines: put one of them into a file of its own");
  for (const Args& more : {Args{}, {"--prompt", ""}, {"--system", "s"}})
    expect_refused(
        CliFixture::with({"generate", "--model", at("run/model"), "--chat", "--chat-template", "chatml"}, more), 2,
        "--chat: the user's message is empty; give one as --prompt, or on standard input");
  std::ofstream(at("run/model/generation_config.json")) << R"({"temperature": "hot"})";
  expect_refused(base, 1, "generation_config.json");
}

TEST_F(Cli, RandomModelsInEitherPrecision) {
  const std::string config =
      put("config.json", R"({"model_type": "llama", "attention_type": "coca-slack", "vocab_size": 300,
      "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
      "max_position_embeddings": 32})");
  std::map<std::string, int64_t> sizes;
  std::map<std::string, double> nll;
  for (const std::string precision : {"f32", "bf16"}) {
    const Args init = {"init", "--model-config", config, "--out", at(precision), "--precision", precision};
    ASSERT_EQ(coca(init).code, 0);
    expect_refused(init, 1, "exists already");
    sizes[precision] = static_cast<int64_t>(fs::file_size(at(precision) + "/model.safetensors"));
    const Outcome ppl =
        coca({"eval", "ppl", "--model", at(precision), "--text", text_file(), "--lengths", "64", "--stride", "64",
              "--max-tokens", "300", "--precision", precision, "--json", at(precision + ".json")});
    ASSERT_EQ(ppl.code, 0) << ppl.err;
    nll[precision] = io::read_json(at(precision + ".json")).at("results").at(0).at("nll").get<double>();
  }
  EXPECT_NEAR(nll["f32"], std::log(300.0), 0.1);  // the model is untrained
  EXPECT_NE(nll["bf16"], nll["f32"]);
  EXPECT_NEAR(nll["bf16"], nll["f32"], 4 * 0x1p-8);  // the rounding of logits below 4
  const Outcome text = coca({"generate", "--model", at("bf16"), "--prompt", "the cat", "--max-new-tokens", "8",
                             "--precision", "bf16", "--ignore-eos"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_LT(sizes["bf16"], 0.6 * static_cast<double>(sizes["f32"]));
  expect_refused({"init", "--out", at("x")}, 2, "--model-config");
  expect_refused({"init", "--model-config", at("nowhere.json"), "--out", at("x")}, 1, "nowhere.json");
}

// For any integer the command ends soon: it either succeeds or prints one line that names the flag and the value.
TEST_F(Cli, HugeAndNegativeIntegersAreRefused) {
  ASSERT_EQ(coca(tiny_train("run")).code, 0);
  const std::string model = at("run/model"), text = put("text.txt", cats_and_dogs(50));
  const Args finetune = {"finetune", "--model", model, "--text", text, "--out", at("tuned")},
             study = {"study", "--text", text, "--out", at("study")};
  const Args ppl = {"eval", "ppl", "--model", model, "--text", text}, passkey = {"eval", "passkey", "--model", model};
  struct Case {
    Args command;
    std::vector<const char*> flags;
  };
  for (const Case& c :
       {Case{tiny_train("new"),
             {"--batch", "--accumulation", "--steps", "--layers", "--width", "--length", "--dilation",
              "--layer-window"}},
        Case{finetune, {"--batch", "--length", "--lora-rank", "--steps"}},
        Case{study, {"--batch", "--multiples", "--passkey-trials"}}, Case{ppl, {"--lengths", "--stride", "--window"}},
        Case{passkey, {"--trials", "--lengths", "--new-tokens"}},
        Case{{"eval", "ruler", "--model", model}, {"--samples", "--lengths"}},
        Case{{"bench", "decode"}, {"--lengths", "--layers", "--repeats"}}})
    for (const char* flag : c.flags)
      for (const char* value : {"4611686018427387904", "9223372036854775807", "-9223372036854775808"})
        expect_refused(with(c.command, {flag, value}), 2, fmt::format("{} is {}", flag, value));
}

}  // namespace
}  // namespace coca::cli_test
