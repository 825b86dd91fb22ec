// coca/data/corpus.cc - see corpus.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/corpus.h"

#include <nlohmann/json.hpp>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/mmap.h"
#include "coca/io/names.h"
#include "coca/text/utf16.h"
#include "coca/text/utf8.h"

namespace coca::data {

namespace {

std::vector<std::filesystem::path> corpus_files(const CorpusOptions& options) {
  COCA_CHECK(!options.inputs.empty(), "corpus: no input files, folders or globs given");
  return io::expand_inputs(options.inputs, {".txt", ".jsonl"});
}

class CorpusReader {
 public:
  CorpusReader(const CorpusOptions& options, const std::function<void(Document&&)>& take)
      : options_(options), take_(take) {}

  CorpusReport read() {
    for (const auto& file : corpus_files(options_)) {
      if (full()) break;
      ++report_.files;
      if (file.extension() == ".jsonl")
        read_json_lines(file);
      else
        read_text(file);
    }
    COCA_CHECK_AS(kBadFile, report_.documents > 0, "corpus: no document in {} ({}), first input \"{}\"",
                  counted(report_.files, "file"),
                  report_.empty_documents == 0 ? "none held text" : counted(report_.empty_documents, "empty document"),
                  options_.inputs.front());
    return std::move(report_);
  }

 private:
  bool full() const {
    return (options_.max_documents > 0 && report_.documents >= options_.max_documents) ||
           (options_.enough && options_.enough());
  }

  void warn(std::string text) {
    if (report_.warnings.size() < kMaxWarnings) report_.warnings.push_back(std::move(text));
  }

  // Replaces broken UTF-8 unless it is to be kept; true if there was some.
  bool mend(std::string& text, const std::string& name) {
    const size_t at = text::find_invalid(text);
    if (at == text.size()) return false;
    COCA_CHECK_AS(kBadFile, options_.invalid_utf8 != InvalidUtf8::kError, "{}: invalid UTF-8 at byte {}", name, at);
    if (options_.invalid_utf8 == InvalidUtf8::kReplace) text = text::replace_invalid(text);
    return true;
  }

  void hand_out(std::string name, std::string text, bool was_invalid) {
    if (text.empty()) {
      ++report_.empty_documents;
      warn(name + ": empty document skipped");
      return;
    }
    if (was_invalid) {
      ++report_.invalid_utf8_documents;
      warn(name + ": invalid UTF-8 " + (options_.invalid_utf8 == InvalidUtf8::kKeep ? "kept" : "replaced by U+FFFD"));
    }
    ++report_.documents;
    report_.bytes += static_cast<int64_t>(text.size());
    take_({std::move(name), std::move(text)});
  }

  void read_text(const std::filesystem::path& file) {
    std::string text = io::read_file(file);
    if (std::optional<text::WideText> wide = text::read_wide(text)) {
      warn(fmt::format("{}: {} text read as UTF-8", io::shown_name(file.string()), wide->encoding));
      text = std::move(wide->text);
    }
    text::strip_bom(text);
    const bool invalid = mend(text, file.string());
    hand_out(file.string(), std::move(text), invalid);
  }

  void read_json_lines(const std::filesystem::path& file) {
    const io::MappedFile mapped(file);
    std::string_view rest(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
    const std::optional<text::WideText> wide = text::read_wide(rest);
    if (wide) {
      warn(fmt::format("{}: {} text read as UTF-8", io::shown_name(file.string()), wide->encoding));
      rest = wide->text;
    }
    if (rest.starts_with("\xef\xbb\xbf")) rest.remove_prefix(3);
    if (rest.empty()) hand_out(file.string(), "", false);
    for (int64_t number = 1; !rest.empty() && !full(); ++number) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
        ++report_.skipped_lines;
        continue;
      }
      read_json_line(line, fmt::format("{}:{}", file.string(), number));
    }
  }

  void read_json_line(std::string_view line, const std::string& name) {
    std::string mended;
    const bool invalid = !text::is_valid_utf8(line);
    if (invalid) {
      COCA_CHECK_AS(kBadFile, options_.invalid_utf8 != InvalidUtf8::kError, "{}: invalid UTF-8 at byte {}", name,
                    text::find_invalid(line));
      mended = text::replace_invalid(line);
      line = mended;
    }
    nlohmann::json object = io::parse_json(line, name);
    hand_out(name, std::move(text_field(object, name)), invalid);
  }

  std::string& text_field(nlohmann::json& object, const std::string& name) const {
    COCA_CHECK_AS(kBadFile, object.is_object(), "{}: found {}; expected an object with the text of a document", name,
                  object.type_name());
    for (const std::string& field : options_.json_field.empty() ? std::vector<std::string>{"content", "text"}
                                                                : std::vector<std::string>{options_.json_field}) {
      const auto it = object.find(field);
      if (it == object.end()) continue;
      COCA_CHECK_AS(kBadFile, it->is_string(), "{}: field \"{}\" is {}; expected a string", name, field,
                    it->type_name());
      return it->get_ref<std::string&>();
    }
    std::string found;
    for (const auto& item : object.items())
      if (found.size() < 200) found += (found.empty() ? "" : ", ") + item.key();
    const bool chosen = !options_.json_field.empty();
    fail(ErrorKind::kBadFile, "{}: no field {}; found {}{}", name,
         chosen ? "\"" + options_.json_field + "\"" : "\"content\" or \"text\"", found.empty() ? "no fields" : found,
         chosen || found.empty() ? ""
                                 : ". To use another field, name it with --field where the command has that option; "
                                   "to train on it, make a token file with coca data build --field");
  }

  const CorpusOptions& options_;
  const std::function<void(Document&&)>& take_;
  CorpusReport report_;
};

}  // namespace

CorpusReport read_corpus(const CorpusOptions& options, const std::function<void(Document&&)>& take) {
  COCA_CHECK(options.max_documents >= 0, "corpus: max_documents is {}; expected 0 or more", options.max_documents);
  return CorpusReader(options, take).read();
}

int64_t corpus_file_bytes(const CorpusOptions& options) {
  int64_t total = 0;
  for (const auto& file : corpus_files(options)) {
    std::error_code error;
    const auto bytes = std::filesystem::file_size(file, error);
    if (!error) total += static_cast<int64_t>(bytes);
  }
  return total;
}

}  // namespace coca::data
