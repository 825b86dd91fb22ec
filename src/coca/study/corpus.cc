// SPDX-License-Identifier: Apache-2.0
#include "coca/study/corpus.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "coca/base/count.h"
#include "coca/eval/protocol.h"
#include "coca/io/fs.h"
#include "coca/report/child_process.h"
#include "coca/report/table.h"
#include "coca/train/load_data.h"

namespace coca::study {

namespace fs = std::filesystem;

namespace {

// The include folder of the C++ library as `compiler` reports it ("" when it cannot say).
fs::path library_folder(const std::string& compiler) {
  if (!report::program_in_path(compiler)) return {};
  // The dependency list of a file that includes <vector> names the header with its full path.
  const report::ProcessResult result = report::run_process({compiler, "-x", "c++", "-M", "-"}, "#include <vector>\n");
  if (result.exit_code != 0) return {};
  for (size_t at = 0; at < result.out.size();) {
    const size_t begin = result.out.find_first_not_of(" \\\n", at);
    if (begin == std::string::npos) break;
    const size_t end = std::min(result.out.find_first_of(" \\\n", begin), result.out.size());
    const fs::path file = result.out.substr(begin, end - begin);
    if (file.filename() == "vector" && io::exists(file)) return file.lexically_normal().parent_path();
    at = end;
  }
  return {};
}

// `most` at most, from the middle.
std::vector<int32_t> tokens_of(const data::TokenFile& file, int64_t document, int64_t most = 0) {
  const auto [begin, end] = file.document(document);
  const int64_t count = most > 0 ? std::min(most, end - begin) : end - begin;
  std::vector<int32_t> ids(static_cast<size_t>(count));
  file.read(begin + eval::cut_begin(end - begin, most, eval::Cut::kMiddle), ids);
  return ids;
}

class Part {  // documents gathered into one token file in memory
 public:
  void add(const std::vector<int32_t>& ids) {
    tokens_.insert(tokens_.end(), ids.begin(), ids.end());
    offsets_.push_back(static_cast<int64_t>(tokens_.size()));
  }
  bool empty() const { return tokens_.empty(); }
  data::TokenFile file(int64_t vocabulary) && {
    return data::TokenFile::from_tokens(std::move(tokens_), std::move(offsets_), vocabulary);
  }

 private:
  std::vector<int32_t> tokens_;
  std::vector<int64_t> offsets_{0};
};

// Long documents first, then in the corpus's order; so that every length can be reached where the text allows it.
void choose_test(const StudyConfig& c, const data::TokenFile& file, std::vector<int64_t> documents, Corpus& corpus) {
  const int64_t longest = eval_lengths(c).back();
  std::stable_partition(documents.begin(), documents.end(), [&](int64_t d) {
    return file.document(d).second - file.document(d).first >= std::min(longest, c.eval_tokens);
  });
  for (const int64_t d : documents) {
    if (static_cast<int64_t>(corpus.test.size()) == c.eval_documents) break;
    std::vector<int32_t> ids = tokens_of(file, d, c.eval_tokens);
    if (ids.size() < 2) continue;
    corpus.test_names.push_back(
        fmt::format("document {} ({})", d, counted(file.document(d).second - file.document(d).first, "token")));
    corpus.test.push_back(std::move(ids));
  }
  COCA_CHECK(!corpus.test.empty(), "the test text holds no document of at least two tokens");
}

}  // namespace

std::vector<std::string> standard_library_headers() {
  std::vector<std::string> compilers{"c++", "g++", "clang++"};
  if (const char* cxx = std::getenv("CXX")) compilers.insert(compilers.begin(), cxx);
  for (const std::string& compiler : compilers) {
    const fs::path folder = library_folder(compiler);
    if (folder.empty()) continue;
    std::vector<std::string> files;
    std::error_code error;
    fs::recursive_directory_iterator entry(folder, error);
    for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error))
      // Tiny files are forwarding headers: a line of text in a page of licence.
      if (io::is_regular_file(entry->path()) && io::file_bytes(entry->path()) >= 4096)
        files.push_back(entry->path().string());
    COCA_CHECK_AS(kIo, !error, "{}: cannot list folder: {}", folder.string(), error.message());
    std::sort(files.begin(), files.end());
    if (!files.empty()) return files;
  }
  fail(ErrorKind::kIo,
       "no C++ compiler found that says where its standard library headers are (tried CXX, c++, g++, clang++); give "
       "--text");
}

namespace {

// Of one list of documents, those that the training takes and those that are held out.
data::Overlap overlap_within(std::string_view list, const std::vector<int64_t>& held_out) {
  std::string training, test;
  auto next = held_out.begin();
  for (int64_t d = 0; !list.empty(); ++d) {
    const std::string_view line = list.substr(0, std::min(list.find('\n') + 1, list.size()));
    list.remove_prefix(line.size());
    const bool out = next != held_out.end() && *next == d;
    (out ? test : training) += line;
    if (out) ++next;
  }
  return data::find_overlap(training, test);
}

}  // namespace

Corpus load_corpus(const StudyConfig& c, Keep keep) {
  Corpus corpus;
  corpus.tokenizer = text::load_tokenizer(c.tokenizer);
  const std::vector<std::string> inputs = c.text.empty() ? standard_library_headers() : c.text;
  const fs::path data = fs::path(c.out) / "data";
  const auto load = [&](const std::vector<std::string>& text, const char* name, std::optional<data::Split> split,
                        data::Split otherwise, std::string& list) {
    if (keep == Keep::kNothing)
      return train::sample_tokens(text, *corpus.tokenizer, {.tokens = int64_t{1} << 24, .documents = 60}, split,
                                  otherwise, &list);
    data::TokenFile file = train::load_tokens(text, *corpus.tokenizer, data / name, {}, split, otherwise);
    list = train::document_list(text, data / name);
    return file;
  };
  std::string list, test_list;
  const data::TokenFile all = load(inputs, "text.tok", c.split, data::Split::kTrain, list);
  const int64_t documents = all.documents();
  const bool own_test = !c.test_text.empty();
  COCA_CHECK(own_test || documents >= 3,
             "text: has {}; at least 3 are needed to hold some out; give more text, or --test-text",
             counted(documents, "document"));

  Part train, validation;
  std::vector<int64_t> held_out;
  for (int64_t d = 0; d < documents; ++d) {
    if (!own_test && (d % 10 == 9 || (documents < 10 && d == documents - 1))) {
      held_out.push_back(d);
    } else if (documents == 1) {
      std::vector<int32_t> ids = tokens_of(all, 0);
      const auto cut = static_cast<std::ptrdiff_t>(ids.size() - ids.size() / 20);
      train.add({ids.begin(), ids.begin() + cut});
      validation.add({ids.begin() + cut, ids.end()});
    } else if (d % 20 == 4 || (documents < 5 && d == 0)) {
      validation.add(tokens_of(all, d));
    } else {
      train.add(tokens_of(all, d));
    }
  }
  corpus.train = std::move(train).file(all.vocab_size());
  corpus.validation = std::move(validation).file(all.vocab_size());
  if (own_test) {
    const data::TokenFile test = load(c.test_text, "test.tok", std::nullopt, data::Split::kTest, test_list);
    std::vector<int64_t> order(static_cast<size_t>(test.documents()));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
    choose_test(c, test, order, corpus);
    corpus.shared = data::find_overlap(list, test_list);
  } else {
    choose_test(c, all, held_out, corpus);
    corpus.shared = overlap_within(list, held_out);
  }
  corpus.description =
      fmt::format("{}: {}, {} ({} tokenizer); {} for training, {} for validation; {} of at most {} each, {}",
                  c.text.empty() ? "The C++ standard library headers of the installed compiler" : "The given text",
                  counted(documents, "document"), counted(all.size(), "token"), corpus.tokenizer->kind(),
                  counted(corpus.train->size(), "token"), grouped(corpus.validation->size()),
                  counted(corpus.test.size(), "test document"), counted(c.eval_tokens, "token"),
                  own_test ? "from the given test text" : "held out from it");
  return corpus;
}

}  // namespace coca::study
