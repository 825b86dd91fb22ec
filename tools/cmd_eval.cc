// coca eval: evaluates a model at several lengths. Protocols: docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <new>

#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/base/version.h"
#include "coca/io/fs.h"
#include "coca/report/chart.h"
#include "eval_command.h"
#include "ranks.h"

namespace coca::tools {

using nlohmann::ordered_json;

void write_outputs(const EvalOutputFlags& o, const ordered_json& json, const char* results,
                   const std::function<std::string()>& svg) {
  write_each({[&] { write_outputs(o, json, results); },
              [&] {
                if (!o.plot.empty() && first_rank()) io::write_file_atomic(o.plot, svg());
              }});
}

Measurement::Measurement(const std::function<void()>& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    error_ = std::current_exception();
    reason_ = "out of memory";
  } catch (const std::exception& error) {
    error_ = std::current_exception();
    reason_ = error.what();
  }
}

void Measurement::mark(ordered_json& json) const {
  if (!partial()) return;
  json["partial"] = true;
  json["missing"] = missing;
  json["ended_by"] = reason_;
}

std::string Measurement::title(std::string text) const {
  return partial() ? std::move(text) + " (partial)" : std::move(text);
}

std::string Measurement::line() const {
  if (!partial()) return "";
  constexpr size_t kShown = 4;  // the JSON file lists them all
  std::string list;
  for (size_t i = 0; i < std::min(kShown, missing.size()); ++i) list += (list.empty() ? "" : ", ") + missing[i];
  if (missing.size() > kShown) list += fmt::format(" and {} more", missing.size() - kShown);
  return fmt::format("partial: missing {}\n", list);  // the error itself goes to standard error
}

int Measurement::report(const std::function<void()>& print_and_write) const {
  try {
    print_and_write();
  } catch (const std::exception& error) {
    if (!partial()) throw;
    log_message(LogLevel::kError, error.what());
  }
  rethrow();
  if (unmeasured_.empty() && not_finite_.empty()) return 0;
  if (first_rank() && !not_finite_.empty())
    log_warning("the model's numbers are not finite at length {}: the model cannot be measured there",
                fmt::join(not_finite_, ", "));
  if (first_rank() && !unmeasured_.empty())
    log_warning("the perplexity is {}: the model cannot be measured there", unmeasured_);
  return kExitFailed;
}

void Measurement::check(double perplexity, const std::string& of) {
  if (std::isfinite(perplexity)) return;
  unmeasured_ += fmt::format("{}{} at {}", unmeasured_.empty() ? "" : ", ", std::isnan(perplexity) ? "nan" : "inf", of);
}

void Measurement::check_score(double score, int64_t length) {
  if (std::isnan(score) && std::ranges::find(not_finite_, length) == not_finite_.end()) not_finite_.push_back(length);
}

void Measurement::rethrow() const {
  if (error_) std::rethrow_exception(error_);
}

void check_outputs(const EvalOutputFlags& o) {
  check_ending("--plot", o.plot, {".svg"});
  COCA_CHECK_AS(kIo, o.plot.empty() || report::gnuplot_available(), "--plot: gnuplot is not installed");
}

ordered_json header_json(const std::string& dir, const LoadedModel& m, ordered_json options) {
  ordered_json j;
  j["coca"] = fmt::format("{} ({})", version(), git_commit());
  j["model"] = dir;
  j["adapter"] = m.adapter.empty() ? ordered_json(nullptr) : ordered_json(m.adapter);
  j["attention"] = std::string(enum_name(m.model.spec.attention));
  j["trained_length"] = m.model.spec.max_position;
  j["rope_scaling"] = scaling_text(m.used_scaling);
  j["pattern"] = pattern_text(m.model.spec.pattern);
  j["tokenizer"] = m.tokenizer->fingerprint();
  j["options"] = std::move(options);
  return j;
}

void print_model_line(const std::string& dir, const LoadedModel& m) {
  const std::string pattern = m.model.spec.pattern.far() ? ", pattern " + pattern_text(m.model.spec.pattern) : "";
  const std::string adapter = m.adapter.empty() ? "" : ", adapter " + m.adapter;
  print_prose(fmt::format("model: {}{} (attention {}, trained length {}, rope scaling {}{}), tokenizer: {}\n", dir,
                          adapter, enum_name(m.model.spec.attention), m.model.spec.max_position,
                          scaling_text(m.used_scaling), pattern, m.tokenizer->kind()));
}

std::string extrapolation_text(const LoadedModel& m, int64_t longest, const std::string& name) {
  if (m.used_scaling.type != model::Scaling::kNone || m.model.spec.pattern.far() ||
      !model::uses_rotary(m.model.spec.attention) || longest <= m.model.spec.max_position)
    return "";
  return fmt::format(
      "note: lengths above {} exceed the trained length{}, without position scaling (see --rope-scaling, --pattern)\n",
      m.model.spec.max_position, name.empty() ? "" : " of " + name);
}

void note_extrapolation(const LoadedModel& m, const std::vector<int64_t>& lengths, const std::string& name) {
  print_prose(extrapolation_text(m, *std::max_element(lengths.begin(), lengths.end()), name));
}

std::string method_text(const LoadedModel& m) {
  std::string how;
  if (m.used_scaling.type != model::Scaling::kNone) how = scaling_text(m.used_scaling);
  if (m.model.spec.pattern.far()) how += (how.empty() ? "" : ", ") + pattern_text(m.model.spec.pattern);
  const std::string kind(enum_name(m.model.spec.attention));
  return how.empty() ? kind : fmt::format("{} ({})", kind, how);
}

std::string bos_text(std::optional<int32_t> bos, const char* with, const char* without) {
  return bos ? fmt::format("bos: token {} {}", *bos, with) : fmt::format("bos: none{}", without);
}

std::vector<Part> prompt_parts(const model::ModelSpec& spec, const std::vector<int64_t>& lengths,
                               int64_t prompts_of_each) {
  std::vector<Part> parts;
  for (const int64_t length : lengths) {
    const int64_t tokens = prompts_of_each * length;
    parts.push_back({.name = fmt::format("length {}", length),
                     .tokens = tokens,
                     .flops = static_cast<double>(tokens) * model::forward_flops_per_token(spec, length),
                     .length = length,
                     .units = prompts_of_each});
  }
  return parts;
}

WorkShare::WorkShare(const std::vector<Part>& parts) {
  for (const Part& part : parts) {
    cost_[part.length] = part.flops / static_cast<double>(std::max<int64_t>(1, part.units));
    total_ += part.flops;
  }
}

double WorkShare::at(int64_t length, int64_t done) {
  sum_ += static_cast<double>(done - std::exchange(done_, done)) * cost_[length];
  return total_ > 0 ? sum_ / total_ : 0;
}

double print_eval_work(const ModelFlags& flags, const model::ModelSpec& spec, const std::vector<Part>& parts,
                       int64_t batch_tokens) {
  int64_t longest = 1;
  for (const Part& part : parts) longest = std::max(longest, part.length);
  print_prose(fmt::format("model: {} (attention {}, {})\n\n", flags.model, enum_name(spec.attention),
                          counted(model::parameter_count(spec), "parameter")));
  return print_work({.parts = parts,
                     .spec = spec,
                     .precision = flags.precision,
                     .length = longest,
                     .batch = std::max<int64_t>(1, batch_tokens / longest),
                     .memory = evaluation_memory(spec, flags.precision, batch_tokens, longest)});
}

void add_eval(CLI::App& root, Action* action) {
  CLI::App& app = add_group(root, "eval",
                            "Evaluate a model at several lengths: perplexity, of windows, of a stream, of masked "
                            "tokens, passkey retrieval, RULER's tasks",
                            "Example: coca eval ppl --model out/model --text books/test --lengths 512,1024,2048");
  add_eval_ppl(app, action);
  add_eval_stream(app, action);
  add_eval_mlm(app, action);
  add_eval_recall(app, action);
  add_eval_passkey(app, action);
  add_eval_ruler(app, action);
}

}  // namespace coca::tools
