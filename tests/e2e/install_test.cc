// The files that cmake --install writes, and a project outside the tree built against them with CMake and with
// pkg-config. coca itself is not compiled here.
// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "coca/io/json_file.h"
#include "e2e/cli_fixture.h"

namespace coca::install_test {
namespace {

namespace fs = std::filesystem;
using test::Outcome;
using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kShape =
    R"({"model_type": "llama", "attention_type": "coca-slack", "vocab_size": 260, "hidden_size": 32,
  "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32})";

class Install : public test::CliFixture {
 protected:
  static std::string quoted(const std::string& text) { return "'" + text + "'"; }
  void run(const std::string& command) {
    const Outcome o = shell(command);
    ASSERT_EQ(o.code, 0) << command << "\n" << o.out << o.err;
  }
  void install(const std::string& prefix, const std::string& before = "") {
    run(before + " " + quoted(COCA_CMAKE) + " --install " + quoted(COCA_BUILD_DIR) + " --prefix " + quoted(prefix));
  }
  // The file of this name below `folder`, since its location depends on the system.
  static fs::path found(const fs::path& folder, const std::string& name) {
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.path().filename() == name) return entry.path();
    ADD_FAILURE() << "no " << name << " below " << folder;
    return {};
  }
};

// The example prints the same perplexity and greedy ids as the program.
TEST_F(Install, ASeparateProjectBuildsAgainstIt) {
  install(at("prefix"));
  fs::copy(found(at("prefix"), "continue.cc").parent_path(), at("outside"));
  const std::string compiler = quoted(COCA_CXX);
  run(fmt::format("{0} -S {1} -B {2} -DCMAKE_PREFIX_PATH={3} -DCMAKE_CXX_COMPILER={4} && {0} --build {2}",
                  quoted(COCA_CMAKE), quoted(at("outside")), quoted(at("built")), quoted(at("prefix")), compiler));
  const std::string pkg_config = found(at("prefix"), "coca.pc").parent_path();
  run(fmt::format("PKG_CONFIG_PATH={} CXX={} CXXFLAGS=-O0 make -C {}", quoted(pkg_config), compiler,
                  quoted(at("outside"))));
  EXPECT_THAT(shell("PKG_CONFIG_PATH=" + quoted(pkg_config) + " pkg-config --modversion coca").out,
              testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+\n"));

  const std::string text = cats_and_dogs(4);
  ASSERT_EQ(coca({"init", "--model-config", put("shape.json", kShape), "--out", at("model")}).code, 0);
  ASSERT_EQ(coca({"eval", "ppl", "--model", at("model"), "--text", put("text.txt", text), "--lengths", "32", "--stride",
                  "32", "--json", at("ppl.json")})
                .code,
            0);
  ASSERT_EQ(coca({"generate", "--model", at("model"), "--prompt", text, "--temperature", "0", "--max-new-tokens", "8",
                  "--json", at("ids.json")})
                .code,
            0);
  const nlohmann::json ppl = io::read_json(at("ppl.json")).at("results").at(0), answer = io::read_json(at("ids.json"));
  std::string ids;
  for (const int id : answer.at("ids")) ids += fmt::format(" {}", id);
  const std::string expected = fmt::format("perplexity of {} tokens: {:.6f}\nnext ids:{}\n",
                                           ppl.at("scored_tokens").get<int>(), ppl.at("perplexity").get<double>(), ids);
  for (const char* program : {"built/continue", "outside/continue"}) {
    const Outcome o = shell(quoted(at(program)) + " " + quoted(at("model")) + " " + quoted(text));
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_THAT(o.out, HasSubstr(expected)) << program;
  }
  const Outcome refused = shell(quoted(at("built/continue")) + " " + quoted(at("none")) + " x");
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("none"));
}

TEST_F(Install, AnotherVersionIsRefused) {
  install(at("prefix"));
  put("later/CMakeLists.txt",
      "cmake_minimum_required(VERSION 3.25)\nproject(later LANGUAGES CXX)\nfind_package(coca 99 REQUIRED)\n");
  const Outcome o =
      shell(fmt::format("{} -S {} -B {} -DCMAKE_PREFIX_PATH={} -DCMAKE_CXX_COMPILER={}", quoted(COCA_CMAKE),
                        quoted(at("later")), quoted(at("built")), quoted(at("prefix")), quoted(COCA_CXX)));
  EXPECT_NE(o.code, 0);
  EXPECT_THAT(o.err, AllOf(HasSubstr("99"), HasSubstr("coca-config.cmake, version: 0.")));
}

// DESTDIR is put in front of the prefix, and every header finds the headers that it includes.
TEST_F(Install, EverythingIsInDestdirAndHeadersAreComplete) {
  install("/opt/coca", "DESTDIR=" + quoted(at("stage")));
  std::set<std::string> top;
  for (const auto& entry : fs::recursive_directory_iterator(at("stage"))) {
    if (entry.is_directory()) continue;
    const fs::path path = fs::relative(entry.path(), at("stage"));
    ASSERT_THAT(path.string(), testing::StartsWith("opt/coca/"));
    top.insert(*std::next(path.begin(), 2));
    EXPECT_THAT(path.filename().string(), testing::Not(testing::ContainsRegex("_test|gtest|bench")));
  }
  EXPECT_THAT(top, testing::IsSupersetOf({"bin", "include", "share"}));
  const fs::path include = fs::path(at("stage")) / "opt/coca/include";
  const std::regex line("#include \"(coca/[^\"]+)\"");
  int headers = 0;
  for (const auto& entry : fs::recursive_directory_iterator(include)) {
    if (entry.is_directory()) continue;
    ++headers;
    const std::string text = io::read_file(entry.path());
    for (std::sregex_iterator it(text.begin(), text.end(), line), end; it != end; ++it)
      EXPECT_TRUE(fs::exists(include / (*it)[1].str())) << entry.path() << " includes " << (*it)[1];
  }
  EXPECT_GT(headers, 100);
  EXPECT_EQ(shell(quoted(at("stage/opt/coca/bin/coca")) + " --version").code, 0);
  for (const char* file : {"doc/coca/LICENSE", "doc/coca/docs/guide.md", "man/man1/coca.1", "zsh/site-functions/_coca",
                           "bash-completion/completions/coca", "fish/vendor_completions.d/coca.fish"})
    EXPECT_TRUE(fs::exists(at("stage/opt/coca/share/") + file)) << file;
}

// Unpacks the packages of scripts/package into a folder.
TEST_F(Install, PackagesHoldTheProgramItsManualAndCompletions) {
  for (const char* program : {"dpkg-deb", "dpkg-shlibdeps"})
    if (shell("command -v " + std::string(program)).code != 0) GTEST_SKIP() << program << " is not installed";
  const Outcome made =
      shell(fmt::format("DEBFULLNAME='A Name' DEBEMAIL=a@b.example '{}/scripts/package' --build-dir {} --out {}",
                        COCA_SOURCE_DIR, quoted(COCA_BUILD_DIR), quoted(at("debs"))));
  ASSERT_EQ(made.code, 0) << made.out << made.err;
  EXPECT_EQ(std::ranges::count(made.out, '\n'), 2) << made.out;
  std::string program, library;
  for (const auto& entry : fs::directory_iterator(at("debs")))
    (entry.path().filename().string().starts_with("coca_") ? program : library) = entry.path();
  const std::string control = shell("dpkg-deb -f " + quoted(program)).out;
  EXPECT_THAT(control, AllOf(HasSubstr("Package: coca\n"), HasSubstr("Maintainer: A Name <a@b.example>\n"),
                             HasSubstr("Section: science\n"), testing::ContainsRegex("Version: [0-9.]+-1\n")));
  EXPECT_THAT(control, testing::ContainsRegex("Depends: .*libc6 .*libfmt"));
  EXPECT_THAT(shell("dpkg-deb -f " + quoted(library) + " Depends").out, HasSubstr("libsentencepiece-dev"));

  run("dpkg-deb -x " + quoted(program) + " " + quoted(at("root")) + " && dpkg-deb -x " + quoted(library) + " " +
      quoted(at("root")));
  const std::string share = at("root/usr/share/");
  EXPECT_THAT(shell(quoted(at("root/usr/bin/coca")) + " --version").out, testing::StartsWith("coca "));
  run(quoted(at("root/usr/bin/coca")) + " init --model-config " + quoted(put("shape.json", kShape)) + " --out " +
      quoted(at("model")));
  EXPECT_TRUE(fs::exists(at("model/model.safetensors")));
  for (const char* file : {"man/man1/coca.1.gz", "doc/coca/copyright", "doc/libcoca-dev/copyright"})
    EXPECT_TRUE(fs::exists(share + file)) << file;
  EXPECT_TRUE(fs::exists(at("root/usr/include/coca/model/decoder.h")));
  const std::string bash = share + "bash-completion/completions/coca";
  EXPECT_EQ(shell("bash -c \". '" + bash +
                  "'; COMP_WORDS=(coca generate --mo); COMP_CWORD=2; _coca; "
                  "echo \\${COMPREPLY[@]}\"")
                .out,
            "--model\n");
  for (const auto& [name, file] : {std::pair("bash", bash), std::pair("zsh", share + "zsh/vendor-completions/_coca"),
                                   std::pair("fish", share + "fish/vendor_completions.d/coca.fish")}) {
    ASSERT_TRUE(fs::exists(file));
    if (shell("command -v " + std::string(name)).code != 0) {
      std::printf("%s is not installed: its completions are not read\n", name);
      continue;
    }
    EXPECT_EQ(shell(std::string(name) + " -n " + quoted(file)).code, 0) << name;
  }
}

}  // namespace
}  // namespace coca::install_test
