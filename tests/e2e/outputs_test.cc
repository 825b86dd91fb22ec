// Outputs in unusual places or conditions: devices, links, outputs that would replace inputs, a failing standard
// output, file names of any bytes, hang-ups, limits of the system.
// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <thread>

#include "coca/io/json_file.h"
#include "coca/io/names.h"
#include "e2e/cli_fixture.h"

namespace coca::outputs_test {
namespace {

namespace fs = std::filesystem;
using test::Args;
using test::Outcome;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class Outputs : public test::CliFixture {
 protected:
  void SetUp() override {
    put("config.json",
        R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 257, "hidden_size": 16,
      "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
      "rms_norm_eps": 1e-5, "bos_token_id": 256, "eos_token_id": 256})");
    put("text.txt", cats_and_dogs(5));
    const Outcome made = coca({"init", "--model-config", at("config.json"), "--out", at("model")});
    ASSERT_EQ(made.code, 0) << made.err;
  }
  Args ppl(const Args& more) const {
    return with({"eval", "ppl", "--model", at("model"), "--text", at("text.txt"), "--lengths", "32"}, more);
  }
  // Runs a line of bash in the test's folder, in which coca is the program. Its standard error is kept.
  Outcome shell(const std::string& line) {
    put("line.sh", fmt::format("cd '{}'\ncoca() {{ '{}' --threads 1 \"$@\"; }}\n{{ {}\n}} 2> err.txt\n",
                               dir_.path().string(), COCA_PROGRAM, line));
    const int status = std::system(("bash '" + at("line.sh") + "' > /dev/null").c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), "", io::read_file(at("err.txt"))};
  }
  void expect_refused(const Args& args, const std::string& text) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_THAT(o.err, AllOf(StartsWith("coca: "), HasSubstr(text)));
    EXPECT_EQ(o.out, "") << "before anything is computed";
  }
  Args train(const std::string& out, const Args& more = {}) const {
    return with({"train", "--text", at("text.txt"), "--out", out, "--layers", "1", "--width", "16", "--heads", "2",
                 "--length", "16", "--batch", "1", "--warmup-steps", "1"},
                more);
  }
};

TEST_F(Outputs, GoToDevicesLinksAndPipesWhichAreKept) {
  const bool device = ::mknod(at("null").c_str(), S_IFCHR | 0666, ::makedev(1, 3)) == 0;
  ASSERT_EQ(::mkfifo(at("fifo").c_str(), 0666), 0);
  fs::create_symlink("real.json", at("link"));
  if (device) {
    EXPECT_EQ(coca(ppl({"--json", at("null"), "--csv", at("null")})).code, 0);
    EXPECT_TRUE(fs::is_character_file(at("null")));
  }
  std::string read;
  std::thread reader([&] { read = io::read_file(at("fifo")); });
  EXPECT_EQ(coca(ppl({"--json", at("fifo")})).code, 0);
  reader.join();
  EXPECT_EQ(nlohmann::json::parse(read).at("trained_length"), 32);
  EXPECT_TRUE(fs::is_fifo(at("fifo")));
  EXPECT_EQ(coca(ppl({"--json", at("link")})).code, 0);
  EXPECT_EQ(io::read_json(at("real.json")).at("trained_length"), 32);
  EXPECT_TRUE(fs::is_symlink(at("link")));
  const Outcome out = coca(ppl({"--json", "/dev/stdout"}));
  EXPECT_EQ(out.code, 0) << out.err;
  EXPECT_EQ(nlohmann::json::parse(out.out.substr(out.out.find("\n{") + 1)).at("trained_length"), 32);
  EXPECT_EQ(shell("coca data build --input text.txt --tokenizer byte --output >(cat > piped.tok); "
                  "for i in $(seq 100); do coca data info piped.tok 2> again.txt && exit 0; sleep 0.1; done; exit 9")
                .code,
            0);
}

TEST_F(Outputs, ReplaceNoInput) {
  const std::string text = at("text.txt"), before = io::read_file(text);
  put("books/a.txt", before);
  put("books/sub/b.jsonl", "{\"text\": \"" + before + "\"}\n");
  fs::create_symlink("text.txt", at("link"));
  fs::create_hard_link(text, at("hard"));
  for (const char* other : {"text.txt", "./text.txt", "books/../text.txt", "link", "hard"})
    expect_refused(ppl({"--json", at(other)}), "would replace an input, --text");
  const Args folder = {"eval", "ppl", "--model", at("model"), "--text", at("books"), "--lengths", "32"};
  expect_refused(with(folder, {"--csv", at("books/a.txt")}), "would replace an input, --text");
  expect_refused(with(folder, {"--plot", at("books/sub/b.jsonl")}), "would replace an input, --text");
  for (const char* file : {"config.json", "model.safetensors", "coca_tokenizer.json", "tokenizer.json"})
    expect_refused(ppl({"--document-csv", at("model") + "/" + file}), "would replace an input, --model");
  put("run.json", fmt::format(R"({{"text": ["{}"], "csv": "{}"}})", text, text));
  expect_refused({"eval", "ppl", "--model", at("model"), "--lengths", "32", "--config", at("run.json")},
                 "--csv " + text);
  expect_refused(ppl({"--config", at("run.json"), "--json", at("run.json"), "--csv", at("c.csv")}), "--config");
  expect_refused({"data", "build", "--text", text, "--tokenizer", "byte", "--out", text}, "would replace an input");
  // Files that a run writes under fixed names in its folder, also through links.
  put("run/metrics.csv", before);
  fs::create_directories(at("linked"));
  fs::create_hard_link(text, at("linked/metrics.csv"));
  const Args train = {"train", "--layers", "1", "--width", "32", "--heads", "2", "--length", "32", "--steps", "1"};
  expect_refused(with(train, {"--text", at("run/metrics.csv"), "--out", at("run")}), "would replace an input, --text");
  expect_refused(with(train, {"--text", text, "--out", at("linked")}), "would replace an input, --text");
  put("run/train_config.json", fmt::format(R"({{"text": ["{}"]}})", text));
  expect_refused(with(train, {"--config", at("run/train_config.json"), "--out", at("run")}),
                 "would replace an input, --config");
  put("set.idx", "x");
  expect_refused({"data", "import", "--dataset", at("set"), "--tokenizer", "byte", "--out", at("set.idx")},
                 "would replace an input");
  expect_refused({"tokenizer", "train", "--text", text, "--out", at("hard")}, "choose another file");
  expect_refused({"eval", "stream", "--model", at("model"), "--text", text, "--csv", text}, "would replace an input");
  expect_refused({"eval", "ruler", "--model", at("model"), "--text", text, "--predictions", text},
                 "would replace an input");
  expect_refused({"analyse", "--model", at("model"), "--text", text, "--html", text}, "would replace an input");
  EXPECT_EQ(io::read_file(text), before);
  for (const char* file : {"books/new.txt", "books/sub/new.jsonl"})
    expect_refused(with(folder, {"--csv", at(file)}), "would be read as text the next time");
  expect_refused({"eval", "ppl", "--model", at("model"), "--text", at("books/*.txt"), "--csv", at("books/r.txt")},
                 "would be read as text");
  for (const char* file : {"chart.png", "chart.SVG.pdf"})
    expect_refused(ppl({"--plot", at(file)}), "give it a name that ends in .svg");
  expect_refused({"analyse", "--model", at("model"), "--text", text, "--html", at("a.svg")}, "ends in .html or .htm");
  expect_refused({"convert", at("model"), at("model") + "/sub/new"}, "/model; choose a folder outside of it");
  EXPECT_EQ(coca(with(folder, {"--json", at("books/result.json")})).code, 0) << "results may lie beside the text";
  EXPECT_EQ(coca(with(folder, {"--json", at("books/result.json")})).code, 0) << "and be replaced there";
}

TEST_F(Outputs, MustBeDifferentFiles) {
  fs::create_symlink("x", at("link"));
  for (const char* other : {"x", "./x", "model/../x", "link"})
    expect_refused(ppl({"--json", at("x"), "--csv", at(other)}), "are one file");
  EXPECT_FALSE(fs::exists(at("x")));
  expect_refused(ppl({"--json", at("stdout.txt")}), "standard output");
  expect_refused(ppl({"--json", ""}), "--json: the path is empty");
  for (const char* flag : {"--csv", "--plot", "--document-csv", "--adapter", "--tokenizer"})
    expect_refused(ppl({flag, ""}), std::string(flag) + ": the path is empty");
  for (const auto& [path, why] : {std::pair("none/x", "the folder"), std::pair("model", "is a folder"),
                                  std::pair("text.txt/x", "does not exist")}) {
    const Outcome o = coca(ppl({"--csv", at(path)}));
    EXPECT_EQ(o.code, 1);
    EXPECT_THAT(o.err, AllOf(HasSubstr("--csv " + at(path)), HasSubstr(why)));
  }
}

TEST_F(Outputs, AreNotLostInAFolderThatIsReplaced) {
  fs::create_directory_symlink("run/model", at("link"));
  for (const char* folder :
       {"run/model", "run/model/events", "run/checkpoints/x", "run/../run/adapter", "link", "link/x"})
    expect_refused(train(at("run"), {"--tensorboard", at(folder)}), "which is replaced");
  expect_refused({"study", "--text", at("text.txt"), "--out", at("s"), "--tensorboard", at("s/runs")},
                 "which is replaced");
  EXPECT_FALSE(fs::exists(at("run")));
  const Outcome inside = coca(train(at("run"), {"--steps", "1", "--tensorboard", at("run/events")}));
  EXPECT_EQ(inside.code, 0) << inside.err;
  EXPECT_FALSE(fs::is_empty(at("run/events")));
  const Outcome file = coca(train(at("other"), {"--tensorboard", at("text.txt")}));
  EXPECT_EQ(file.code, 1);
  EXPECT_THAT(file.err, HasSubstr("--tensorboard " + at("text.txt") + ": is not a folder"));
  EXPECT_FALSE(fs::exists(at("other")));
}

TEST_F(Outputs, AFinetunedModelDoesNotReplaceTheOneItCameFrom) {
  fs::create_directory(at("run"));
  fs::rename(at("model"), at("run/model"));
  const std::string before = io::read_file(at("run/model/model.safetensors"));
  const Args tune = {"finetune", "--model", at("run/model"), "--text", at("text.txt"), "--out", at("run"),
                     "--steps",  "1",       "--train",       "all"};
  expect_refused(tune, "would replace " + at("run/model"));
  expect_refused(with(tune, {"--out", at("run/model/tuned")}), "lies in --model " + at("run/model"));
  EXPECT_FALSE(fs::exists(at("run/model/tuned")));
  EXPECT_EQ(io::read_file(at("run/model/model.safetensors")), before);
}

TEST_F(Outputs, AStandardOutputThatFailsFailsEveryCommand) {
  const Args lines = {"--help",
                      "--version",
                      "info",
                      "info model --json",
                      "methods",
                      "eval ppl --help",
                      "tokenizer info --tokenizer byte",
                      "tokenizer encode --tokenizer byte abc",
                      "data build --input text.txt --tokenizer byte --output t.tok",
                      "data info t.tok --json",
                      "generate --model model --prompt hi --max-new-tokens 2",
                      "generate --model model --prompt hi --max-new-tokens 2 --json",
                      "convert model made --json",
                      "eval ppl --model model --text text.txt --lengths 32 --json kept.json",
                      "train --text text.txt --out run --layers 1 "
                      "--width 16 --heads 2 --length 16 --batch 1 --steps 1 --warmup-steps 1"};
  for (const std::string& line : lines) {
    const Outcome full = shell("coca " + line + " > /dev/full");
    EXPECT_EQ(full.code, 1) << line;
    EXPECT_THAT(full.err, HasSubstr("coca: standard output: cannot write: No space left on device\n")) << line;
    fs::remove_all(at("made"));
    fs::remove_all(at("run"));
    const Outcome closed = shell("coca " + line + " >&-");
    EXPECT_EQ(closed.code, 1) << line;
    EXPECT_THAT(closed.err, HasSubstr("coca: standard output: cannot write: it is closed\n")) << line;
    fs::remove_all(at("made"));
    fs::remove_all(at("run"));
    const Outcome gone = shell("{ sleep 0.2; coca " + line + "; echo $? > code.txt; } | true");
    EXPECT_EQ(io::read_file(at("code.txt")), "141\n") << line;
    EXPECT_THAT(gone.err, testing::Not(HasSubstr("standard output"))) << line;
    for (const char* folder : {"made", "run"}) fs::remove_all(at(folder));
  }
  EXPECT_EQ(io::read_json(at("kept.json")).at("trained_length"), 32) << "files are written all the same";
  EXPECT_EQ(shell("coca generate --model model --max-new-tokens 2 <&-").code, 1);
  EXPECT_EQ(shell("coca eval ppl --model model --text text.txt --lengths 32 --json j.json <&- >&- 2>&-").code, 1);
  EXPECT_EQ(io::read_json(at("j.json")).at("trained_length"), 32) << "no file takes the place of a closed stream";
}

TEST_F(Outputs, ErrorsOfTheSystemAreNamed) {
  fs::create_symlink("loop", at("loop"));
  const std::string loop = at("loop"), name(300, 'n');
  const std::vector<std::pair<Args, std::string>> cases = {
      {train(loop), loop},
      {train(at(name)), name},
      {{"info", loop}, loop},
      {{"info", name}, name},
      {{"verify", loop}, loop},
      {{"tokenizer", "encode", "--tokenizer", name, "x"}, name},
      {{"convert", loop, at("x")}, loop},
      {{"convert", at("model"), at(name)}, name},
      {{"merge", "--model", at("model"), "--adapter", loop, "--out", at("x")}, loop},
      {{"data", "build", "--text", loop, "--tokenizer", "byte", "--out", at("x")}, loop},
      {{"eval", "ppl", "--model", loop, "--text", at("text.txt"), "--lengths", "32"}, loop},
      {{"eval", "ppl", "--model", at("model"), "--text", loop, "--lengths", "32"}, loop},
      {ppl({"--json", name}), name}};
  for (const auto& [args, path] : cases) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 1) << o.err;
    EXPECT_THAT(o.err, AllOf(StartsWith("coca: "), HasSubstr(path), testing::Not(HasSubstr("internal error"))));
  }
  const Outcome limited = shell(
      "ulimit -f 20; coca train --text text.txt --out f --layers 1 --width 64 --heads 2 --length 16 --batch 1 --steps "
      "1 --warmup-steps 1");
  EXPECT_EQ(limited.code, 1);
  EXPECT_THAT(limited.err, AllOf(HasSubstr("coca: "), HasSubstr("File too large")));
  for (const auto& entry : fs::recursive_directory_iterator(at("f")))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".tmp-")) << entry.path();
}

TEST_F(Outputs, AFileInThePlaceOfAFolderIsNamedWithItsFlag) {
  const std::string file = put("a_file", "x"), model = at("model"),
                    shape = put("shape.json", io::read_file(model + "/config.json"));
  for (const auto& [args, flag] : std::vector<std::pair<Args, std::string>>{
           {train(file), "--out"},
           {{"init", "--model-config", shape, "--out", file}, "--out"},
           {{"convert", model, file}, "OUT"},
           {{"merge", "--model", model, "--adapter", model, "--out", file}, "--out"},
           {{"tokenizer", "train", "--text", at("text.txt"), "--out", file}, "--out"},
           {{"bench", "train", "--export", file}, "--export"}}) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 1) << o.err;
    EXPECT_EQ(o.err, fmt::format("coca: {} {}: is a file, not a folder; choose another name\n", flag, file));
    EXPECT_EQ(io::read_file(file), "x");
  }
}

TEST_F(Outputs, InfoFailsOnADamagedFolder) {
  EXPECT_EQ(coca({"info", at("model")}).code, 0);
  const auto damaged = [&](const std::string& why) {
    const Outcome o = coca({"info", at("model"), "--json", "-"});
    EXPECT_EQ(o.code, 1) << why;
    EXPECT_THAT(o.err, AllOf(HasSubstr("cannot be used as it is"), HasSubstr(why)));
    EXPECT_EQ(nlohmann::json::parse(o.out).at("damages").size(), 1u) << "what can be told is told";
  };
  put("model/coca_tokenizer.json", "{");
  damaged("coca_tokenizer.json");
  put("model/coca_tokenizer.json", R"({"type": "byte"})");
  put("model/generation_config.json", "{\"top_p\": ");
  damaged("generation_config.json");
  fs::remove(at("model/generation_config.json"));
  fs::resize_file(at("model/model.safetensors"), 3000);
  damaged("model.safetensors");
  fs::remove(at("model/model.safetensors"));
  const Outcome bare = coca({"info", at("model")});
  EXPECT_EQ(bare.code, 0) << bare.err;
  EXPECT_THAT(bare.out, HasSubstr("no weights"));
}

TEST_F(Outputs, ConvertRefusesABrokenTokenizerFirst) {
  fs::remove(at("model/coca_tokenizer.json"));
  for (const char* content : {"", "no model"}) {
    put("model/tokenizer.model", content);
    const Outcome o = coca({"convert", at("model"), at("made")});
    EXPECT_EQ(o.code, 1) << content;
    EXPECT_THAT(o.err, AllOf(HasSubstr("coca: "), HasSubstr("model/tokenizer.model")));
    EXPECT_FALSE(fs::exists(at("made")));
  }
}

TEST_F(Outputs, WideTextOnStandardInputIsReadAsUtf8) {
  for (const char* text : {R"(\xff\xfea\0b\0\n\0)", R"(\xfe\xff\0a\0b\0\n)", R"(\0\0\xfe\xff\0\0\0a\0\0\0b)"}) {
    const Outcome o = shell(std::string("printf '") + text + "' | coca tokenizer encode --tokenizer byte > ids.txt");
    EXPECT_EQ(io::read_file(at("ids.txt")), "97 98\n") << text;
    EXPECT_THAT(o.err, AllOf(HasSubstr("standard input: UTF-"), HasSubstr("text read as UTF-8")));
    EXPECT_EQ(std::ranges::count(o.err, '\n'), 1) << o.err;
  }
  put("wide.txt", std::string("\xff\xfe"
                              "a\0\n\0b\0",
                              8));
  const Outcome lines = coca({"tokenizer", "encode", "--tokenizer", "byte", "--lines", at("wide.txt")});
  EXPECT_EQ(lines.out, "[97]\n[98]\n");
  EXPECT_THAT(lines.err, HasSubstr("wide.txt: UTF-16LE text read as UTF-8"));
}

TEST_F(Outputs, AByteOrderMarkIsNoText) {
  ASSERT_EQ(shell(R"(printf '\xef\xbb\xbfab\n' | coca tokenizer encode --tokenizer byte > ids.txt)").code, 0);
  EXPECT_EQ(io::read_file(at("ids.txt")), "97 98\n");
  const Outcome lines = coca({"tokenizer", "encode", "--tokenizer", "byte", "--lines",
                              put("marked.txt",
                                  "\xef\xbb\xbf"
                                  "a\nb")});
  EXPECT_EQ(lines.out, "[97]\n[98]\n");
  const std::string frame = put("t.jinja", "\xef\xbb\xbf{% for m in messages %}<{{ m.content }}>{% endfor %}");
  const Outcome chat = coca({"generate", "--model", at("model"), "--chat", "--chat-template", frame, "--prompt", "x",
                             "--max-new-tokens", "1", "--json", "-"});
  EXPECT_EQ(nlohmann::json::parse(chat.out)["prompt_ids"], nlohmann::json({'<', 'x', '>'})) << chat.err;
}

// A pseudo-terminal that captures what is written to it and can type into it.
class Terminal {
 public:
  Terminal() : fd_(::posix_openpt(O_RDWR | O_NOCTTY)) {
    EXPECT_TRUE(fd_ >= 0 && ::grantpt(fd_) == 0 && ::unlockpt(fd_) == 0);
    held_ = ::open(name().c_str(), O_RDWR | O_NOCTTY);  // keeps output readable after the writer has closed it
    termios raw{};
    ::tcgetattr(held_, &raw);
    raw.c_oflag = 0;
    raw.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    ::tcsetattr(held_, TCSANOW, &raw);
  }
  ~Terminal() { ::close(fd_), ::close(held_); }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  std::string name() const { return ::ptsname(fd_); }
  void type(std::string_view text) const {
    EXPECT_EQ(::write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::string shown() const {
    std::string text(65536, '\0');
    pollfd ready{.fd = fd_, .events = POLLIN, .revents = 0};
    const ssize_t n = ::poll(&ready, 1, 0) == 1 ? ::read(fd_, text.data(), text.size()) : 0;
    text.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
    return text;
  }

 private:
  int fd_, held_;
};

TEST_F(Outputs, ControlCharactersOfATextDoNotSteerATerminal) {
  const Terminal terminal;
  const std::string decode = "coca tokenizer decode --tokenizer byte 97 27 91 51 49 109 9 10 13 127 194 155 195 169";
  ASSERT_EQ(shell(decode + " > " + terminal.name() + "; " + decode + " > file.txt").code, 0);
  EXPECT_EQ(terminal.shown(), "a\\x1b[31m\t\n\\x0d\\x7f\\xc2\\x9b\xc3\xa9\n");
  EXPECT_EQ(io::read_file(at("file.txt")), "a\x1b[31m\t\n\r\x7f\xc2\x9b\xc3\xa9\n") << "a file gets the bytes";
}

TEST_F(Outputs, ReadingFromATerminalIsReported) {
  const Terminal terminal;
  terminal.type("ab\n\x04");
  const Outcome o = shell("coca tokenizer encode --tokenizer byte < " + terminal.name() + " > ids.txt");
  EXPECT_EQ(io::read_file(at("ids.txt")), "97 98\n");
  EXPECT_EQ(o.err, "note: the text is read from the terminal; Ctrl-D on an empty line ends it\n");
}

TEST_F(Outputs, AHangUpSavesUnlessItIsIgnored) {
  const Args long_run = train(at("run"), {"--steps", "100000000", "--checkpoint-interval", "100000000"});
  test::Program program(dir_.path(), long_run);
  while (!fs::exists(at("run/metrics.csv")) || lines("run/metrics.csv") < 2)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ::kill(program.pid(), SIGHUP);
  EXPECT_EQ(program.wait().code, 130);
  EXPECT_FALSE(fs::is_empty(at("run/checkpoints")));
  std::string command;
  for (const std::string& arg : train(at("nohup"), {"--steps", "60"})) command += arg + " ";
  EXPECT_EQ(shell("trap '' HUP; coca " + command +
                  "& pid=$!; while [ ! -e nohup/metrics.csv ]; do sleep 0.02; done; kill -HUP $pid; wait $pid")
                .code,
            0);
  EXPECT_TRUE(fs::exists(at("nohup/model")));
}

TEST_F(Outputs, OneOfSeveralThatCreateAFolderWins) {
  const Outcome o = shell(
      "for i in 1 2 3 4; do { coca init --model-config config.json --seed $i --out made 2>> errors.txt && echo $i >> "
      "won.txt; } & done; wait");
  EXPECT_EQ(lines("won.txt"), 1) << o.err;
  EXPECT_EQ(lines("errors.txt"), 3);
  EXPECT_EQ(shell("coca init --model-config config.json --seed $(cat won.txt) --out again && cmp "
                  "again/model.safetensors made/model.safetensors")
                .code,
            0);
  for (const auto& entry : fs::directory_iterator(dir_.path()))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".tmp-")) << entry.path();
}

TEST_F(Outputs, NamesThatAreNotUtf8) {
  const std::string odd = "caf\xe9", text = put(odd + "/" + odd + ".txt", cats_and_dogs(5));
  const auto utf8 = [&](const std::string& file) {
    const std::string content = io::read_file(at(file));
    EXPECT_TRUE(io::is_utf8(content)) << file;
    return content;
  };
  const auto run = [&](const Args& args) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_TRUE(io::is_utf8(o.out) && io::is_utf8(o.err)) << args[0];
    return o;
  };
  const Args eval = {"--model", at("model"), "--text", at(odd)};
  fs::create_directory_symlink(at("model"), at(odd + "/m"));
  run({"eval", "ppl", "--model", at("model"), "--model", at(odd + "/m"), "--text", at(odd), "--lengths", "32"});
  run(with(with({"eval", "ppl"}, eval),
           {"--lengths", "32", "--json", at(odd + "/o.json"), "--document-csv", at("d.csv")}));
  const auto json = io::read_json(at(odd + "/o.json"));
  EXPECT_EQ(io::bytes_from_name(json.at("options").at("text").at(0).get<std::string>()), at(odd));
  EXPECT_EQ(json.at("documents").at(0).at("document"), io::name_from_bytes(text));
  EXPECT_THAT(utf8("d.csv"), HasSubstr("caf\\xe9.txt"));
  run(with(with({"eval", "stream"}, eval), {"--json", at("s.json")}));
  run(with(with({"analyse"}, eval), {"--json", at("a.json"), "--html", at("a.html")}));
  utf8("a.html");
  Args tiny = train(at(odd + "/run"), {"--checkpoint-interval", "2", "--steps", "2"});
  tiny[2] = at(odd);
  run(tiny);
  tiny.back() = "4";
  EXPECT_THAT(run(with(tiny, {"--resume"})).out, HasSubstr("resuming at step 2"));
  run({"finetune", "--model", at(odd + "/run/model"), "--text", at(odd), "--out", at(odd + "/tuned"), "--steps", "1",
       "--batch", "1"});
  run({"info", at(odd + "/run/model"), "--json"});
  run({"data", "build", "--text", at(odd), "--tokenizer", "byte", "--out", at(odd + "/x.tok")});
  EXPECT_EQ(nlohmann::json::parse(run({"data", "info", at(odd + "/x.tok"), "--json"}).out).at("file"),
            io::name_from_bytes(at(odd + "/x.tok")));
  const Outcome missing = coca({"info", at(odd + "/none")});
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.err, HasSubstr("caf\\xe9/none does not exist"));
}

// Every flag that takes text must either be in the list of tools/paths.cc or in the list here of flags that are not
// paths.
TEST_F(Outputs, EveryFlagThatNamesAPathIsKnownToBeOne) {
  const std::set<std::string> no_paths = {
      "--chat-var", "--cpu-target",   "--string",  "--force-impl",  "--field",  "--device",
      "--freeze",   "--lora-targets", "--methods", "--ntk-methods", "--prompt", "--protocol",
      "--stages",   "--stop",         "--system",  "--tasks",       "--train",  "--type"};
  std::set<std::string> texts, paths;
  const std::function<void(const Args&)> walk = [&](const Args& command) {
    const std::string help = coca(with(command, {"--help"})).out;
    const std::regex flag("\\n +(?:-., ?)?(--[a-z0-9-]+)[^ ]* (TEXT|FILE|PATH)");
    for (std::sregex_iterator it(help.begin(), help.end(), flag), end; it != end; ++it)
      ((*it)[2] == "PATH" ? paths : texts).insert((*it)[1]);
    const size_t subcommands = help.find("\nSubcommands:\n");
    if (subcommands == std::string::npos) return;
    const std::regex name("\\n  ([a-z]+) ");
    for (std::sregex_iterator it(help.begin() + static_cast<std::ptrdiff_t>(subcommands), help.end(), name), end;
         it != end; ++it)
      walk(with(command, {(*it)[1]}));
  };
  walk({});
  for (const std::string& flag : texts)
    EXPECT_TRUE(no_paths.contains(flag)) << flag
                                         << ": put it into the list of tools/paths.cc, or here if it names no path";
  EXPECT_GE(paths.size(), 20u);
}

}  // namespace
}  // namespace coca::outputs_test
