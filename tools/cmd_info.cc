// coca info: describes the program and this machine, or a model folder.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>

#include "cli.h"
#include "coca/base/count.h"
#include "coca/base/parallel.h"
#include "coca/base/version.h"
#include "coca/dist/mpi.h"
#include "coca/formats/model_folder.h"
#include "coca/io/fs.h"
#include "coca/model/decoder.h"
#include "coca/ops/device.h"
#include "coca/ops/table.h"
#include "coca/report/table.h"
#include "coca/tensor/kv_pages.h"
#include "coca/text/generation_config.h"
#include "model_flags.h"
#include "output_flags.h"
#include "plan.h"

namespace coca::tools {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// Rows of (label, JSON key, value).
struct Facts {
  report::Table table;
  ordered_json json = ordered_json::object();
  std::vector<std::string> damages;  // reasons why the folder cannot be used

  explicit Facts(std::string title) {
    table.title = std::move(title);
    table.header = {"", "value"};
  }
  void text(const char* name, const char* key, const std::string& value) { shown(name, {{key, value}}, value); }
  // `values` are for programs, where numbers are numbers; `text` is for people.
  void shown(const char* name, const ordered_json& values, std::string text) {
    json.update(values);
    table.rows.push_back({name, std::move(text)});
  }
  void count(const char* name, const char* key, int64_t value) {
    json[key] = value;
    table.rows.push_back({name, grouped(value)});
  }
  void bytes(const char* name, const char* key, int64_t value) {
    json[key] = value;
    table.rows.push_back({name, report::format_bytes(value)});
  }
};

std::string joined(const auto& items) { return fmt::format("{}", fmt::join(items, ", ")); }

std::string gpus_text() {
  const ops::Gpus gpus = ops::gpus();
  std::string text = "none: " + gpus.none;
  if (!gpus.list.empty()) text = "no op runs there yet: ";
  for (const ops::Gpu& gpu : gpus.list)
    text += fmt::format("{}{} {}, compute capability {}.{}, {}", gpu.device.index == 0 ? "" : "; ", gpu.device.text(),
                        gpu.name, gpu.major, gpu.minor, report::format_bytes(static_cast<int64_t>(gpu.bytes)));
  return text;
}

Facts program_facts() {
  Facts f("coca");
  f.text("version", "version", std::string(version()));
  f.text("commit", "commit", std::string(git_commit()));
  f.text("build", "build_type", std::string(build_type()));
  f.text("SIMD target", "cpu_target", ops::cpu_target());
  f.shown("SIMD targets of this CPU", {{"cpu_targets", ops::cpu_targets()}}, joined(ops::cpu_targets()));
  f.count("threads", "threads", max_threads());
  f.text("MPI", "mpi", dist::mpi_version());
  f.text("GPUs", "gpus", gpus_text());
  const Context cx(nullptr);
  for (const ops::OpTable& op : ops::op_tables()) {
    const std::string_view forced = cx.forced_impl(op.op);
    const std::string used(ops::running_impl(cx, op.op, DType::kF32)), bf16(ops::running_impl(cx, op.op, DType::kBF16));
    nlohmann::json implementations = nlohmann::json::array();
    std::string listed;
    for (const ops::OpRow& row : op.rows) {
      implementations.push_back({{"name", row.name}, {"device", enum_name(row.device)}, {"runs_here", row.runs_here}});
      listed += fmt::format("{}{}{}", listed.empty() ? "" : ", ", row.name,
                            row.runs_here ? "" : fmt::format(" (needs {})", row.needs));
    }
    f.json["ops"][std::string(op.op)] = {
        {"used", used}, {"used_bf16", bf16}, {"forced", !forced.empty()}, {"implementations", implementations}};
    f.table.rows.push_back(
        {fmt::format("op {}", op.op), fmt::format("{}{}{}, of {}", used, bf16 == used ? "" : ", in bf16 " + bf16,
                                                  forced.empty() ? "" : ", forced", listed)});
  }
  return f;
}

std::string mlp_text(const model::ModelSpec& s) {
  return s.mlp == model::Mlp::kSwiGlu ? "swiglu" : s.mlp == model::Mlp::kGelu ? "gelu" : "gelu (tanh)";
}

void window_facts(const model::ModelSpec& s, Facts& f) {
  const int64_t layers = std::ranges::count_if(s.layer_window, [](int64_t w) { return w > 0; }),
                longest = layers > 0 ? std::ranges::max(s.layer_window) : 0,
                dilation = s.dilation.empty() ? 1 : std::ranges::max(s.dilation);
  std::string text =
      layers > 0 ? fmt::format("{} in {} of {}", counted(longest, "token"), layers, counted(s.L, "layer")) : "none";
  if (dilation > 1) text += fmt::format(", dilation up to {}", dilation);
  f.shown("sliding window",
          {{"sliding_window", layers > 0 ? ordered_json(longest) : ordered_json(nullptr)},
           {"sliding_window_layers", layers},
           {"largest_dilation", dilation}},
          text);
}

void end_facts(const model::ModelSpec& s, Facts& f) {
  f.shown("bos, eos", {{"bos_id", s.bos_id ? ordered_json(*s.bos_id) : ordered_json(nullptr)}, {"eos_ids", s.eos_ids}},
          fmt::format("{}, {}", s.bos_id ? fmt::format("{}", *s.bos_id) : "none",
                      s.eos_ids.empty() ? "none" : joined(s.eos_ids)));
}

// Counts parameters by component, which their names identify in every architecture.
void parameter_facts(const model::ModelSpec& s, Facts& f) {
  int64_t embedding = 0, attention = 0, mlp = 0, norms = 0, head = 0, clex = 0;
  for (const model::ParamInfo& info : model::parameter_list(s)) {
    const int64_t n = info.shape.product();
    const bool norm = info.name.find("norm") != std::string::npos;  // also matches "layernorm" and the biases of norms
    if (model::is_clex(info.role))
      clex += n;
    else if (norm)
      norms += n;
    else if (info.role == model::ParamRole::kEmbedding)
      embedding += n;
    else if (info.name.find(".mlp.") != std::string::npos)
      mlp += n;
    else if (info.name.find("attn.") != std::string::npos || info.name.find("attention.") != std::string::npos)
      attention += n;
    else
      head += n;
  }
  f.count("parameters", "parameters", model::parameter_count(s));
  f.count("  embedding", "parameters_embedding", embedding);
  f.count("  attention", "parameters_attention", attention);
  f.count("  mlp", "parameters_mlp", mlp);
  f.count("  norms", "parameters_norms", norms);
  if (clex > 0) f.count("  clex", "parameters_clex", clex);
  if (s.embeddings == model::Embeddings::kTied)
    f.shown("  output", {{"parameters_output", 0}}, "the embedding's");
  else
    f.count("  output", "parameters_output", head);
}

// Training rounds the vocabulary up; what the tokenizer does not fill is padding.
std::string padding_text(const model::ModelSpec& s, int64_t ids) {
  return s.V > ids ? fmt::format("; the vocabulary's other {} are padding", counted(s.V - ids, "row")) : "";
}

void tokenizer_facts(const std::string& dir, const model::ModelSpec& s, Facts& f) {
  try {
    const auto loaded = text::load_tokenizer(dir);
    f.shown("tokenizer", {{"tokenizer", loaded->kind()}, {"tokenizer_ids", loaded->vocab_size()}},
            fmt::format("{}, {}{}", loaded->kind(), counted(loaded->vocab_size(), "id"),
                        padding_text(s, loaded->vocab_size())));
  } catch (const Error& error) {
    const bool some = std::ranges::any_of(std::array{"tokenizer.json", "tokenizer.model", "coca_tokenizer.json"},
                                          [&](const char* name) { return io::exists(fs::path(dir) / name); });
    f.shown("tokenizer", {{"tokenizer", nullptr}, {"tokenizer_ids", nullptr}},
            some ? fmt::format("not usable: {}", error.what()) : "none");
    if (some) f.damages.push_back(error.what());
  }
}

int64_t in_pages(int64_t tokens) { return (tokens + kKvPage - 1) / kKvPage * kKvPage; }

void cache_facts(const model::ModelSpec& s, Facts& f) {
  model::ModelSpec full = s;  // as if each query head had its own key and value head
  full.attention = model::AttentionKind::kNone;
  const auto per_token = [&](const model::ModelSpec& spec, KvType type) {
    return spec.L * model::cache_bytes_per_token(spec, type);
  };
  f.bytes("cache per token", "cache_bytes_per_token", per_token(s, KvType::kF32));
  f.bytes("the same in bf16", "cache_bytes_per_token_bf16", per_token(s, KvType::kBF16));
  f.bytes("the same in int8", "cache_bytes_per_token_int8", per_token(s, KvType::kInt8));
  f.bytes("the same with keys and values", "kv_cache_bytes_per_token", per_token(full, KvType::kF32));
  f.bytes("cache at the trained length", "cache_bytes_at_trained_length",
          per_token(s, KvType::kF32) * in_pages(s.max_position));
}

// Memory for one sequence of `length` tokens, in each precision.
void memory_facts(const model::ModelSpec& s, int64_t length, Facts& f) {
  const std::string at = fmt::format(" at {}", counted(length, "token"));
  f.json["length"] = length;
  for (const model::Precision precision : {model::Precision::kF32, model::Precision::kBF16}) {
    const bool half = precision == model::Precision::kBF16;
    const std::string in = half ? ", bf16" : "", key = half ? "_bf16" : "";
    int64_t weights = 0;
    for (const model::ParamInfo& info : model::parameter_list(s))
      weights += info.shape.product() * static_cast<int64_t>(dtype_size(model::param_dtype(info.role, precision)));
    const int64_t cache = s.L * model::cache_bytes_per_token(s, half ? KvType::kBF16 : KvType::kF32) * in_pages(length);
    const auto acts = static_cast<int64_t>(model::Decoder::activation_bytes(s, 1, length, precision));
    f.bytes(("weights" + in).c_str(), ("weights_bytes" + key).c_str(), weights);
    f.bytes(fmt::format("generating{}{}", at, in).c_str(), ("generate_bytes" + key).c_str(), weights + cache);
    f.bytes(fmt::format("evaluating{}{}", at, in).c_str(), ("eval_bytes" + key).c_str(), weights + acts);
  }
}

// Reports a generation_config.json that cannot be read, unless the tokenizer's error has already named it.
void generation_facts(const std::string& dir, int64_t vocabulary, Facts& f) {
  try {
    text::check_ids(text::load_generation_config(dir).ids, vocabulary,
                    (std::filesystem::path(dir) / "generation_config.json").string());
  } catch (const Error& error) {
    if (std::ranges::find(f.damages, error.what()) == f.damages.end()) f.damages.emplace_back(error.what());
    f.text("generation defaults", "generation_config", fmt::format("not usable: {}", error.what()));
  }
}

void file_facts(const std::string& dir, const model::ModelSpec& spec, Facts& f) {
  try {
    const formats::WeightFiles files(dir);
    std::map<std::string, int64_t> types;
    for (const auto& [name, entry] : files.entries())
      types[std::string(dtype_name(entry.tensor->dtype))] += static_cast<int64_t>(entry.tensor->bytes);
    std::vector<std::string> parts;
    parts.reserve(types.size());
    for (const auto& [type, bytes] : types) parts.push_back(fmt::format("{} {}", type, report::format_bytes(bytes)));
    f.bytes("weights on disk", "file_bytes", static_cast<int64_t>(files.bytes()));
    f.shown("element types", {{"element_types", types}}, joined(parts));  // bytes of each
    formats::check_tensors(files, spec);
  } catch (const Error& error) {
    const bool some = formats::WeightFiles::are_in(dir);
    if (some) f.damages.push_back(error.what());
    if (f.json.contains("file_bytes")) return;  // the files are readable, but some are missing
    f.json["file_bytes"] = nullptr;
    f.table.rows.push_back(
        {"weights on disk", fmt::format("{}: {}", some ? "not usable" : "no weights", error.what())});
  }
}

Facts model_facts(const std::string& dir, std::optional<int64_t> length) {
  const model::ModelSpec s = formats::load_spec(dir);
  Facts f(dir);
  f.text("architecture", "architecture", std::string(enum_name(s.architecture)));
  f.text("attention", "attention", std::string(enum_name(s.attention)));
  std::vector<std::string> modifiers;
  for (const model::Modifier* m : s.modifiers) modifiers.emplace_back(m->info().name);
  f.shown("attention modifiers", {{"attention_modifiers", modifiers}},
          modifiers.empty() ? "none" : fmt::format("{}", fmt::join(modifiers, ", ")));
  parameter_facts(s, f);
  f.count("layers", "layers", s.L);
  f.count("width", "width", s.C);
  f.count("heads", "heads", s.H);
  f.count("key/value heads", "kv_heads", s.G);
  f.count("head dim", "head_dim", s.D);
  f.text("norms of heads", "head_norm", s.head_norm == model::HeadNorm::kNone ? "none" : "rms");
  f.count("rotary dims", "rotary_dims", model::uses_rotary(s.attention) ? s.R : 0);
  window_facts(s, f);
  if (s.global_tokens > 0) f.count("global tokens", "global_tokens", s.global_tokens);
  if (s.direction != model::Direction::kCausal) f.text("direction", "direction", std::string(enum_name(s.direction)));
  f.text("mlp", "mlp", mlp_text(s));
  f.count("mlp width", "mlp_width", s.F);
  f.count("vocabulary", "vocab_size", s.V);
  f.count("trained length", "trained_length", s.max_position);
  const bool whole = s.rope_theta == std::floor(s.rope_theta) && s.rope_theta < 1e15;
  f.shown("rope theta", {{"rope_theta", s.rope_theta}},
          whole ? grouped(static_cast<int64_t>(s.rope_theta)) : fmt::format("{}", s.rope_theta));
  f.shown("rope scaling",
          {{"rope_scaling", std::string(enum_name(s.rope_scaling.type))}, {"rope_factor", s.rope_scaling.factor}},
          scaling_text(s.rope_scaling));
  end_facts(s, f);
  tokenizer_facts(dir, s, f);
  generation_facts(dir, s.V, f);
  cache_facts(s, f);
  memory_facts(s, length.value_or(s.max_position), f);
  file_facts(dir, s, f);
  return f;
}

struct Options {
  std::string dir, plan, json;
  std::optional<int64_t> length;
  int64_t vocab_size = 0;

  template <class V>
  void visit(V&& v) {
    v("model", "model folder; default: this program and machine", dir);
    v("length", "tokens to estimate memory for; default: the trained length", length, Least{1});
    v("plan", "memory and disk of a training: its options, as for the --config of coca train or coca finetune", plan);
    v("vocab_size", "ids of the model that is planned, if its tokenizer is not here yet; 0: the tokenizer's",
      vocab_size);
    v("json", "write this to a file, as JSON; -: to standard output, instead of the table", json);
  }
};

int run(const Options& o) {
  const auto& [dir, plan_file, json, length, vocab_size] = o;
  if (!plan_file.empty()) {
    COCA_CHECK(!length, "--length: --plan takes it from {}; leave it out", plan_file);
    const Plan plan = memory_plan(plan_file, dir, vocab_size);
    write_json_output(json, plan.json);
    if (!is_stdout(json)) print(table_text(plan.table));
    return 0;
  }
  COCA_CHECK(vocab_size == 0, "--vocab-size: only --plan uses it");
  COCA_CHECK(!length || !dir.empty(), "--length: needs a model folder");
  Facts facts = dir.empty() ? program_facts() : model_facts(dir, length);
  if (!dir.empty()) facts.json["damages"] = facts.damages;
  write_json_output(json, facts.json);
  if (!is_stdout(json)) print(table_text(facts.table));
  if (!is_stdout(json) && !dir.empty())
    print_prose(
        fmt::format("\nMemory is for one sequence: the weights, and the cache in pages of {} or the activations. The "
                    "program and its "
                    "tokenizer are not counted, nor are further windows that coca eval runs at the same time.\n",
                    counted(kKvPage, "token")));
  COCA_CHECK_AS(kBadFile, facts.damages.empty(), "{} cannot be used as it is: {}", dir, fmt::join(facts.damages, "; "));
  return 0;
}

}  // namespace

void add_info(CLI::App& root, Action* action) {
  add_command<Options>(root, action, "info", "Describe this program and machine, or a model folder",
                       "Examples:\n"
                       "  coca info out/model --length 4096\n"
                       "  coca info --plan configs/train-350m.json --vocab-size 100864\n"
                       "  coca info configs/model-llama-7b.json --plan configs/finetune-7b.json",
                       run, {{"model", "DIR"}});
}

}  // namespace coca::tools
