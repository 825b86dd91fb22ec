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

struct Piece {  // of a document; [begin, end) are tokens of the file
  int64_t document, begin, end;
  int64_t size() const { return end - begin; }
};

// `most` at most, from the middle.
std::vector<int32_t> tokens_of(const data::TokenFile& file, const Piece& piece, int64_t most = 0) {
  std::vector<int32_t> ids(static_cast<size_t>(most > 0 ? std::min(most, piece.size()) : piece.size()));
  file.read(piece.begin + eval::cut_begin(piece.size(), most, eval::Cut::kMiddle), ids);
  return ids;
}

struct Pieces {
  std::vector<Piece> all;
  int64_t tokens() const {
    int64_t sum = 0;
    for (const Piece& p : all) sum += p.size();
    return sum;
  }
};

constexpr double kValidationShare = 0.05, kTestShare = 0.1;

struct Parts {
  Pieces train, validation, test;
  bool whole = false;  // documents are whole; else the end of each is held out
};

Parts whole_documents(const data::TokenFile& file, bool with_test) {
  Parts parts{.train = {}, .validation = {}, .test = {}, .whole = true};
  const int64_t documents = file.documents();
  for (int64_t d = 0; d < documents; ++d) {
    const bool test = with_test && (d % 10 == 9 || (documents < 10 && d == documents - 1));
    const bool validation = d % 20 == 4 || (documents < 5 && d == 0);
    const auto [begin, end] = file.document(d);
    (test ? parts.test : validation ? parts.validation : parts.train).all.push_back({d, begin, end});
  }
  return parts;
}

Parts ends_of_documents(const data::TokenFile& file, bool with_test) {
  Parts parts;
  for (int64_t d = 0; d < file.documents(); ++d) {
    const auto [begin, end] = file.document(d);
    const int64_t test = with_test ? end - (end - begin) / 10 : end, validation = test - (end - begin) / 20;
    parts.train.all.push_back({d, begin, validation});
    parts.validation.all.push_back({d, validation, test});
    if (with_test) parts.test.all.push_back({d, test, end});
  }
  return parts;
}

// Whole documents, unless a few of very different sizes would make a part half or twice as large as it is meant to be.
Parts split(const data::TokenFile& file, bool with_test) {
  Parts parts = whole_documents(file, with_test);
  const auto near = [&](const Pieces& part, double wanted) {
    const double share = static_cast<double>(part.tokens()) / static_cast<double>(std::max<int64_t>(1, file.size()));
    return share >= wanted / 2 && share <= wanted * 2.2;  // ten documents of about the same size: one is a tenth
  };
  if (!parts.train.all.empty() && near(parts.validation, kValidationShare) &&
      (!with_test || near(parts.test, kTestShare)))
    return parts;
  return ends_of_documents(file, with_test);
}

// "1,234 tokens (5.1 %: the end of each document)"
std::string part_text(const Parts& parts, const Pieces& part, int64_t all) {
  const double percent = 100 * static_cast<double>(part.tokens()) / static_cast<double>(std::max<int64_t>(1, all));
  return fmt::format("{} ({:.1f} %: {})", counted(part.tokens(), "token"), percent,
                     parts.whole ? counted(part.all.size(), "whole document") : "the end of each document");
}

// One token file in memory.
data::TokenFile gather(const data::TokenFile& file, const Pieces& pieces) {
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets{0};
  for (const Piece& piece : pieces.all) {
    const std::vector<int32_t> ids = tokens_of(file, piece);
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    offsets.push_back(static_cast<int64_t>(tokens.size()));
  }
  return data::TokenFile::from_tokens(std::move(tokens), std::move(offsets), file.vocab_size());
}

Pieces everything(const data::TokenFile& file) {
  Pieces pieces;
  for (int64_t d = 0; d < file.documents(); ++d)
    pieces.all.push_back({d, file.document(d).first, file.document(d).second});
  return pieces;
}

// Long documents first, then in the corpus's order; so that every length can be reached where the text allows it.
void choose_test(const StudyConfig& c, const data::TokenFile& file, Pieces pieces, const char* name, Corpus& corpus) {
  const int64_t longest = eval_lengths(c).back();
  std::ranges::stable_partition(pieces.all,
                                [&](const Piece& p) { return p.size() >= std::min(longest, c.eval_tokens); });
  for (const Piece& piece : pieces.all) {
    if (static_cast<int64_t>(corpus.test.size()) == c.eval_documents) break;
    std::vector<int32_t> ids = tokens_of(file, piece, c.eval_tokens);
    if (ids.size() < 2) continue;
    corpus.test_names.push_back(fmt::format("{} {} ({})", name, piece.document, counted(piece.size(), "token")));
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
data::Overlap overlap_within(std::string_view list, const Pieces& held_out) {
  std::string training, test;
  auto next = held_out.all.begin();
  for (int64_t d = 0; !list.empty(); ++d) {
    const std::string_view line = list.substr(0, std::min(list.find('\n') + 1, list.size()));
    list.remove_prefix(line.size());
    const bool out = next != held_out.all.end() && next->document == d;
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
    list = train::document_list(text, file, *corpus.tokenizer, data / name);
    return file;
  };
  std::string list, test_list;
  const data::TokenFile all = load(inputs, "text.tok", c.split, data::Split::kTrain, list);
  const int64_t documents = all.documents();
  const bool own_test = !c.test_text.empty();
  const Parts parts = split(all, !own_test);
  corpus.train = gather(all, parts.train);
  corpus.validation = gather(all, parts.validation);
  if (own_test) {
    const data::TokenFile test = load(c.test_text, "test.tok", std::nullopt, data::Split::kTest, test_list);
    choose_test(c, test, everything(test), "document", corpus);
    corpus.shared = data::find_overlap(list, test_list);
  } else {
    choose_test(c, all, parts.test, parts.whole ? "document" : "end of document", corpus);
    if (parts.whole) corpus.shared = overlap_within(list, parts.test);  // copies end alike: both ends are held out
  }
  corpus.description = fmt::format(
      "{}: {}, {} ({} tokenizer); {} for training, held out for validation {}{}; evaluated on {} of at most {} each, "
      "{}",
      c.text.empty() ? "The C++ standard library headers of the installed compiler" : "The given text",
      counted(documents, "document"), counted(all.size(), "token"), corpus.tokenizer->kind(),
      counted(corpus.train->size(), "token"), part_text(parts, parts.validation, all.size()),
      own_test ? "" : " and for the test " + part_text(parts, parts.test, all.size()),
      counted(corpus.test.size(), "test document"), counted(c.eval_tokens, "token"),
      own_test ? "from the given test text" : "from the middle of what is held out for it");
  return corpus;
}

}  // namespace coca::study
