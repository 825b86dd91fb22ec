// coca finetune: train a loaded model further, on examples or text.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/base/memory.h"
#include "coca/data/instruct.h"
#include "coca/model/model.h"
#include "coca/report/table.h"
#include "coca/train/finetune.h"
#include "coca/train/load_data.h"
#include "companions.h"

namespace coca::tools {

namespace {

struct Options {
  train::FinetuneConfig config;
  bool resume = false;
};

// Whatever of it is given; the rest stays empty.
struct Loaded {
  std::optional<data::TokenDocuments> examples, validation_examples;
  std::optional<data::TokenFile> text, validation_text;
};

// A callback that shows bytes read on a line of its own, and a way to end that line.
class BytesProgress {
 public:
  explicit BytesProgress(std::string label) : label_(std::move(label)) {}
  ~BytesProgress() {
    if (progress_) progress_->finish();
  }
  void operator()(int64_t done, int64_t total) {
    if (!progress_) progress_ = make_progress({.total = total, .unit = "bytes", .label = label_});
    progress_->update(done);
  }

 private:
  std::string label_;
  std::optional<report::Progress> progress_;
};

std::optional<data::TokenDocuments> load_examples(const std::vector<std::string>& inputs,
                                                  const text::Tokenizer& tokenizer, std::optional<int32_t> bos,
                                                  const data::ChatTemplate& chat, const std::string& what) {
  if (inputs.empty()) return std::nullopt;
  BytesProgress progress("tokenizing " + what);
  return data::load_examples(tokenizer, {.inputs = inputs, .chat = chat, .bos = bos, .progress = std::ref(progress)});
}

std::optional<data::TokenFile> load_text(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer,
                                         const std::filesystem::path& cache, const std::string& what) {
  if (inputs.empty()) return std::nullopt;
  BytesProgress progress("tokenizing " + what);
  return train::load_tokens(inputs, tokenizer, cache, std::ref(progress));
}

Loaded load_data(const train::FinetuneConfig& c, const text::Tokenizer& tokenizer) {
  const std::optional<int32_t> bos = train::finetune_target(c, tokenizer).bos;
  const data::ChatTemplate chat = train::chat_template_for(c);
  const std::filesystem::path cache = std::filesystem::path(c.out) / "data";
  return {.examples = load_examples(c.data, tokenizer, bos, chat, "examples"),
          .validation_examples = load_examples(c.validation_data, tokenizer, bos, chat, "validation examples"),
          .text = load_text(c.text, tokenizer, cache / "train.tok", "text"),
          .validation_text = load_text(c.validation_text, tokenizer, cache / "validation.tok", "validation text")};
}

template <typename T>
const T* pointer(const std::optional<T>& value) {
  return value ? &*value : nullptr;
}

// Nothing of the data is left out without a word.
void print_packing(const data::PackedWindows& windows) {
  const data::PackingReport& r = windows.report();
  const double places = static_cast<double>(r.windows * windows.length());
  print(
      fmt::format("examples: {} in {} windows of {} ({:.1f} % full), {} targets count; longer than a window: {} split, "
                  "{} truncated, "
                  "{} dropped; without an answer in reach: {} left out\n",
                  report::format_count(r.documents), report::format_count(r.windows), windows.length(),
                  100.0 * static_cast<double>(r.inputs) / places, report::format_count(r.targets), r.split, r.truncated,
                  r.dropped, r.without_loss));
}

void print_start(const train::FinetuneConfig& c, const train::Finetuner& tuner) {
  const train::Loop& loop = tuner.loop();
  if (tuner.windows()) print_packing(*tuner.windows());
  const std::string whole = report::format_count(model::parameter_count(loop.spec()));
  print(fmt::format("{}: {}{}, {} steps of {} tokens, activations {}\n", c.out,
                    train::trains_adapter(c) ? fmt::format("adapter of {} parameters beside a model of {}",
                                                           report::format_count(loop.trained_parameters()), whole)
                                             : fmt::format("{} of {} parameters trained",
                                                           report::format_count(loop.trained_parameters()), whole),
                    tuner.stages().size() > 1 ? fmt::format(" in the first of {} stages", tuner.stages().size()) : "",
                    report::format_count(loop.steps()), report::format_count(c.batch * c.accumulation * tuner.length()),
                    report::format_bytes(static_cast<int64_t>(loop.activation_bytes()))));
  if (loop.first_step() > 0) print(fmt::format("resuming at step {}\n", loop.first_step()));
}

train::TrainSummary run_with_progress(train::Finetuner& tuner) {
  report::Progress progress = make_progress(
      {.total = tuner.loop().steps(), .start = tuner.loop().first_step(), .unit = "steps", .label = "finetune"});
  const bool staged = tuner.stages().size() > 1;
  const train::TrainSummary summary = tuner.run([&](const train::StepReport& r) {
    progress.update(r.step, fmt::format("{}loss {:.4f} lr {:.2e} norm {:.2f} {:.0f} tok/s{}{}",
                                        staged ? fmt::format("stage {} ", r.stage + 1) : "", r.loss, r.learning_rate,
                                        r.grad_norm, r.tokens_per_second,
                                        r.validation_loss ? fmt::format(" val {:.4f}", *r.validation_loss) : "",
                                        r.skipped ? fmt::format(" skipped {}", r.skipped) : ""));
  });
  progress.finish();
  return summary;
}

int run(const Options& options) {
  const train::FinetuneConfig& c = options.config;
  train::check_config(c);
  model::load_spec(c.model);  // a wrong folder shows as such
  const auto tokenizer = text::load_tokenizer(c.tokenizer.empty() ? c.model : c.tokenizer);
  const Loaded data = load_data(c, *tokenizer);
  train::Finetuner tuner(c,
                         {.tokenizer = *tokenizer,
                          .examples = pointer(data.examples),
                          .validation_examples = pointer(data.validation_examples),
                          .text = pointer(data.text),
                          .validation_text = pointer(data.validation_text)},
                         options.resume ? train::Start::kResume : train::Start::kFresh);
  print_start(c, tuner);
  const train::TrainSummary summary = run_with_progress(tuner);
  report::Table table{.title = "", .header = {"", "value"}, .rows = {}, .align = {}};
  table.rows = {{"steps", report::format_count(summary.steps)},
                {"tokens", report::format_count(summary.tokens)},
                {"final loss", fmt::format("{:.4f}", summary.final_loss)},
                {"validation loss", summary.validation_loss ? fmt::format("{:.4f}", *summary.validation_loss) : "-"},
                {"skipped steps", report::format_count(summary.skipped)},
                {"training time", report::format_duration(summary.seconds)},
                {"tokens per second", report::format_count(static_cast<int64_t>(summary.tokens_per_second))},
                {"peak memory", report::format_bytes(peak_resident_bytes())}};
  print(report::to_text(table));
  const std::filesystem::path out = c.out;
  const std::string result = train::trains_adapter(c) ? "adapter" : "model";
  if (result == "model") copy_companions(c.model, out / result);
  print(fmt::format("{}: {}\nmetrics: {}\n", result, (out / result).string(), (out / "metrics.csv").string()));
  return 0;
}

}  // namespace

void add_finetune(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("finetune", "Train a loaded model further, on examples or text");
  auto options = std::make_shared<Options>();
  auto flags = std::make_shared<OptionFlags>(*app, options->config);
  flags->add_config_flag();
  app->add_flag("--resume", options->resume, "go on from the newest checkpoint in --out (bitwise as if never stopped)")
      ->group("Output");
  app->footer(
      "Example: coca finetune --model out/model --data examples.jsonl --epochs 3 --learning-rate 1e-4 --out out/tuned");
  app->callback([=] {
    *action = [=] {
      flags->finish();
      return run(*options);
    };
  });
}

}  // namespace coca::tools
