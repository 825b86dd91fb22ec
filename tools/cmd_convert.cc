// coca convert: a model folder made into another.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/io/fs.h"
#include "coca/model/convert.h"
#include "coca/report/table.h"
#include "companions.h"

namespace coca::tools {

namespace {

enum class StoredAs : uint8_t { kSource, kF32, kF16, kBF16 };

}  // namespace

}  // namespace coca::tools

COCA_ENUM_NAMES(coca::tools::StoredAs, "dtype", {coca::tools::StoredAs::kSource, "source"}, {coca::tools::StoredAs::kF32, "f32"},
                {coca::tools::StoredAs::kF16, "f16"}, {coca::tools::StoredAs::kBF16, "bf16"})

namespace coca::tools {

namespace {

struct Options {
  std::string source, out;
  std::optional<model::AttentionKind> attention, source_attention;
  model::TInit t_init = model::ConvertOptions{}.t_init;
  int64_t seed = 0;
  model::WindowOptions windows;
  model::MetaSettings meta;
  StoredAs dtype = StoredAs::kSource;
  double max_shard_gib = 5.0;
  bool json = false;

  template <class V>
  void visit(V&& v) {
    v.group("Attention");
    v("attention", "of the result: coca-slack, coca-strict or coca-tied; default: as the source", attention);
    v("t_init", "where T comes from: K, K scaled to the size of the queries, or random numbers", t_init);
    v("seed", "of --t-init random", seed);
    v("source_attention", "of the source where its config.json does not say: official CoCA folders of GPT-NeoX", source_attention);
    windows.visit(v);
    v.group("Meta's layout: what params.json does not say");
    v("llama_version", "1, 2, 3, 3.1, 3.2 or 3.3: gives the trained length, the rope factor and eos", meta.version);
    v("rope_factor", "of LLaMA 3.1 and later; default: the version's", meta.rope_factor);
    v("trained_length", "tokens; default: the version's", meta.trained_length);
    v("eos", "ids that end a text; default: the version's", meta.eos);
    v.group("Files");
    v("dtype", "element type of every tensor; source: each as it is", dtype);
    v("max_shard_gib", "largest weight file, in GiB", max_shard_gib);
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

int run(const Options& o) {
  COCA_CHECK(o.max_shard_gib > 0, "--max-shard-gib {}: must be positive", o.max_shard_gib);
  io::AtomicDir folder(o.out, io::AtomicDir::Existing::kRefuse);
  std::unique_ptr<report::Progress> progress;  // the total is known with the first tensor
  const model::ConvertOptions options{.source_attention = o.source_attention,
                                      .attention = o.attention,
                                      .t_init = o.t_init,
                                      .windows = o.windows,
                                      .meta = o.meta,
                                      .seed = static_cast<uint64_t>(o.seed),
                                      .dtype = dtype_of(o.dtype),
                                      .max_shard_bytes = static_cast<size_t>(o.max_shard_gib * 1024 * 1024 * 1024)};
  const model::ConvertReport report = model::convert_model(
      o.source, folder.path(), options, [&](int64_t done, int64_t total) {
        if (!progress) progress = std::make_unique<report::Progress>(make_progress({.total = total, .unit = "bytes", .label = "converting"}));
        progress->update(done);
      });
  if (progress) progress->finish();
  const std::vector<std::string> copied = copy_companions(o.source, folder.path());
  folder.commit();
  if (o.json) {
    nlohmann::ordered_json j = {{"out", o.out}, {"layout", report.layout == model::Layout::kMeta ? "meta" : "hugging-face"},
                                {"from", std::string(enum_name(report.from.attention))}, {"attention", std::string(enum_name(report.to.attention))},
                                {"tensors", report.tensors}, {"made", report.made}, {"global_copies", report.copied}, {"shards", report.shards}, {"bytes", report.bytes},
                                {"copied", copied}};
    print(io::json_text(j) + "\n");
    return 0;
  }
  const std::string global = report.copied > 0 ? fmt::format(" ({} of global tokens, copies)", report.copied) : "";
  const std::string made = report.made > 0 ? fmt::format(" ({} made by --t-init {})", report.made, enum_name(o.t_init)) : "";
  print(fmt::format("{}: {} {} -> {}, {} tensors{}{}, {} in {} file{}\n", o.out, enum_name(report.to.architecture),
                    enum_name(report.from.attention), enum_name(report.to.attention), report.tensors, made, global,
                    report::format_bytes(report.bytes), report.shards, report.shards == 1 ? "" : "s"));
  if (!copied.empty()) print(fmt::format("copied {}\n", fmt::join(copied, ", ")));
  return 0;
}

}  // namespace

void add_convert(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("convert", "Make a model folder into another: RoPE into CoCA, element types, shards, layouts");
  auto options = std::make_shared<Options>();
  app->add_option("SOURCE", options->source, "model folder: Hugging Face's layout, or Meta's (params.json, consolidated*.safetensors)")->required();
  app->add_option("OUT", options->out, "folder to write; must not exist")->required();
  auto flags = std::make_shared<OptionFlags>(*app, *options);
  app->add_flag("--json", options->json, "print what was done as JSON");
  app->footer("Example: coca convert llama out/llama-coca --attention coca-slack --dtype bf16");
  app->callback([=] {
    *action = [=] {
      flags->finish();
      return run(*options);
    };
  });
}

}  // namespace coca::tools
