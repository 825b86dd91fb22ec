// SPDX-License-Identifier: Apache-2.0
#include "paths.h"

#include <fnmatch.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>

#include "cli.h"
#include "coca/base/error.h"
#include "coca/formats/model_folder.h"
#include "coca/io/fs.h"
#include "output_flags.h"

namespace coca::tools {

namespace fs = std::filesystem;

namespace {

enum class Role {
  kFile,    // one file, or a name that is not a path ("byte", "auto")
  kTexts,   // files, globs or folders, separated by commas
  kModel,   // a model folder, or one file of it
  kResult,  // a file to write in an existing folder
  kMade,    // a file or folder to write; missing parent folders are created
};

// Flags by their long names.
std::optional<Role> role_of(const std::string& name) {
  static const std::map<std::string, Role> kRoles = {{"adapter", Role::kModel},
                                                     {"chat-template", Role::kFile},
                                                     {"checkpoints", Role::kModel},
                                                     {"config", Role::kFile},
                                                     {"dataset", Role::kTexts},
                                                     {"file", Role::kFile},
                                                     {"csv", Role::kResult},
                                                     {"data", Role::kTexts},
                                                     {"document-csv", Role::kResult},
                                                     {"evaluator", Role::kModel},
                                                     {"export", Role::kMade},
                                                     {"haystack", Role::kTexts},
                                                     {"html", Role::kResult},
                                                     {"input", Role::kTexts},
                                                     {"json", Role::kResult},
                                                     {"json-lines", Role::kFile},
                                                     {"lines", Role::kFile},
                                                     {"messages", Role::kFile},
                                                     {"model", Role::kModel},
                                                     {"model-config", Role::kFile},
                                                     {"out", Role::kMade},
                                                     {"output", Role::kMade},
                                                     {"plan", Role::kFile},
                                                     {"plot", Role::kResult},
                                                     {"position-csv", Role::kResult},
                                                     {"position-plot", Role::kResult},
                                                     {"predictions", Role::kResult},
                                                     {"tensorboard", Role::kMade},
                                                     {"test-text", Role::kTexts},
                                                     {"text", Role::kTexts},
                                                     {"tokenizer", Role::kModel},
                                                     {"validation-data", Role::kTexts},
                                                     {"validation-text", Role::kTexts}};
  const auto found = kRoles.find(name);
  return found == kRoles.end() ? std::nullopt : std::optional(found->second);
}

// Files that are loaded from a model folder. Other files there may be results of earlier runs.
bool is_model_file(const fs::path& file) {
  static constexpr const char* kNames[] = {"config.json",
                                           "params.json",
                                           "generation_config.json",
                                           "manifest.json",
                                           "adapter_config.json",
                                           "tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "added_tokens_decoder.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "vocab.txt",
                                           "chat_template.json",
                                           "chat_variables.json",
                                           "passkey.json",
                                           "coca_tokenizer.json",
                                           "tekken.json"};
  static constexpr const char* kEndings[] = {".safetensors", ".safetensors.index.json", ".model", ".jinja",
                                             ".tiktoken"};
  const std::string name = file.filename().string();
  return std::ranges::find(kNames, name) != std::end(kNames) ||
         std::ranges::any_of(kEndings, [&](const char* ending) { return name.ends_with(ending); });
}

// Compares equal for all names of one file or folder. If it does not exist yet, for all spellings of its path.
struct Identity {
  dev_t device = 0;
  ino_t file = 0;
  std::string place;
  bool operator==(const Identity&) const = default;
};

Identity identity_of(const fs::path& path) {
  const fs::path target = io::output_place(path).target;
  struct stat status {};
  if (::stat(target.c_str(), &status) == 0) return {status.st_dev, status.st_ino, ""};
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(fs::absolute(target, error), error);
  return {0, 0, (error ? target : whole).string()};
}

bool lies_in(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  fs::path at = fs::weakly_canonical(fs::absolute(path, error), error);
  const Identity inner = identity_of(path), outer = identity_of(folder);
  if (error || inner == outer) return false;
  for (; at.has_relative_path(); at = at.parent_path())
    if (identity_of(at) == outer) return true;
  return false;
}

struct Use {
  std::string flag, path;
  Role role;
  std::string shown;  // what the user calls the flag
  std::string text() const { return shown + " " + path; }
};

// The nearest existing parent folder must be writable. An output that already exists is left for the command to refuse.
void check_can_be_made(const Use& output) {
  const std::string text = output.text();
  const fs::path target = io::output_place(output.path).target;
  std::error_code error;
  if (fs::exists(target, error)) {
    COCA_CHECK_AS(kIo, output.flag != "--tensorboard" || io::is_folder(target), "{}: is not a folder", text);
    return;
  }
  fs::path above = fs::absolute(target, error).lexically_normal();
  do above = above.parent_path();
  while (!fs::exists(above, error) && above.has_relative_path());
  COCA_CHECK_AS(kIo, io::is_folder(above), "{}: cannot be made, as {} is not a folder", text, above.string());
  COCA_CHECK_AS(kIo, ::access(above.c_str(), W_OK) == 0, "{}: the folder {} cannot be written to: {}", text,
                above.string(), std::strerror(errno));
}

bool is_output(Role role) { return role == Role::kResult || role == Role::kMade; }

struct Uses {
  std::vector<Use> inputs, outputs;
  std::vector<std::string> to_stdout;  // flags whose output goes there
};

void add(Uses& uses, const Use& use) { (is_output(use.role) ? uses.outputs : uses.inputs).push_back(use); }

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    parts.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return parts;
}

Uses uses_of(const std::vector<TypedFlag>& typed, const std::vector<SettledFlag>& settled) {
  Uses uses;
  for (const TypedFlag& flag_typed : typed) {
    const std::vector<std::string>& names = flag_typed.names;
    const auto named = std::ranges::find_if(names, takes_path);
    if (named == names.end()) continue;
    const Role role = *role_of(*named);
    const std::string flag = "--" + *named, shown = flag_typed.label.empty() ? flag : flag_typed.label;
    for (const std::string& value : flag_typed.values)
      COCA_CHECK(!value.empty(), "{}: the path is empty; name a file or a folder, or leave the flag out", shown);
    const auto known = std::ranges::find_if(settled, [&](const SettledFlag& s) {
      return std::ranges::any_of(names, [&](const std::string& name) { return s.flag == "--" + name; });
    });
    for (const std::string& value : known != settled.end() ? known->values : flag_typed.values)
      for (const std::string& path : known == settled.end() && role == Role::kTexts ? split(value) : std::vector{value})
        if ((*named == "json" || *named == "csv") && is_stdout(path))
          uses.to_stdout.push_back(flag);
        else if (!path.empty())
          add(uses, {flag, path, role, shown});
  }
  return uses;
}

// Checks that all inputs exist before anything is written. Names that are not paths, such as those of tokenizers and
// templates, are left to the command.
void check_input_is_there(const Use& input) {
  const bool byte = input.flag == "--tokenizer" && input.path == "byte";
  if (byte || input.flag == "--chat-template" || input.flag == "--config") return;
  if (input.flag == "--dataset") {
    COCA_CHECK_AS(kIo, io::exists(input.path + ".idx"), "{}: there is no {}.idx", input.text(), input.path);
  } else if (input.role == Role::kTexts && !io::exists(input.path)) {
    const bool pattern = input.path.find_first_of("*?[") != std::string::npos;
    glob_t matches{};
    const bool found = pattern && ::glob(input.path.c_str(), 0, nullptr, &matches) == 0;
    ::globfree(&matches);
    COCA_CHECK_AS(kIo, found, "{}: there is no such file or folder{}", input.text(),
                  pattern ? ", and the pattern matches none" : "");
  } else {
    COCA_CHECK_AS(kIo, io::exists(input.path), "{} does not exist{}", input.text(),
                  input.flag == "--model"     ? formats::what_instead(input.path)
                  : input.flag == "--adapter" ? formats::adapter_instead(input.path)
                                              : "");
  }
}

// Checked before the work, because an error hours later would lose the result.
void check_result_can_be_written(const Use& output) {
  const io::OutputPlace place = io::output_place(output.path);
  if (place.stream) {
    COCA_CHECK_AS(kIo, place.descriptor || ::access(place.target.c_str(), W_OK) == 0, "{}: cannot be written: {}",
                  output.text(), std::strerror(errno));
    return;
  }
  const fs::path folder = place.target.has_parent_path() ? place.target.parent_path() : fs::path(".");
  COCA_CHECK_AS(kIo, io::is_folder(folder), "{}: the folder {} does not exist", output.text(), folder.string());
  COCA_CHECK_AS(kIo, !io::is_folder(place.target), "{}: is a folder where a file is to be written", output.text());
  COCA_CHECK_AS(kIo, ::access(folder.c_str(), W_OK) == 0, "{}: the folder {} cannot be written to: {}", output.text(),
                folder.string(), std::strerror(errno));
}

struct OutputFile {
  const Use* use;
  fs::path path;
  Identity identity;
};

// Files that commands write to --out under fixed names. A run that is resumed may read its own configuration from
// there.
std::vector<fs::path> files_in_folder(const fs::path& folder) {
  std::vector<fs::path> files{folder / "tokenizer.model"};
  std::vector<const char*> names = {"metrics.csv", "results.json", "results.csv",
                                    "summary.csv", "report.html",  "report.md"};
  if (!io::exists(folder / "checkpoints")) names.insert(names.end(), {"train_config.json", "finetune_config.json"});
  for (const char* name : names)
    if (io::exists(folder / name)) files.push_back(folder / name);
  return files;
}

// The files that the outputs would replace. Streams are left out.
std::vector<OutputFile> files_of(const std::vector<Use>& outputs) {
  std::vector<OutputFile> files;
  for (const Use& output : outputs) {
    if (io::output_place(output.path).stream) continue;
    if (!io::is_folder(output.path)) {
      files.push_back({&output, output.path, identity_of(output.path)});
      continue;
    }
    for (const fs::path& path : files_in_folder(output.path)) files.push_back({&output, path, identity_of(path)});
  }
  return files;
}

void check_outputs_differ(const std::vector<OutputFile>& files) {
  for (size_t i = 0; i < files.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      COCA_CHECK(files[i].identity != files[j].identity, "{} and {} are one file; give each its own",
                 files[j].use->text(), files[i].use->text());
  for (const OutputFile& file : files)
    for (const auto& [descriptor, name] :
         {std::pair(STDOUT_FILENO, "standard output"), std::pair(STDERR_FILENO, "standard error")}) {
      struct stat status {};
      const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
      COCA_CHECK(!regular || file.identity != Identity({status.st_dev, status.st_ino, ""}),
                 "{} is the file that {} goes to; give each its own", file.use->text(), name);
    }
}

// Training replaces or removes these folders in --out, with everything in them.
void check_outputs_stay(const std::vector<Use>& outputs) {
  for (const Use& folder : outputs)
    for (const char* name : {"model", "adapter", "checkpoints", "runs"})
      for (const Use& output : outputs) {
        const fs::path replaced = fs::path(folder.path) / name;
        COCA_CHECK(folder.flag != "--out" ||
                       (identity_of(output.path) != identity_of(replaced) && !lies_in(output.path, replaced)),
                   "{} lies in {}, which is replaced; choose another folder", output.text(), replaced.string());
      }
}

// Files that the command would read through this input, as far as an output could replace them.
std::vector<fs::path> files_read(const Use& input) {
  std::vector<fs::path> files;
  const auto add_if_there = [&](const fs::path& file) {
    if (io::is_regular_file(file)) files.push_back(file);
  };
  add_if_there(input.path);
  if (input.role == Role::kTexts) {
    for (const char* ending : {".idx", ".bin"}) add_if_there(input.path + ending);  // of an indexed dataset
    if (!io::is_folder(input.path) && io::exists(input.path)) return files;
    add_if_there(fs::path(input.path) / "metadata.csv");  // of PG-19
    try {
      for (const fs::path& file : io::expand_inputs({input.path}, {".txt", ".jsonl"})) files.push_back(file);
    } catch (const Error&) {  // the command reports the error itself
    }
  } else if (input.role == Role::kModel && io::is_folder(input.path)) {
    for (const fs::path& file : io::list_folder(input.path))
      if (is_model_file(file)) add_if_there(file);
  }
  return files;
}

// Whether the output lies in a folder of texts and has the ending of a text, or matches a pattern of texts.
bool would_be_text(const Use& input, const OutputFile& output) {
  if (input.role != Role::kTexts || io::is_folder(output.path)) return false;
  if (!io::exists(input.path)) {
    const auto whole = [](const fs::path& path) { return fs::absolute(path).lexically_normal().string(); };
    return ::fnmatch(whole(input.path).c_str(), whole(output.path).c_str(), FNM_PATHNAME | FNM_PERIOD) == 0;
  }
  const std::string ending = output.path.extension().string();
  return io::is_folder(input.path) &&
         (ending == ".txt" || ending == ".jsonl" || (ending == ".json" && input.flag.ends_with("data"))) &&
         lies_in(output.path, input.path);
}

void check_inputs_stay(const std::vector<Use>& inputs, const std::vector<OutputFile>& files) {
  const bool some_exist =
      std::ranges::any_of(files, [](const OutputFile& file) { return file.identity.place.empty(); });
  for (const Use& input : inputs) {
    const auto refuse = [&](const OutputFile& output) {
      fail(ErrorKind::kInvalidArgument, "{} would replace an input, {}; choose another {}", output.use->text(),
           input.text(), io::is_folder(output.use->path) ? "folder" : "file");
    };
    for (const OutputFile& output : files) {
      const fs::path folder = output.path.has_parent_path() ? output.path.parent_path() : fs::path(".");
      if (input.role == Role::kModel && is_model_file(output.path) && identity_of(folder) == identity_of(input.path))
        refuse(output);
    }
    for (const fs::path& file : some_exist ? files_read(input) : std::vector<fs::path>()) {
      const Identity identity = identity_of(file);
      for (const OutputFile& output : files)
        if (output.identity == identity) refuse(output);
    }
    for (const OutputFile& output : files)
      COCA_CHECK(!would_be_text(input, output),
                 "{} is where {} finds its texts, and would be read as text the next time; choose another",
                 output.use->text(), input.text());
  }
}

}  // namespace

bool takes_path(std::string_view name) { return role_of(std::string(name)).has_value(); }

void check_paths(const std::vector<TypedFlag>& typed, const std::vector<SettledFlag>& settled) {
  const Uses uses = uses_of(typed, settled);
  COCA_CHECK(uses.to_stdout.size() <= 1, "{} and {} both go to standard output; give one of them a file",
             uses.to_stdout[0], uses.to_stdout[1]);
  if (!uses.to_stdout.empty()) print_to_stderr();
  for (const Use& input : uses.inputs) check_input_is_there(input);
  for (const Use& output : uses.outputs)
    if (output.role == Role::kResult)
      check_result_can_be_written(output);
    else
      check_can_be_made(output);
  const std::vector<OutputFile> files = files_of(uses.outputs);
  check_outputs_differ(files);
  check_outputs_stay(uses.outputs);
  check_inputs_stay(uses.inputs, files);
}

void check_outside(std::string_view output_flag, const fs::path& output, std::string_view input_flag,
                   const fs::path& input) {
  COCA_CHECK(!lies_in(output, input), "{} {} lies in {} {}; choose a folder outside of it", output_flag,
             output.string(), input_flag, input.string());
}

void check_is_no_file(std::string_view flag, const fs::path& folder) {
  COCA_CHECK_AS(kIo, !io::exists(folder) || io::is_folder(folder),
                "{} {}: is a file, not a folder; choose another name", flag, folder.string());
}

void check_apart(std::string_view output_flag, const fs::path& output, std::string_view input_flag,
                 const fs::path& input) {
  COCA_CHECK(identity_of(output) != identity_of(input), "{} would replace {}, which is {}; choose another folder",
             output_flag, output.string(), input_flag);
}

}  // namespace coca::tools
