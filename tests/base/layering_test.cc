// Checks every include under src/coca against cmake/layers.txt, and every file there against the house rules that a
// machine can check: an SPDX line, at most 600 lines, no printing and no exiting.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace coca::layering_test {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr size_t kMostLines = 600;

struct Layer {
  std::set<std::string> modules;         // modules that it may include, besides itself
  std::vector<std::string> third_party;  // a header's exact name or a prefix
};
using Layers = std::map<std::string, Layer>;

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// "module : modules ; third-party headers", "#" starts a comment.
Layers parse_layers(const std::string& text) {
  Layers layers;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    line = line.substr(0, line.find('#'));
    const size_t colon = line.find(':'), semicolon = line.find(';');
    if (colon == std::string::npos) continue;
    const std::vector<std::string> name = words_of(line.substr(0, colon));
    if (name.size() != 1 || semicolon == std::string::npos || semicolon < colon) {
      ADD_FAILURE() << "cmake/layers.txt: not \"module : modules ; headers\": " << line;
      continue;
    }
    Layer& layer = layers[name[0]];
    for (const std::string& m : words_of(line.substr(colon + 1, semicolon - colon - 1))) layer.modules.insert(m);
    layer.third_party = words_of(line.substr(semicolon + 1));
  }
  return layers;
}

// The module of a path below src/: "coca/kernels/ref/rope.h" is in kernels/ref, "coca/base/rng.h" in base.
std::string module_of(const std::string& path) {
  const fs::path whole = path;
  const std::vector<std::string> parts(whole.begin(), whole.end());
  if (parts.size() < 3 || parts[0] != "coca") return "";
  if (parts[1] == "kernels") return parts.size() < 4 ? "" : "kernels/" + parts[2];
  return parts[1];
}

bool is_system(const std::string& header) {
  static const std::set<std::string> kPosix = {
      "dirent.h", "dlfcn.h",   "errno.h", "fcntl.h",  "fnmatch.h", "glob.h",   "immintrin.h", "limits.h",
      "poll.h",   "pthread.h", "sched.h", "signal.h", "spawn.h",   "stdint.h", "stdio.h",     "stdlib.h",
      "string.h", "termios.h", "time.h",  "unistd.h", "wchar.h",   "xlocale.h"};
  const bool standard = header.find_first_of("./") == std::string::npos;  // <vector>
  return standard || header.starts_with("sys/") || header.starts_with("linux/") || header.starts_with("sanitizer/") ||
         kPosix.contains(header);
}

// Blanks out comments and, if asked, strings. Line breaks are kept.
enum class Strings { kKeep, kBlank };
std::string without_comments(const std::string& text, Strings strings) {
  std::string out = text;
  const auto blank = [&](size_t from, size_t to) {
    for (size_t i = from; i < std::min(to, out.size()); ++i)
      if (out[i] != '\n') out[i] = ' ';
  };
  for (size_t i = 0; i < text.size();) {
    size_t end = i + 1;
    if (text.compare(i, 2, "//") == 0) {
      blank(i, end = std::min(text.find('\n', i), text.size()));
    } else if (text.compare(i, 2, "/*") == 0) {
      end = text.find("*/", i + 2);
      blank(i, end = end == std::string::npos ? text.size() : end + 2);
    } else if (text.compare(i, 2, "R\"") == 0) {
      const size_t open = text.find('(', i);
      const std::string close = ")" + text.substr(i + 2, open - i - 2) + "\"";
      end = text.find(close, open);
      end = end == std::string::npos ? text.size() : end + close.size();
      if (strings == Strings::kBlank) blank(i + 2, end - 1);
    } else if (text[i] == '"' ||
               (text[i] == '\'' && (i == 0 || !std::isalnum(static_cast<unsigned char>(text[i - 1]))))) {
      while (end < text.size() && text[end] != text[i] && text[end] != '\n') end += text[end] == '\\' ? 2 : 1;
      if (strings == Strings::kBlank) blank(i + 1, end);
      ++end;
    }
    i = end;
  }
  return out;
}

// Errors in the includes of one file; `path` is relative to src/.
std::vector<std::string> include_problems(const Layers& layers, const std::string& path, const std::string& text) {
  static const std::regex kInclude(R"(^\s*#\s*include\s*(.*?)\s*$)");
  const std::string module = module_of(path);
  const auto layer = layers.find(module);
  if (layer == layers.end()) return {path + ": its folder is no module of cmake/layers.txt"};
  std::vector<std::string> problems;
  std::istringstream stream(without_comments(text, Strings::kKeep));
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    std::smatch match;
    if (!std::regex_match(line, match, kInclude)) continue;
    const std::string what = match[1];
    const auto report = [&](const std::string& why) {
      problems.push_back(path + ":" + std::to_string(number) + ": #include " + what + ": " + why);
    };
    if (what.size() < 3 || (what[0] != '"' && what[0] != '<')) {
      report("a computed include cannot be checked");
      continue;
    }
    const std::string header = what.substr(1, what.size() - 2);
    if (header.starts_with("coca/")) {
      const std::string target = module_of(header);
      if (target != module && !layer->second.modules.contains(target))
        report(module + " must not include " + (target.empty() ? "a file outside the modules" : target));
    } else if (!(what[0] == '<' && is_system(header)) && !header.starts_with("fmt/")) {
      const auto& allowed = layer->second.third_party;
      if (std::none_of(allowed.begin(), allowed.end(), [&](const std::string& a) { return header.starts_with(a); }))
        report("third-party header not allowed in " + module);
    }
  }
  return problems;
}

// Finds code that prints or exits, which only tools/ may do.
std::vector<std::string> manner_problems(const std::string& path, const std::string& text) {
  static const std::regex kForbidden(R"(std::(cout|cerr|clog)\b|\b(v?printf|puts|putchar|perror)\s*\(|\bfmt::print\b)"
                                     R"(|\b(fprintf|fputs|fwrite|fputc|print|putc)\s*\([^;]*\b(stdout|stderr)\b)"
                                     R"(|\b(abort|exit|_exit|_Exit|quick_exit|terminate)\s*\()");
  std::vector<std::string> problems;
  if (text.find("SPDX-License-Identifier: Apache-2.0") == std::string::npos)
    problems.push_back(path + ": no SPDX line");
  std::istringstream stream(without_comments(text, Strings::kBlank));
  size_t number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    std::smatch match;
    if (std::regex_search(line, match, kForbidden))
      problems.push_back(path + ":" + std::to_string(number) + ": the library must not print or exit: " + match.str());
  }
  if (number > kMostLines)
    problems.push_back(path + ": " + std::to_string(number) + " lines; at most " + std::to_string(kMostLines));
  return problems;
}

std::string read(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

// Sources and headers under src/coca, with paths relative to src/.
std::map<std::string, std::string> sources() {
  std::map<std::string, std::string> files;
  const fs::path root = fs::path(COCA_SOURCE_DIR) / "src";
  for (const auto& entry : fs::recursive_directory_iterator(root / "coca")) {
    const std::string extension = entry.path().extension().string();
    if (entry.is_regular_file() && std::set<std::string>{".h", ".cc", ".cu", ".cuh", ".inc"}.contains(extension))
      files[fs::relative(entry.path(), root).generic_string()] = read(entry.path());
  }
  return files;
}

Layers project_layers() { return parse_layers(read(fs::path(COCA_SOURCE_DIR) / "cmake" / "layers.txt")); }

TEST(Layering, EveryIncludeIsAllowed) {
  const Layers layers = project_layers();
  ASSERT_GE(layers.size(), 10u);
  const auto files = sources();
  ASSERT_GE(files.size(), 20u);
  for (const auto& [path, text] : files)
    for (const std::string& problem : include_problems(layers, path, text)) ADD_FAILURE() << problem;
}

TEST(Layering, LayersAreOneDirectional) {
  const Layers layers = project_layers();
  // Repeatedly removes modules whose dependencies have all been removed. What remains is in a cycle.
  std::set<std::string> done;
  for (bool moved = true; moved;) {
    moved = false;
    for (const auto& [name, layer] : layers)
      if (!done.contains(name) && std::includes(done.begin(), done.end(), layer.modules.begin(), layer.modules.end()))
        moved = done.insert(name).second;
  }
  for (const auto& [name, layer] : layers)
    EXPECT_TRUE(done.contains(name)) << name << " depends on itself or on an unknown module";
}

TEST(HouseRules, EveryFileKeepsThem) {
  for (const auto& [path, text] : sources())
    for (const std::string& problem : manner_problems(path, text)) ADD_FAILURE() << problem;
}

// Tests of the checks themselves.
const char* const kSampleLayers =
    "# comment\nbase : ; omp.h\nkernels/cpu : base ; hwy\nops : base kernels/cpu ;\ntext : base ; "
    "sentencepiece\n";

std::vector<std::string> includes(const std::string& path, const std::string& text) {
  return include_problems(parse_layers(kSampleLayers), path, text);
}

TEST(LayeringCheck, AcceptsWhatIsAllowed) {
  EXPECT_THAT(includes("coca/ops/a.cc",
                       "#include \"coca/base/error.h\"\n#include \"coca/ops/b.h\"\n"
                       "#include \"coca/kernels/cpu/c.h\"\n#include <vector>\n#include <fmt/format.h>\n"
                       "#include <sys/wait.h>\n#include <unistd.h>\n"),
              IsEmpty());
  EXPECT_THAT(includes("coca/base/p.cc", "#include <omp.h>\n"), IsEmpty());
  EXPECT_THAT(includes("coca/kernels/cpu/a.cc", "#include \"hwy/foreach_target.h\"\n#  include <hwy/highway.h>\n"),
              IsEmpty());
  EXPECT_THAT(includes("coca/text/t.cc", "#include <sentencepiece_processor.h>\n"), IsEmpty());
  EXPECT_THAT(includes("coca/base/c.cc", "// #include <CLI/CLI.hpp>\n/*\n#include <gtest/gtest.h>\n*/\n"), IsEmpty());
}

TEST(LayeringCheck, NamesFileLineAndInclude) {
  EXPECT_THAT(includes("coca/base/a.h", "// x\n\n#include \"coca/ops/b.h\"\n"),
              Contains("coca/base/a.h:3: #include \"coca/ops/b.h\": base must not include ops"));
}

TEST(LayeringCheck, FindsWhatIsForbidden) {
  for (const char* line :
       {"#include <omp.h>", "#include <CLI/CLI.hpp>", "#include <CLI11.hpp>", "#include <gtest/gtest.h>",
        "#include <benchmark/benchmark.h>", "#include <hwy/highway.h>", "#include <nlohmann/json.hpp>",
        "#include \"local.h\"", "#include \"../base/error.h\"", "#include \"coca/text/t.h\"",
        "#include \"coca/other/x.h\"", "#include \"coca/x.h\"", "#include HEADER", "#include \"coca/kernels/ref/x.h\""})
    EXPECT_THAT(includes("coca/ops/a.cc", line), testing::SizeIs(1)) << line;
  EXPECT_THAT(includes("coca/nowhere/a.cc", ""), Contains(HasSubstr("no module")));
  EXPECT_THAT(includes("coca/a.cc", ""), Contains(HasSubstr("no module")));
}

TEST(HouseRulesCheck, FindsPrintingAndExiting) {
  const std::string spdx = "// SPDX-License-Identifier: Apache-2.0\n";
  for (const char* line : {"std::cout << 1;", "std::cerr<<1;", "printf(\"x\");", "std::printf (\"x\");",
                           "fprintf(stderr, \"x\");", "fmt::print(\"x\");", "puts(\"x\");", "abort();", "std::exit(1);",
                           "if (x) ::_exit (1);", "std::terminate();", "std::fputs(\"x\", stdout);"})
    EXPECT_THAT(manner_problems("coca/a.cc", spdx + line), testing::SizeIs(1)) << line;
  for (const char* line :
       {"std::snprintf(b, 3, \"x\");", "std::fprintf(file, \"x\");", "// abort();", "f(\"std::cout << exit(1)\");",
        "at_exit(1);", "x.exit_code();", "R\"(printf(\"x\"))\";", "int fingerprint(int);", "log_fputs(x);",
        "const char c = '\"'; // std::cout", "int n = 1'000'000; /* exit( */"})
    EXPECT_THAT(manner_problems("coca/a.cc", spdx + line), IsEmpty()) << line;
}

TEST(HouseRulesCheck, FindsMissingSpdxAndLength) {
  EXPECT_THAT(manner_problems("coca/a.cc", "int x;\n"), Contains("coca/a.cc: no SPDX line"));
  std::string text = "// SPDX-License-Identifier: Apache-2.0\n";
  for (size_t i = 1; i < kMostLines; ++i) text += "\n";
  EXPECT_THAT(manner_problems("coca/a.cc", text), IsEmpty());
  EXPECT_THAT(manner_problems("coca/a.cc", text + "\n"), Contains(HasSubstr("601 lines; at most 600")));
}

}  // namespace
}  // namespace coca::layering_test
