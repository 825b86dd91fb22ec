// SPDX-License-Identifier: Apache-2.0
#include "coca/train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/base/version.h"
#include "coca/formats/adapter_file.h"
#include "coca/formats/config.h"
#include "coca/formats/config_fields.h"
#include "coca/formats/model_folder.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/manifest.h"
#include "coca/ops/table.h"
#include "coca/train/metrics.h"
#include "coca/train/moments.h"

namespace coca::train {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "step-";
constexpr const char* kStateFile = "train_state.json";

using Checkpoints = std::vector<std::pair<int64_t, fs::path>>;  // by step

bool is_complete(const fs::path& dir) { return io::exists(dir / kStateFile); }

// All folders with a checkpoint's name, oldest first. Those that are still written never carry it; those that a kill
// left half removed do.
Checkpoints list_folders(const fs::path& out) {
  Checkpoints found;
  const fs::path root = checkpoint_root(out);
  if (!io::is_folder(root)) return found;
  for (const fs::path& entry : io::list_folder(root)) {
    const std::string name = entry.filename().string();
    if (!io::is_folder(entry) || !name.starts_with(kPrefix)) continue;
    int64_t step = -1;
    const char* end = name.data() + name.size();
    const auto [at, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (error == std::errc() && at == end) found.emplace_back(step, entry);
  }
  std::sort(found.begin(), found.end());
  return found;
}

Checkpoints list_checkpoints(const fs::path& out) {
  Checkpoints found = list_folders(out);
  std::erase_if(found, [](const auto& folder) { return !is_complete(folder.second); });
  return found;
}

// Leaves the newest `keep` up to this step, and no remains of others. Those beyond it, of a run that went back because
// they are damaged, are replaced when their steps come.
void remove_old(const fs::path& out, int64_t step, int64_t keep) {
  Checkpoints all = list_folders(out);
  for (; !all.empty(); all.pop_back()) {
    const auto& [at, dir] = all.back();
    if (at > step || (is_complete(dir) && keep-- > 0)) continue;
    std::error_code error;
    fs::remove(dir / kStateFile, error);  // first: what a kill leaves must not be taken for a checkpoint
    if (!error) fs::remove_all(dir, error);
    if (error) log_warning("{}: this old checkpoint cannot be removed: {}", dir.string(), error.message());
  }
}

nlohmann::ordered_json state_to_json(const TrainState& s) {
  nlohmann::ordered_json row;  // null: none
  const auto number = [](double x) { return std::isfinite(x) ? nlohmann::ordered_json(x) : nlohmann::ordered_json(); };
  if (s.row)
    row = {{"mean_loss", number(s.row->mean_loss)},
           {"loss", number(s.row->loss)},
           {"grad_norm", number(s.row->grad_norm)}};
  return {{"step", s.step},
          {"updates", s.updates},
          {"skipped", s.skipped},
          {"bad_in_a_row", s.bad_in_a_row},
          {"tokens", s.tokens},
          {"seconds", s.seconds},
          {"interval_loss", s.interval_loss},
          {"interval_steps", s.interval_steps},
          {"model_step", s.model_step},
          {"data_tokens", s.data_tokens},
          {"tokenizer_fingerprint", s.tokenizer_fingerprint},
          {"data_fingerprint", s.data_fingerprint},
          {"base_fingerprint", s.base_fingerprint},
          {"row", row},
          {"coca_version", std::string(version())},
          {"coca_commit", std::string(git_commit())},
          {"cpu_target", ops::cpu_target()}};
}

TrainState state_from_json(const nlohmann::json& j, const std::string& where) {
  const formats::ConfigFields f(j, where);
  const auto count = [&](const char* key) {
    const int64_t value = f.integer(key);
    COCA_CHECK_AS(kBadFile, value >= 0, "{}: field \"{}\" is {}; expected 0 or more", where, key, value);
    return value;
  };
  std::optional<RowToCome> row;
  if (f.has("row")) {
    const auto number = [&](const char* key) {
      const nlohmann::json& value = j["row"].is_object() && j["row"].contains(key) ? j["row"][key] : nlohmann::json();
      COCA_CHECK_AS(kBadFile, value.is_number() || value.is_null(), "{}: field \"row\", \"{}\": expected a number",
                    where, key);
      return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
    };
    row = {.mean_loss = number("mean_loss"), .loss = number("loss"), .grad_norm = number("grad_norm")};
  }
  const auto needed = [&](const char* key) {
    COCA_CHECK_AS(kBadFile, f.has(key), "{}: field \"{}\" is missing", where, key);
    return f.text(key, "");
  };
  return {.step = count("step"),
          .updates = count("updates"),
          .skipped = count("skipped"),
          .bad_in_a_row = count("bad_in_a_row"),
          .tokens = count("tokens"),
          .seconds = f.number("seconds"),
          .interval_loss = f.number("interval_loss"),
          .interval_steps = count("interval_steps"),
          .model_step = f.has("model_step") ? count("model_step") : 0,
          .data_tokens = count("data_tokens"),
          .tokenizer_fingerprint = needed("tokenizer_fingerprint"),
          .data_fingerprint = f.text("data_fingerprint", ""),
          .base_fingerprint = f.text("base_fingerprint", ""),
          .row = row};
}

// GPT-NeoX tensors have the same names and shapes under every attention kind: only config.json tells them apart.
void check_spec(const fs::path& dir, const model::ModelSpec& wanted) {
  const auto found = formats::spec_to_json(formats::load_spec(dir)), expected = formats::spec_to_json(wanted);
  const std::string file = (dir / "config.json").string();
  for (const auto& [key, value] : expected.items())
    if (found.contains(key))
      COCA_CHECK(found[key] == value, "{}: \"{}\" is {}; this run has {}", file, key, found[key].dump(), value.dump());
  for (const auto& [key, value] : expected.items())
    COCA_CHECK(found.contains(key), "{}: \"{}\" is missing; this run has {}", file, key, value.dump());
}

// A run's options. Those written before T's width could be chosen had it full.
nlohmann::json read_options(const fs::path& file) {
  nlohmann::json saved = io::read_json(file);
  if (!saved.is_object()) return saved;  // the reader of the options reports it
  if (file.filename() == "train_config.json")
    saved.emplace("t_width", "full");
  else
    saved.emplace("keep_t_width", true);
  return saved;
}

std::string shown(const nlohmann::json& value) {
  return value.is_number_integer() ? grouped(value.get<int64_t>()) : value.dump();
}

// Files are written from the host: weights on a device are copied there first.
void save_weights(const fs::path& dir, const CheckpointParts& parts) {
  const model::TensorStore& trained = parts.adapter ? parts.adapter->tensors() : parts.params;
  Context cx(trained.memory());
  if (parts.adapter && trained.memory()) {
    model::Adapter host(parts.adapter->spec(), parts.adapter->settings(), parts.adapter->targets());
    model::copy_params(cx, trained, host.tensors());
    formats::save_adapter(dir, host);
  } else if (parts.adapter) {
    formats::save_adapter(dir, *parts.adapter);
  } else if (trained.memory()) {
    model::ParamStore host(parts.spec, trained.precision());
    model::copy_params(cx, trained, host);
    formats::save_model(dir, parts.spec, host);
  } else {
    formats::save_model(dir, parts.spec, parts.params);
  }
  parts.tokenizer.save(dir);
  if (parts.complete) parts.complete(dir);
}

}  // namespace

fs::path checkpoint_root(const fs::path& out) { return out / "checkpoints"; }

std::optional<fs::path> latest_checkpoint(const fs::path& out) {
  const auto all = list_checkpoints(out);
  if (all.empty()) return std::nullopt;
  return all.back().second;
}

std::optional<fs::path> latest_sound_checkpoint(const fs::path& out) {
  auto all = list_checkpoints(out);
  const bool some = !all.empty();
  std::string first;
  for (; !all.empty(); all.pop_back()) {
    try {
      io::check_manifest(all.back().second);
      return all.back().second;
    } catch (const Error& error) {
      if (first.empty()) first = error.what();
      if (all.size() > 1)
        log_once(LogLevel::kWarning, fmt::format("{} is damaged: {}; trying the checkpoint before it",
                                                 all.back().second.string(), error.what()));
    }
  }
  COCA_CHECK_AS(kBadFile, !some, "{}: no checkpoint is intact; the newest: {}", checkpoint_root(out).string(), first);
  return std::nullopt;
}

void export_model(const fs::path& dir, const CheckpointParts& parts) {
  io::AtomicDir folder(dir);
  save_weights(folder.path(), parts);
  folder.commit();
}

CheckpointPlan checkpoint_plan(const TrainConfig& config) {
  TrainConfig saved = config;
  return {.out = config.out,
          .keep = config.keep_checkpoints,
          .config = io::options_to_json(saved),
          .harmless = {"text", "validation_text", "split", "tokenizer", "max_bad_steps", "out", "log_interval",
                       "validation_interval", "validation_windows", "checkpoint_interval", "keep_checkpoints",
                       "recompute", "tensorboard"},
          .adjustable = kAdjustable};
}

std::optional<std::pair<fs::path, nlohmann::json>> saved_options(const fs::path& out, const std::string& config_name) {
  for (const auto& dir : {latest_sound_checkpoint(out), std::optional(out)})
    if (dir && io::exists(*dir / config_name)) return std::pair{*dir / config_name, read_options(*dir / config_name)};
  return std::nullopt;
}

void check_resumed_options(const fs::path& file, const nlohmann::json& saved, const CheckpointPlan& plan) {
  for (const auto& [key, value] : plan.config.items()) {
    if (plan.harmless.contains(key) || plan.adjustable.contains(key) || !saved.contains(key) ||
        saved[key] == nlohmann::json(value))
      continue;
    std::string flag = "--" + key;
    std::ranges::replace(flag, '_', '-');
    fail(ErrorKind::kInvalidArgument,
         "{} is {}; the run that is resumed has {} ({}): leave the option out, or start another run in another folder",
         flag, value.dump(), saved[key].dump(), file.string());
  }
}

void check_never_saved(const fs::path& out) {
  const char* advice = "restore the checkpoints, or choose another folder to begin anew";
  if (!io::exists(out / "metrics.csv")) return;
  for (const char* result : {"model", "adapter"})
    COCA_CHECK(!io::exists(out / result), "{} holds the {} of an earlier run, but no checkpoint to resume from: {}",
               out.string(), result, advice);
  const std::vector<MetricsRow> rows = read_metrics(out / "metrics.csv");
  for (const char* name : {"train_config.json", "finetune_config.json"}) {
    if (!io::exists(out / name) || rows.empty()) continue;
    const int64_t interval = io::read_json(out / name).value("checkpoint_interval", int64_t{0});
    COCA_CHECK(interval <= 0 || rows.back().step <= interval,
               "{} holds metrics up to step {} of a run with a checkpoint every {}, but none of these: {}",
               out.string(), rows.back().step, counted(interval, "step"), advice);
  }
}

void save_checkpoint(const CheckpointPlan& plan, const TrainState& state, const CheckpointParts& parts) {
  const bool first = parts.ranks.rank() == 0;
  const fs::path root = checkpoint_root(plan.out);
  std::optional<io::AtomicDir> folder;
  dist::together(parts.ranks, [&] {
    if (!first) return;
    folder.emplace(root / fmt::format("{}{:08d}", kPrefix, state.step));
  });
  const fs::path path = dist::broadcast_text(parts.ranks, 0, first ? folder->path().string() : "");
  dist::together(parts.ranks, [&] {
    save_moments(path, parts.optimizer, parts.ranks);
    if (!first) return;
    save_weights(path, parts);
    io::write_json(path / plan.config_name, plan.config);
    io::write_json(path / kStateFile, state_to_json(state));
  });
  dist::together(parts.ranks, [&] {
    if (!first) return;
    io::write_manifest(path);
    folder->commit();
    remove_old(plan.out, state.step, plan.keep);
  });
}

TrainState load_state(const fs::path& dir) {
  return state_from_json(io::read_json(dir / kStateFile), (dir / kStateFile).string());
}

TrainState load_checkpoint(const fs::path& dir, const CheckpointParts& parts, Moments which) {
  TrainState state = load_state(dir);
  if (parts.adapter) {
    formats::load_adapter_tensors(dir, *parts.adapter);
  } else {
    check_spec(dir, parts.spec);
    formats::load_params(dir, parts.spec, parts.params);
  }
  if (which == Moments::kLeave) return state;
  load_moments(dir, parts.optimizer);
  parts.optimizer.set_updates(state.updates);
  return state;
}

void warn_of_changes(const fs::path& dir, const CheckpointPlan& plan) {
  const nlohmann::json was = io::read_json(dir / plan.config_name);
  for (const auto& [key, value] : plan.config.items())
    if (!plan.harmless.contains(key) && was.contains(key) && was[key] != nlohmann::json(value))
      log_warning("resuming with {} = {}; the run so far had {}", key, shown(value), shown(was[key]));
}

TrainConfig load_train_config(const fs::path& dir) {
  TrainConfig config;
  const fs::path file = dir / "train_config.json";
  io::options_from_json(config, read_options(file), file.string());
  return config;
}

}  // namespace coca::train
