// coca convert: converts a model folder to another format.
// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "cli.h"
#include "coca/formats/convert.h"
#include "coca/io/fs.h"
#include "coca/report/table.h"
#include "companions.h"
#include "output_flags.h"

namespace coca::tools {

namespace {

namespace fs = std::filesystem;

enum class StoredAs : uint8_t { kSource, kF32, kF16, kBF16 };

}  // namespace

}  // namespace coca::tools

COCA_ENUM_NAMES(coca::tools::StoredAs, "dtype", {coca::tools::StoredAs::kSource, "source"},
                {coca::tools::StoredAs::kF32, "f32"}, {coca::tools::StoredAs::kF16, "f16"},
                {coca::tools::StoredAs::kBF16, "bf16"})

namespace coca::tools {

namespace {

struct Options {
  std::string source, out;
  std::optional<model::AttentionKind> attention, source_attention;
  formats::TInit t_init = formats::ConvertOptions{}.t_init;
  std::optional<model::TWidth> t_width;
  int64_t seed = 0;
  model::WindowOptions windows;
  formats::MetaSettings meta;
  StoredAs dtype = StoredAs::kSource;
  double max_shard_gib = 5.0;
  std::string json;

  template <class V>
  void visit(V&& v) {
    v.group("Folders");
    v("model", "model folder: Hugging Face's layout, or Meta's (params.json, consolidated*.safetensors)", source);
    v("out", "folder to write; must not exist", out);
    v.group("Attention");
    v("attention", "of the result: coca-slack, coca-strict or coca-tied; default: that of the source", attention);
    v("t_init", "initial T: K, K scaled to the size of the queries, or random numbers", t_init);
    v("t_width",
      "of the result's T projection: half (a number for each rotary pair) or full (for each dim); default: the "
      "source's, half for a new T",
      t_width);
    v("seed", "seed of --t-init random", seed);
    v("source_attention",
      "attention of the source if its config.json does not state it: official CoCA folders of GPT-NeoX",
      source_attention);
    windows.visit(v);
    v.group("Meta's layout: values that params.json lacks");
    v("llama_version", "1, 2, 3, 3.1, 3.2 or 3.3: gives the trained length, the rope factor and eos", meta.version);
    v("rope_factor", "of LLaMA 3.1 and later; default: the version's", meta.rope_factor);
    v("trained_length", "tokens; default: the version's", meta.trained_length, Least{1});
    v("eos", "ids that end a text; default: the version's", meta.eos);
    v.group("Files");
    v("dtype", "element type of every tensor; source: each as it is", dtype);
    v("max_shard_gib", "largest weight file, in GiB", max_shard_gib, kAboveZero);
    v.group("Output");
    v("json", "write a report to this file, as JSON; -: to standard output, instead of the text", json);
  }
};

std::optional<DType> dtype_of(StoredAs stored) {
  switch (stored) {
    case StoredAs::kSource: return std::nullopt;
    case StoredAs::kF32: return DType::kF32;
    case StoredAs::kF16: return DType::kF16;
    case StoredAs::kBF16: return DType::kBF16;
  }
  return std::nullopt;
}

struct ConfigChange {
  std::string key;
  nlohmann::json before, after;  // null: missing
};

// Fields in which the result's config.json differs from the source's.
std::vector<ConfigChange> config_changes(const fs::path& source, const fs::path& out) {
  const nlohmann::json before =
      fs::exists(source / "config.json") ? io::read_json(source / "config.json") : nlohmann::json::object();
  const nlohmann::json after = io::read_json(out / "config.json");
  std::vector<ConfigChange> changes;
  for (const auto& item : after.items())
    if (!before.contains(item.key()) || before[item.key()] != item.value())
      changes.push_back(
          {item.key(), before.contains(item.key()) ? before[item.key()] : nlohmann::json(), item.value()});
  for (const auto& item : before.items())
    if (!after.contains(item.key())) changes.push_back({item.key(), item.value(), {}});
  return changes;
}

// Whether the result computes something else than the source, apart from the rounding of its weights.
bool changes_function(const formats::ConvertReport& report) {
  const model::ModelSpec &from = report.from, &to = report.to;
  return from.attention != to.attention || from.layer_window != to.layer_window || from.dilation != to.dilation ||
         from.global_tokens != to.global_tokens;
}

nlohmann::ordered_json report_json(const Options& o, const formats::ConvertReport& report,
                                   const std::vector<std::string>& copied, const std::vector<ConfigChange>& changes) {
  nlohmann::ordered_json j = {{"out", o.out},
                              {"layout", report.layout == formats::Layout::kMeta ? "meta" : "hugging-face"},
                              {"from", std::string(enum_name(report.from.attention))},
                              {"attention", std::string(enum_name(report.to.attention))},
                              {"needs_training", changes_function(report)},
                              {"tensors", report.tensors},
                              {"made", report.made},
                              {"global_copies", report.copied},
                              {"shards", report.shards},
                              {"bytes", report.bytes},
                              {"copied", copied}};
  j["config"] = nlohmann::ordered_json::object();
  for (const ConfigChange& c : changes) j["config"][c.key] = {{"before", c.before}, {"after", c.after}};
  return j;
}

void print_report(const Options& o, const formats::ConvertReport& report, const std::vector<std::string>& copied,
                  const std::vector<ConfigChange>& changes) {
  print_prose(fmt::format("{}: {} {} -> {}, {}, {} in {}\n", o.out, enum_name(report.to.architecture),
                          enum_name(report.from.attention), enum_name(report.to.attention),
                          counted(report.tensors, "tensor"), report::format_bytes(report.bytes),
                          counted(report.shards, "file")));
  print_prose(fmt::format("element types: {}\n", o.dtype == StoredAs::kSource
                                                     ? "as they were"
                                                     : fmt::format("{}, every tensor", enum_name(o.dtype))));
  if (report.layout == formats::Layout::kMeta)
    print_prose("layout: Meta's, made into Hugging Face's; rows of the query and key projections in another order\n");
  if (report.made > 0)
    print_prose(fmt::format("made: {} by --t-init {}\n", counted(report.made, "tensor"), enum_name(o.t_init)));
  if (report.from.t_width != report.to.t_width && model::is_coca(report.from.attention))
    print_prose(fmt::format("T: {} width -> {}\n", enum_name(report.from.t_width), enum_name(report.to.t_width)));
  if (report.copied > 0)
    print_prose(fmt::format("made: {} of global tokens, copies of the others' projections\n",
                            counted(report.copied, "tensor")));
  for (const ConfigChange& c : changes) {
    const auto text = [](const nlohmann::json& value) {
      return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    };
    if (c.before.is_null())
      print_prose(fmt::format("config.json: {} added, {}\n", c.key, text(c.after)));
    else if (c.after.is_null())
      print_prose(fmt::format("config.json: {} left out, was {}\n", c.key, text(c.before)));
    else
      print_prose(fmt::format("config.json: {} {} -> {}\n", c.key, text(c.before), text(c.after)));
  }
  print_prose(copied.empty() ? "copied: nothing; the source has no tokenizer\n"
                             : fmt::format("copied: {}\n", fmt::join(copied, ", ")));
  if (changes_function(report))
    print_prose(
        fmt::format("The result computes something else than {}, and its weights have not learned that yet: "
                    "train it further with coca finetune --model {}\n",
                    o.source, o.out));
}

int convert(const OptionFlags& flags, const Options& o) {
  flags.check_effect("--seed", o.t_init == formats::TInit::kRandom,
                     "only --t-init random draws numbers; add it, or leave the option out");
  COCA_CHECK(!o.source.empty(), "SOURCE: no model folder given");
  COCA_CHECK(!o.out.empty(), "OUT: no folder to write given");
  check_is_no_file("OUT", o.out);
  check_outside("OUT", o.out, "SOURCE", o.source);
  check_companions(o.source);
  io::AtomicDir folder(o.out, io::AtomicDir::Existing::kRefuse);
  LateProgress progress;
  const formats::ConvertOptions options{.source_attention = o.source_attention,
                                        .attention = o.attention,
                                        .t_init = o.t_init,
                                        .t_width = o.t_width,
                                        .windows = o.windows,
                                        .meta = o.meta,
                                        .seed = static_cast<uint64_t>(o.seed),
                                        .dtype = dtype_of(o.dtype),
                                        .max_shard_bytes = static_cast<size_t>(o.max_shard_gib * 1024 * 1024 * 1024)};
  const formats::ConvertReport report =
      formats::convert_model(o.source, folder.path(), options, [&](int64_t done, int64_t total) {
        progress.shown({.total = total, .unit = "bytes", .label = "converting"}).update(done);
      });
  progress.finish();
  if (flags.typed("--t-init") && report.made == 0) print_note("--t-init has no effect: no T had to be made");
  const std::vector<std::string> copied = copy_companions(o.source, folder.path());
  const std::vector<ConfigChange> changes = config_changes(o.source, folder.path());
  folder.commit();
  write_json_output(o.json, report_json(o, report, copied, changes));
  if (!is_stdout(o.json)) print_report(o, report, copied, changes);
  return 0;
}

int run(const OptionFlags& flags, const Options& o) {
  return all_or_nothing([&] { return convert(flags, o); });
}

}  // namespace

void add_convert(CLI::App& root, Action* action) {
  add_command<Options>(root, action, "convert",
                       "Convert a model folder: RoPE into CoCA, element types, shards, layouts",
                       "Example: coca convert llama out/llama-coca --attention coca-slack --dtype bf16", run,
                       {{"model", "SOURCE"}, {"out", "OUT"}});
}

}  // namespace coca::tools
