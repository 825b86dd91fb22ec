// coca info: the program and this machine, or a model folder.
// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "cli.h"
#include "coca/base/parallel.h"
#include "coca/base/version.h"
#include "coca/model/model.h"
#include "coca/ops/impl.h"
#include "coca/report/table.h"
#include "model_flags.h"

namespace coca::tools {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// Rows of (name for people, key for programs, value).
struct Facts {
  report::Table table;
  ordered_json json = ordered_json::object();

  explicit Facts(std::string title) { table.title = std::move(title), table.header = {"", "value"}; }
  void text(const char* name, const char* key, std::string value) {
    json[key] = value;
    table.rows.push_back({name, std::move(value)});
  }
  void count(const char* name, const char* key, int64_t value) {
    json[key] = value;
    table.rows.push_back({name, report::format_count(value)});
  }
  void bytes(const char* name, const char* key, int64_t value) {
    json[key] = value;
    table.rows.push_back({name, report::format_bytes(value)});
  }
};

std::string joined(const auto& items) {
  return fmt::format("{}", fmt::join(items, ", "));
}

Facts program_facts() {
  Facts f("coca");
  f.text("version", "version", std::string(version()));
  f.text("commit", "commit", std::string(git_commit()));
  f.text("build", "build_type", std::string(build_type()));
  f.text("SIMD target", "cpu_target", ops::cpu_target());
  f.text("SIMD targets of this CPU", "cpu_targets", joined(ops::cpu_targets()));
  f.count("threads", "threads", max_threads());
  const Context cx;  // what COCA_FORCE_IMPL forces
  for (const ops::OpImpls& op : ops::op_impls()) {
    const std::string_view forced = cx.forced_impl(op.op);
    const std::string used(ops::running_impl(cx, op.op, DType::kF32)), bf16(ops::running_impl(cx, op.op, DType::kBF16));
    f.json["ops"][std::string(op.op)] = {{"used", used}, {"used_bf16", bf16}, {"forced", !forced.empty()}, {"implementations", op.impls}};
    f.table.rows.push_back({fmt::format("op {}", op.op), fmt::format("{}{}{} (of {})", used, bf16 == used ? "" : ", in bf16 " + bf16,
                                                                     forced.empty() ? "" : ", forced", joined(op.impls))});
  }
  return f;
}

std::string mlp_text(const model::ModelSpec& s) {
  return s.mlp == model::Mlp::kSwiGlu ? "swiglu" : s.mlp == model::Mlp::kGelu ? "gelu" : "gelu (tanh)";
}

Facts model_facts(const std::string& dir) {
  const model::ModelSpec s = model::load_spec(dir);
  Facts f(dir);
  f.text("architecture", "architecture", std::string(enum_name(s.architecture)));
  f.text("attention", "attention", std::string(enum_name(s.attention)));
  f.count("parameters", "parameters", model::parameter_count(s));
  f.count("layers", "layers", s.L);
  f.count("width", "width", s.C);
  f.count("heads", "heads", s.H);
  f.count("key/value heads", "kv_heads", s.G);
  f.count("head dim", "head_dim", s.D);
  f.count("rotary dims", "rotary_dims", model::uses_rotary(s.attention) ? s.R : 0);
  f.text("mlp", "mlp", mlp_text(s));
  f.count("mlp width", "mlp_width", s.F);
  f.count("vocabulary", "vocab_size", s.V);
  f.count("trained length", "trained_length", s.max_position);
  f.text("rope theta", "rope_theta", fmt::format("{:g}", s.rope_theta));
  f.text("rope scaling", "rope_scaling", scaling_text(s.rope_scaling));
  f.text("bos, eos", "bos_eos",
         fmt::format("{}, {}", s.bos_id ? fmt::format("{}", *s.bos_id) : "none",
                     s.eos_ids.empty() ? "none" : joined(s.eos_ids)));
  std::string tokenizer;
  try {
    const auto loaded = text::load_tokenizer(dir);
    tokenizer = fmt::format("{}, {} ids", loaded->kind(), report::format_count(loaded->vocab_size()));
  } catch (const Error&) {  // a model may be kept without one
    tokenizer = "none";
  }
  f.text("tokenizer", "tokenizer", tokenizer);
  const int64_t cache = s.L * model::cache_bytes_per_token(s, KvType::kF32);
  model::ModelSpec full = s;  // keys as wide as values
  full.attention = model::AttentionKind::kNone;
  f.bytes("cache per token", "cache_bytes_per_token", cache);
  f.bytes("the same in bf16", "cache_bytes_per_token_bf16", s.L * model::cache_bytes_per_token(s, KvType::kBF16));
  f.bytes("the same in int8", "cache_bytes_per_token_int8", s.L * model::cache_bytes_per_token(s, KvType::kInt8));
  f.bytes("the same with keys and values", "kv_cache_bytes_per_token",
          s.L * model::cache_bytes_per_token(full, KvType::kF32));
  f.bytes("cache at the trained length", "cache_bytes_at_trained_length", cache * s.max_position);
  std::error_code error;
  const auto size = fs::file_size(fs::path(dir) / "model.safetensors", error);
  if (!error)
    f.bytes("model.safetensors", "file_bytes", static_cast<int64_t>(size));
  else
    f.text("model.safetensors", "file_bytes", "missing");
  return f;
}

int run(const std::string& dir, bool json) {
  const Facts facts = dir.empty() ? program_facts() : model_facts(dir);
  print(json ? facts.json.dump(2) + "\n" : report::to_text(facts.table));
  return 0;
}

}  // namespace

void add_info(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("info", "Describe this program and machine, or a model folder");
  auto dir = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  app->add_option("DIR", *dir, "model folder");
  app->add_flag("--json", *json, "as JSON");
  app->callback([=] { *action = [=] { return run(*dir, *json); }; });
}

}  // namespace coca::tools
