// card_check: proves the CUDA backend on a machine with a card, and measures it there. scripts/gpu-check builds and
// runs it, or packs it into a folder that needs neither compiler nor packages. It goes on after a failure, and stops
// starting new work when its time is used up.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "card/child.h"
#include "coca/base/clock.h"
#include "coca/base/error.h"
#include "coca/io/csv.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/report/table.h"

namespace coca::card {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Args = std::vector<std::string>;

constexpr const char* kUsage =
    R"(Usage: card_check [--home DIR] [--out DIR] [--minutes M] [--device DEVICE] [--small] [--only SECTION,...]

Tests the CUDA backend on this machine's card and measures it. Writes results.json, report.md and log.txt.

  --home DIR      folder with bin/, golden/ and peers/ (default: the folder above this program's)
  --out DIR       folder for the results (default: card-check)
  --minutes M     when to stop starting new work (default: 8)
  --device D      device to test (default: cuda)
  --small         tiny sizes, to try the check itself
  --only S,...    of: card, ops, goldens, training, attention, decoding, speed, memory, torch
)";

struct Options {
  fs::path home, out = "card-check";
  double minutes = 8;
  std::string device = "cuda";
  bool small = false;
  Args only;
};

// One line of the table at the end. passed: nullopt where it is a measurement without a goal, or was not measured.
struct Line {
  std::string section, what, goal, measured;
  std::optional<bool> passed;
  std::string detail;
};

class Check {
 public:
  explicit Check(Options options) : o(std::move(options)) {
    io::make_dirs(o.out / "work");
    log_.open(o.out / "log.txt");
  }

  const Options o;
  Json results = Json::object();

  double left() const { return 60 * o.minutes - watch_.seconds(); }
  bool wanted(const std::string& section) const {
    return o.only.empty() || std::ranges::find(o.only, section) != o.only.end();
  }
  void line(Line l) {
    say("{}{}: {}{}{}",
        !l.passed   ? ""
        : *l.passed ? "passed  "
                    : "FAILED  ",
        l.what, l.measured, l.goal.empty() ? "" : " (goal: " + l.goal + ")",
        l.detail.empty() ? "" : "\n        " + l.detail);
    lines_.push_back(std::move(l));
    write();
  }
  template <typename... A>
  void say(fmt::format_string<A...> text, A&&... args) {
    const std::string s = fmt::format("[{:6.1f}] ", watch_.seconds()) + fmt::format(text, std::forward<A>(args)...);
    std::puts(s.c_str());
    std::fflush(stdout);
    log_ << s << std::endl;
  }

  fs::path work(const std::string& name) const { return o.out / "work" / name; }
  std::string program(const std::string& name) const { return (o.home / "bin" / name).string(); }
  Args coca(Args args) const {
    args.insert(args.begin(), {program("coca"), "--device", o.device});
    return args;
  }

  // Runs a program and adds what it printed to the log. Returns whether it ended well; a failure is a line of its own.
  bool run(const std::string& section, const std::string& what, const Args& argv, double limit) {
    const Child child{argv, std::min(limit, std::max(left(), 1.0)), work("child.txt")};
    if (left() < 5) {
      line({section, what, "", "not run: no time left", std::nullopt, ""});
      return false;
    }
    const Ended ended = card::run(child);
    const std::string text = log_text(child);
    if (ended.code == 0 && !ended.timed_out) return true;
    line({section, what, "", describe(ended, child), false, last_lines(text, 6)});
    return false;
  }
  // Runs `coca bench ...` and returns its JSON.
  std::optional<Json> bench(const std::string& section, const std::string& what, Args args, double limit) {
    const std::string file = work("bench.json").string();
    args.insert(args.begin(), "bench");
    args.insert(args.end(), {"--json", file});
    if (!run(section, what, coca(std::move(args)), limit)) return std::nullopt;
    Json found = io::read_json(file);
    results[section][what] = found["results"];
    write();
    return found;
  }

  std::string log_text(const Child& child) {
    const std::string text = io::exists(child.text) ? io::read_file(child.text) : "";
    log_ << "$ " << fmt::format("{}", fmt::join(child.argv, " ")) << "\n" << text << std::endl;
    return text;
  }
  static std::string last_lines(const std::string& text, int count) {
    size_t at = text.size();
    for (int n = 0; n <= count && at != std::string::npos && at > 0; ++n) at = text.rfind('\n', at - 1);
    return at == std::string::npos || at == 0 ? text : text.substr(at + 1);
  }

  int finish() {
    write();
    report::Table table = this->table();
    std::puts(("\n" + report::to_text(table)).c_str());
    return std::ranges::any_of(lines_, [](const Line& l) { return l.passed == false; }) ? 1 : 0;
  }

 private:
  report::Table table() const {
    report::Table table{.title = "", .header = {"", "goal", "measured", "passed"}, .rows = {}, .align = {}};
    for (const Line& l : lines_)
      table.rows.push_back({l.what, l.goal.empty() ? "-" : l.goal, l.measured,
                            !l.passed   ? "-"
                            : *l.passed ? "yes"
                                        : "NO"});
    return table;
  }
  void write() {
    Json doc = results;
    doc["lines"] = Json::array();
    std::string failures;
    for (const Line& l : lines_) {
      Json entry = {{"section", l.section}, {"what", l.what}, {"goal", l.goal}, {"measured", l.measured}};
      entry["passed"] = l.passed ? Json(*l.passed) : Json();
      entry["detail"] = l.detail;
      doc["lines"].push_back(entry);
      if (l.passed == false && !l.detail.empty())
        failures += fmt::format("\n### {}\n\n```\n{}\n```\n", l.what, l.detail);
    }
    io::write_json(o.out / "results.json", doc);
    io::write_file_atomic(o.out / "report.md", "# Check on a card\n\n" + report::to_markdown(table()) +
                                                   (failures.empty() ? "" : "\n## What failed\n" + failures));
  }

  const Stopwatch watch_;
  std::ofstream log_;
  std::vector<Line> lines_;
};

std::string ratio(double x) { return fmt::format("{:.3f}", x); }

// The entry of a bench's results with these values.
std::optional<Json> entry_of(const std::optional<Json>& found, const std::map<std::string, Json>& wanted) {
  if (!found) return std::nullopt;
  for (const Json& row : (*found)["results"])
    if (std::ranges::all_of(wanted, [&](const auto& w) { return row.contains(w.first) && row[w.first] == w.second; }))
      return row;
  return std::nullopt;
}

void card(Check& c) {
  const Child smi{{"nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv"},
                  20,
                  c.work("child.txt")};
  try {
    run(smi);
    c.say("{}", c.log_text(smi));
  } catch (const Error& error) {
    c.say("{}", error.what());
  }
  const std::string file = c.work("info.json").string();
  if (c.run("card", "coca info", {c.program("coca"), "info", "--json", file}, 30)) {
    const Json info = io::read_json(file);
    c.results["card"]["info"] = info;
    const std::string gpus = info.value("gpus", "none");
    c.line({"card", "the program finds the card", "", gpus, c.o.device == "cpu" || !gpus.starts_with("none"), ""});
  }
}

// The op tests, compiled without the stand-in, in as many processes as there are shards.
void ops(Check& c) {
  for (const char* name :
       {"ops_card_test", "model_card_test", "train_card_test", "infer_card_test", "eval_card_test"}) {
    if (!io::exists(c.program(name))) continue;
    constexpr int kShards = 8;
    std::vector<Child> shards;
    for (int i = 0; i < kShards; ++i)
      shards.push_back({{"env", fmt::format("GTEST_TOTAL_SHARDS={}", kShards), fmt::format("GTEST_SHARD_INDEX={}", i),
                         "OMP_NUM_THREADS=2", c.program(name),
                         "--gtest_output=json:" + c.work(fmt::format("{}-{}.json", name, i)).string()},
                        std::min(150.0, std::max(c.left() - 60, 5.0)),
                        c.work(fmt::format("{}-{}.txt", name, i))});
    const std::vector<Ended> ended = run(shards);
    int64_t passed = 0, failed = 0, skipped = 0;
    std::string detail;
    for (int i = 0; i < kShards; ++i) {
      const auto n = static_cast<size_t>(i);
      c.log_text(shards[n]);
      const fs::path file = c.work(fmt::format("{}-{}.json", name, i));
      if (ended[n].timed_out || ended[n].code > 1 || !io::exists(file)) {
        ++failed;
        detail += fmt::format("shard {} {}\n", i, describe(ended[n], shards[n]));
        continue;
      }
      for (const Json& suite : Json(io::read_json(file))["testsuites"])
        for (const Json& test : suite["testsuite"]) {
          const bool skip = test.value("result", "") == "SKIPPED";
          if (!test.contains("failures")) {
            ++(skip ? skipped : passed);
            continue;
          }
          ++failed;
          detail += fmt::format("{}.{}: {}\n", suite["name"].get<std::string>(), test["name"].get<std::string>(),
                                test["failures"][0]["failure"].get<std::string>().substr(0, 600));
        }
    }
    c.results["ops"][name] = {{"passed", passed}, {"failed", failed}, {"skipped", skipped}};
    c.line({"ops", std::string(name), "all pass",
            fmt::format("{} passed, {} failed, {} skipped", passed, failed, skipped), failed == 0, detail});
  }
}

void goldens(Check& c) {
  if (!io::is_folder(c.o.home / "golden"))
    return c.line({"goldens", "official results", "", "not in this folder", {}, ""});
  for (const fs::path& folder : io::list_folder(c.o.home / "golden"))
    if (io::is_folder(folder)) {
      const std::string what = "official results: " + folder.filename().string();
      if (c.run("goldens", what, c.coca({"verify", folder.string()}), 60))
        c.line({"goldens", what, "within coca verify's tolerances", "yes", true, ""});
    }
}

std::vector<double> losses(const fs::path& run) {
  const auto rows = io::parse_csv(io::read_file(run / "metrics.csv"));
  std::vector<double> found;
  const auto at = std::ranges::find(rows.at(0), "loss") - rows[0].begin();
  for (size_t i = 1; i < rows.size(); ++i) found.push_back(std::stod(rows[i].at(static_cast<size_t>(at))));
  return found;
}

// 50 steps on the card against the CPU, twice on the card, and across the two.
void training(Check& c) {
  const std::string text = c.work("text.txt").string();
  std::string lines;
  for (int i = 0; i < 4000; ++i)
    lines += fmt::format("line {} of a text that a small model learns, and {}\n", i * i, i % 7);
  io::write_file_atomic(text, lines);
  const auto train = [&](const std::string& device, const std::string& name, const Args& more) {
    Args args = {c.program("coca"),
                 "--device",
                 device,
                 "train",
                 "--text",
                 text,
                 "--out",
                 c.work(name).string(),
                 "--layers",
                 "2",
                 "--width",
                 "64",
                 "--heads",
                 "2",
                 "--length",
                 "64",
                 "--batch",
                 "8",
                 "--steps",
                 "50",
                 "--warmup-steps",
                 "5",
                 "--learning-rate",
                 "0.003",
                 "--log-interval",
                 "1"};
    args.insert(args.end(), more.begin(), more.end());
    fs::remove_all(c.work(name));
    return c.run("training", "train " + name, args, 60);
  };
  for (const char* attention : {"coca-slack", "coca-strict", "rope"})
    for (const char* precision : {"f32", "bf16"}) {
      const Args kind = {"--attention", attention, "--precision", precision};
      const std::string name = fmt::format("{}-{}", attention, precision);
      if (!train("cpu", name + "-cpu", kind) || !train(c.o.device, name + "-card", kind)) continue;
      const std::vector<double> cpu = losses(c.work(name + "-cpu")), there = losses(c.work(name + "-card"));
      double worst = cpu.size() == there.size() && !cpu.empty() ? 0 : INFINITY;
      for (size_t i = 0; i < std::min(cpu.size(), there.size()); ++i)
        worst = std::max(worst, std::abs(cpu[i] - there[i]) / cpu[i]);
      // Both differ from exact arithmetic by roundings that training amplifies; bf16 rounds 2^16 times as coarsely.
      const double most = std::string(precision) == "f32" ? 1e-3 : 3e-2;
      c.line({"training", "50 steps, " + name + ": largest difference of the loss from the CPU's",
              fmt::format("<= {}", most), fmt::format("{:.2e}", worst), worst <= most, ""});
    }
  const Args slack = {"--attention", "coca-slack"};
  if (train(c.o.device, "again", slack)) {
    const bool same = io::read_file(c.work("again") / "model/model.safetensors") ==
                      io::read_file(c.work("coca-slack-f32-card") / "model/model.safetensors");
    c.line({"training", "the same run again has the same bits", "", same ? "yes" : "no", same, ""});
  }
  fs::remove_all(c.work("half"));
  if (train(c.o.device, "half", {"--attention", "coca-slack", "--checkpoint-interval", "25"})) {
    fs::remove_all(c.work("half/checkpoints/step-00000050"));
    fs::remove_all(c.work("half/model"));
    const Args resume = {"train", "--out", c.work("half").string(), "--resume"};
    if (c.run("training", "resume", c.coca(resume), 60)) {
      const bool same = io::read_file(c.work("half") / "model/model.safetensors") ==
                        io::read_file(c.work("coca-slack-f32-card") / "model/model.safetensors");
      c.line({"training", "a resumed run has the same bits", "", same ? "yes" : "no", same, ""});
    }
  }
  std::string texts[2];
  for (const int on_card : {0, 1}) {
    const std::string file = c.work("generated.json").string();
    if (!c.run("training", "generate",
               {c.program("coca"), "--device", on_card ? c.o.device : "cpu", "generate", "--model",
                c.work("coca-slack-f32-card/model").string(), "--prompt", "line 16 of a", "--temperature", "0",
                "--max-new-tokens", "64", "--ignore-eos", "--json", file},
               60))
      return;
    texts[on_card] = Json(io::read_json(file)).value("text", io::read_file(file));
  }
  c.line(
      {"training", "greedy text equals the CPU's", "", texts[0] == texts[1] ? "yes" : "no", texts[0] == texts[1], ""});
}

void attention(Check& c) {
  const int64_t tokens = c.o.small ? 256 : 32768, channels = c.o.small ? 64 : 2048;
  const std::vector<int64_t> lengths =
      c.o.small ? std::vector<int64_t>{64, 128} : std::vector<int64_t>{2048, 8192, 32768, 65536};
  for (const int64_t dim : c.o.small ? std::vector<int64_t>{16} : std::vector<int64_t>{64, 128})
    for (const int64_t length : lengths) {
      const std::string what = fmt::format("attention, D {}, N {}", dim, length);
      const auto found =
          c.bench("attention", what,
                  {"attention", "--attention", "coca-slack,rope,none", "--against", "rope", "--precision",
                   c.o.device == "cpu" ? "f32" : "bf16", "--lengths", std::to_string(length), "--batch",
                   std::to_string(std::max<int64_t>(1, tokens / length)), "--heads", std::to_string(channels / dim),
                   "--head-dim", std::to_string(dim), "--repeats", c.o.small ? "2" : "20"},
                  60);
      for (const char* pass : {"forward", "backward"})
        if (const auto row = entry_of(found, {{"attention", "coca-slack"}, {"pass", pass}}))
          c.line({"attention", fmt::format("{}: CoCA {}", what, pass), "",
                  fmt::format("{:.0f} TFLOP/s", 1e-3 * (*row)["gflops"].get<double>()), std::nullopt, ""});
      const auto both = entry_of(found, {{"attention", "coca-slack"}, {"pass", "both"}});
      if (!both || !(*both)["ratio"].is_number()) continue;
      const double most = length >= 8192 ? 1.02 : 1.04, is = (*both)["ratio"];
      c.line({"attention", what + ": CoCA over RoPE", fmt::format("<= {}", most), ratio(is),
              c.o.small ? std::nullopt : std::optional(is <= most), ""});
    }
}

// Models whose time is their attention's: small mlps and vocabularies.
void decoding(Check& c) {
  const std::string length = c.o.small ? "128" : "32768";
  for (const int64_t sequences : {1, 8, 32}) {
    const std::string what = fmt::format("decoding at {}, {} sequences", length, sequences);
    const auto found = c.bench("decoding", what,
                               {"decode",
                                "--attention",
                                "coca-slack,rope",
                                "--against",
                                "rope",
                                "--lengths",
                                length,
                                "--batch",
                                std::to_string(sequences),
                                "--layers",
                                "4",
                                "--width",
                                c.o.small ? "64" : "1024",
                                "--heads",
                                c.o.small ? "4" : "16",
                                "--mlp-width",
                                "128",
                                "--vocab-size",
                                "256",
                                "--prefill",
                                "2048",
                                "--tokens",
                                "16",
                                "--precision",
                                c.o.device == "cpu" ? "f32" : "bf16",
                                "--cache",
                                "bf16",
                                "--repeats",
                                c.o.small ? "2" : "7"},
                               90);
    const auto kv = entry_of(found, {{"attention", "rope"}}), tv = entry_of(found, {{"attention", "coca-slack"}});
    if (!kv || !tv) continue;
    const double rate = 1e-3 * (*kv)["gbytes_per_second"].get<double>(),
                 gain = (*kv)["seconds"].get<double>() / (*tv)["seconds"].get<double>();
    const bool judged = !c.o.small && sequences >= 8;
    c.line({"decoding", what + ": K/V", judged ? ">= 4 TB/s" : "", fmt::format("{:.2f} TB/s", rate),
            judged ? std::optional(rate >= 4) : std::nullopt, ""});
    c.line({"decoding", what + ": T/V as fast as K/V times", judged ? ">= 1.2" : "", ratio(gain),
            judged ? std::optional(gain >= 1.2) : std::nullopt, ""});
  }
}

void speed(Check& c) {
  struct Shape {
    const char* name;
    Args size;
    double goal;  // share of 989 TFLOP/s
  };
  const std::vector<Shape> shapes =
      c.o.small ? std::vector<Shape>{{"0.86M", {"--preset", "0.86m", "--batch", "2"}, 0}}
                : std::vector<Shape>{
                      {"350M, N 512, batch 64", {"--preset", "350m", "--length", "512", "--batch", "64"}, 0.5},
                      {"350M, N 2,048, batch 16", {"--preset", "350m", "--length", "2048", "--batch", "16"}, 0},
                      {"1.3B, N 2,048, batch 4",
                       {"--layers", "24", "--width", "2048", "--heads", "16", "--length", "2048", "--batch", "4"},
                       0}};
  for (const Shape& s : shapes) {
    Args args = {"train",
                 "--attention",
                 "coca-slack",
                 "--against",
                 "rope",
                 "--precision",
                 c.o.device == "cpu" ? "f32" : "bf16",
                 "--repeats",
                 c.o.small ? "2" : "10"};
    args.insert(args.end(), s.size.begin(), s.size.end());
    const std::string what = fmt::format("training, {}", s.name);
    const auto row = entry_of(c.bench("speed", what, args, 90), {{"attention", "coca-slack"}});
    if (!row) continue;
    const double share = (*row)["gflops"].get<double>() / 989e3;
    c.line({"speed", what, s.goal > 0 ? fmt::format(">= {:.0f} % of 989 TFLOP/s", 100 * s.goal) : "",
            fmt::format("{:.0f} tokens/s, {:.1f} %", (*row)["tokens_per_second"].get<double>(), 100 * share),
            s.goal > 0 ? std::optional(share >= s.goal) : std::nullopt, ""});
  }
}

// Most memory of the card in use while the program runs, in MiB, as nvidia-smi samples it.
std::optional<double> most_used(const fs::path& samples) {
  std::optional<double> most;
  std::ifstream file(samples);
  for (std::string text; std::getline(file, text);)
    if (!text.empty() && std::isdigit(static_cast<unsigned char>(text[0])))
      most = std::max(most.value_or(0), std::stod(text));
  return most;
}

void memory(Check& c) {
  const std::string text = c.work("long.txt").string(), model = c.work("random").string();
  std::string lines;
  for (int64_t i = 0; static_cast<int64_t>(lines.size()) < (c.o.small ? 3000 : 140000); ++i)
    lines += fmt::format("{} and {} are the numbers of line {}.\n", i * 7919 % 10007, i * i % 997, i);
  io::write_file_atomic(text, lines);
  fs::remove_all(model);
  const std::string config =
      c.o.small ? c.work("small.json").string() : (c.o.home / "configs" / "model-350m.json").string();
  if (c.o.small)
    io::write_json(config, Json{{"model_type", "gpt_neox"},
                                {"hidden_size", 32},
                                {"num_hidden_layers", 1},
                                {"num_attention_heads", 2},
                                {"intermediate_size", 64},
                                {"vocab_size", 272},
                                {"max_position_embeddings", 512}});
  const Args init = {c.program("coca"), "init", "--model-config", config, "--precision", "bf16", "--out", model};
  if (!c.run("memory", "coca init", init, 60)) return;
  for (const std::string& length : c.o.small ? Args{"512", "2048"} : Args{"32768", "131072"}) {
    const std::string what = fmt::format("perplexity of 350M at {}", length);
    const std::string file = c.work("ppl.json").string();
    const Child sampler{{"nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--loop-ms=100"},
                        120,
                        c.work("used.txt")};
    const Args eval = c.coca({"eval", "ppl", "--model", model, "--precision", "bf16", "--text", text, "--lengths",
                              length, "--max-tokens", length, "--stride", length, "--json", file});
    fs::remove(sampler.text);
    // The sampler runs beside the program and ends with it.
    const Args both = {"sh", "-c",
                       "if command -v nvidia-smi >/dev/null; then " + fmt::format("{}", fmt::join(sampler.argv, " ")) +
                           " >" + sampler.text.string() +
                           " & fi; \"$@\"; code=$?; [ -z \"$!\" ] || kill $!; exit $code",
                       "sh"};
    Args argv = both;
    argv.insert(argv.end(), eval.begin(), eval.end());
    if (!c.run("memory", what, argv, 90)) continue;
    const std::optional<double> used = most_used(sampler.text);
    const bool judged = used && !c.o.small && length == "131072";
    c.line({"memory", what, judged ? "<= 6 GiB" : "",
            used ? fmt::format("{:.2f} GiB of the card in use", *used / 1024) : "memory of the card not known",
            judged ? std::optional(*used <= 6 * 1024) : std::nullopt, ""});
    c.results["memory"][length] = io::read_json(file);
  }
}

// PyTorch on the same shapes, where there is one.
void torch(Check& c) {
  const std::string file = c.work("torch.json").string();
  const Child probe{{"python3", "-c", "import torch; assert torch.cuda.is_available()"}, 60, c.work("child.txt")};
  bool there = false;
  try {
    there = run(probe).code == 0;
  } catch (const Error&) {
  }
  if (!there) return c.line({"torch", "PyTorch", "", "not found with a card", std::nullopt, ""});
  if (!c.run("torch", "PyTorch",
             {"python3", (c.o.home / "peers" / "card_torch.py").string(), "--json", file, "--seconds",
              std::to_string(static_cast<int>(std::max(10.0, c.left() - 20)))},
             c.left() - 5))
    return;
  const Json found = io::read_json(file);
  c.results["torch"] = found;
  for (const Json& row : found["attention"]) {
    const std::string what =
        fmt::format("attention, D {}, N {}", row["head_dim"].get<int64_t>(), row["length"].get<int64_t>());
    if (!c.results.contains("attention") || !c.results["attention"].contains(what)) continue;
    const std::optional<Json> ours = Json{{"results", c.results["attention"][what]}};
    const auto both = entry_of(ours, {{"attention", "coca-slack"}, {"pass", "both"}}),
               plain = entry_of(ours, {{"attention", "none"}, {"pass", "both"}});
    if (both && row.contains("coca_compiled"))
      c.line({"torch", what + ": PyTorch's compiled CoCA over ours", ">= 0.95",
              ratio(row["coca_compiled"].get<double>() / (*both)["seconds"].get<double>()),
              row["coca_compiled"].get<double>() >= 0.95 * (*both)["seconds"].get<double>(), ""});
    if (plain && row.contains("cudnn"))
      c.line({"torch", what + ": cuDNN in PyTorch over ours, without prologues", ">= 0.98",
              ratio(row["cudnn"].get<double>() / (*plain)["seconds"].get<double>()),
              row["cudnn"].get<double>() >= 0.98 * (*plain)["seconds"].get<double>(), ""});
    if (both && row.contains("einsum"))
      c.line({"torch", what + ": the official einsum over ours", ">= 15",
              ratio(row["einsum"].get<double>() / (*both)["seconds"].get<double>()),
              row["einsum"].get<double>() >= 15 * (*both)["seconds"].get<double>(), ""});
  }
  for (const auto& [what, tokens] : found["training"].items())
    c.line({"torch", "PyTorch, compiled: training, " + what, "", fmt::format("{:.0f} tokens/s", tokens.get<double>()),
            std::nullopt, ""});
}

Options parse(int argc, char** argv) {
  Options o;
  o.home = fs::absolute(fs::path(argv[0])).parent_path().parent_path();
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--help" || flag == "-h") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    }
    if (flag == "--small") {
      o.small = true;
      continue;
    }
    COCA_CHECK(i + 1 < argc, "{}: needs a value, or is unknown; card_check --help", flag);
    const std::string value = argv[++i];
    if (flag == "--home")
      o.home = value;
    else if (flag == "--out")
      o.out = value;
    else if (flag == "--minutes")
      o.minutes = std::stod(value);
    else if (flag == "--device")
      o.device = value;
    else if (flag == "--only")
      for (size_t at = 0; at <= value.size(); at = std::min(value.find(',', at), value.size()) + 1)
        o.only.push_back(value.substr(at, std::min(value.find(',', at), value.size()) - at));
    else
      fail(ErrorKind::kInvalidArgument, "{}: unknown; card_check --help", flag);
  }
  return o;
}

int main_of(int argc, char** argv) {
  Check check(parse(argc, argv));
  const std::pair<const char*, void (*)(Check&)> sections[] = {
      {"card", card},         {"ops", ops},     {"goldens", goldens}, {"training", training}, {"attention", attention},
      {"decoding", decoding}, {"speed", speed}, {"memory", memory},   {"torch", torch}};
  for (const auto& [name, section] : sections) {
    if (!check.wanted(name)) continue;
    if (check.left() < 5) {
      check.line({name, std::string("section ") + name, "", "not run: no time left", std::nullopt, ""});
      continue;
    }
    try {
      section(check);
    } catch (const std::exception& error) {
      check.line({name, std::string("section ") + name, "", "failed", false, error.what()});
    }
  }
  return check.finish();
}

}  // namespace
}  // namespace coca::card

int main(int argc, char** argv) {
  try {
    return coca::card::main_of(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "card_check: %s\n", error.what());
    return 2;
  }
}
