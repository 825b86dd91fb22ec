// coca finetune: trains an existing model further, on examples or on text.
// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "cli.h"
#include "coca/base/count.h"
#include "coca/data/instruct.h"
#include "coca/formats/model_folder.h"
#include "coca/model/select.h"
#include "coca/report/table.h"
#include "coca/train/finetune.h"
#include "coca/train/load_data.h"
#include "companions.h"
#include "estimate.h"
#include "ranks.h"
#include "training.h"

namespace coca::tools {

namespace {

struct Options {
  train::FinetuneConfig config;
  bool resume = false, dry_run = false;

  template <class V>
  void visit(V&& v) {
    config.visit(v);
    v("resume",
      "continue from the newest checkpoint in --out, with the options saved there; ends in the same bits as a run that "
      "was not stopped",
      resume);
    v("dry_run", "estimate time, memory and disk, and do nothing", dry_run);
  }
};

// Only the members that the options ask for are filled.
struct Loaded {
  std::optional<data::TokenDocuments> examples, validation_examples;
  std::optional<data::TokenFile> text, validation_text;
  std::shared_ptr<formats::ModelFolder> model;
  int64_t rendered = 0;  // examples that the chat template wrote
  int64_t shared = 0;    // documents or examples that occur in both training and validation data
};

// "read as ShareGPT: 1,203 conversations, 2,411 answers (12 with weight 0)".
std::string describe(const data::ReadReport& r) {
  using Form = data::ExampleForm;
  constexpr std::pair<Form, std::pair<const char*, const char*>> kNames[] = {
      {Form::kMessages, {"messages", "conversation"}},
      {Form::kShareGpt, {"ShareGPT", "conversation"}},
      {Form::kAlpaca, {"Alpaca", "instruction"}},
      {Form::kPrompt, {"prompt and answer", "example"}},
      {Form::kText, {"text", "text"}}};
  std::string out;
  for (const auto& [form, names] : kNames) {
    const auto found = r.forms.find(form);
    if (found == r.forms.end()) continue;
    out +=
        fmt::format("{} {}: {}", out.empty() ? "read as" : "; as", names.first, counted(found->second, names.second));
  }
  if (r.answers > 0) out += ", " + counted(r.answers, "answer");
  if (r.masked_answers > 0) out += fmt::format(" ({} with weight 0)", grouped(r.masked_answers));
  if (r.blank > 0) out += fmt::format("; {} without any text skipped", grouped(r.blank));
  return out;
}

std::optional<data::TokenDocuments> load_examples(const std::vector<std::string>& inputs,
                                                  const text::Tokenizer& tokenizer, std::optional<int32_t> bos,
                                                  const data::ChatTemplate& chat, data::ExampleForm form,
                                                  const std::string& what, int64_t& rendered,
                                                  std::string* list = nullptr) {
  if (inputs.empty()) return std::nullopt;
  data::LoadReport report;
  std::optional<data::TokenDocuments> loaded;
  {
    BytesProgress progress("tokenizing " + what);
    loaded = data::load_examples(
        tokenizer,
        {.inputs = inputs, .form = form, .chat = chat, .bos = bos, .progress = std::ref(progress), .list = list},
        &report);
  }
  print_prose(what + " " + describe(report.read) + "\n");
  rendered += report.read.rendered;
  return loaded;
}

enum class Keep : uint8_t { kInFolder, kInMemory };  // kInMemory: no files are written

Loaded load_data(const train::FinetuneConfig& c, const std::shared_ptr<formats::ModelFolder>& model,
                 const text::Tokenizer& tokenizer, Keep keep) {
  const auto target = train::finetune_target(c, tokenizer, model);
  const std::optional<int32_t> bos = target.bos;
  const data::ChatTemplate chat = train::chat_template_for(c);
  const std::filesystem::path cache = std::filesystem::path(c.out) / "data";
  const std::filesystem::path train_file = cache / "train.tok", validation_file = cache / "validation.tok";
  const std::vector<std::string> validation_text = validation_text_of(c, Say::kChoice);
  const bool compared = !validation_text.empty() || !c.validation_data.empty();
  const auto load_text = [&](const std::vector<std::string>& inputs, const std::filesystem::path& file,
                             const char* what, std::optional<data::Split> split, data::Split otherwise,
                             std::string& documents) -> std::optional<data::TokenFile> {
    if (inputs.empty()) return std::nullopt;
    if (keep == Keep::kInFolder) {
      data::TokenFile tokens = load_tokens(inputs, tokenizer, file, what, split, otherwise);
      if (compared) documents = train::document_list(inputs, tokens, tokenizer, file);
      return tokens;
    }
    return train::sample_tokens(inputs, tokenizer, {.tokens = std::numeric_limits<int64_t>::max()}, split, otherwise,
                                &documents);
  };
  std::string list, validation_list, text_list, validation_text_list;
  int64_t rendered = 0, validation_rendered = 0;
  Loaded all{.examples = load_examples(c.data, tokenizer, bos, chat, c.format, "examples", rendered, &list),
             .validation_examples = load_examples(c.validation_data, tokenizer, bos, chat, c.format,
                                                  "validation examples", validation_rendered, &validation_list),
             .text = load_text(c.text, train_file, "text", c.split, data::Split::kTrain, text_list),
             .validation_text = load_text(validation_text, validation_file, "validation text", std::nullopt,
                                          data::Split::kValidation, validation_text_list),
             .model = model,
             .rendered = rendered};
  leave_out_short_choice(c, c.length > 0 ? c.length : target.spec.max_position, all.validation_text);
  if (all.validation_text) validation_list += validation_text_list;
  all.shared = warn_of_overlap(list + text_list, validation_list);
  return all;
}

template <typename T>
const T* pointer(const std::optional<T>& value) {
  return value ? &*value : nullptr;
}

train::FinetuneData data_of(const Loaded& data, const text::Tokenizer& tokenizer,
                            const train::CompleteFolder& complete = {}) {
  return {.tokenizer = tokenizer,
          .examples = pointer(data.examples),
          .validation_examples = pointer(data.validation_examples),
          .text = pointer(data.text),
          .validation_text = pointer(data.validation_text),
          .model = data.model,
          .complete = complete};
}

// Reports what the window length costs examples that are longer.
void warn_of_long_examples(const data::PackedWindows& windows) {
  const data::PackingReport& r = windows.report();
  std::string what;
  const auto add = [&](int64_t n, const char* becomes) {
    if (n > 0) what += fmt::format("{}{} {} {}", what.empty() ? "" : ", ", grouped(n), n == 1 ? "is" : "are", becomes);
  };
  add(r.split, "split, and only the first part of each begins with its question");
  add(r.truncated, "cut off at the end of the window");
  add(r.dropped, "left out");
  if (what.empty()) return;
  log_warning(
      "{} of {} longer than the window of {}: {}; a greater --length takes them whole, --long-documents chooses "
      "another way",
      grouped(r.split + r.truncated + r.dropped),
      counted(r.documents, "example") + (r.split + r.truncated + r.dropped == 1 ? " is" : " are"),
      counted(windows.length(), "token"), what);
}

// Reports everything that is left out of the data.
void print_packing(const data::PackedWindows& windows) {
  const data::PackingReport& r = windows.report();
  const double places = static_cast<double>(r.windows * windows.length());
  print_prose(
      fmt::format("examples: {} in {} of {} ({:.1f} % full), {} counted; longer than a window: {} split, {} truncated, "
                  "{} dropped; without an answer in reach: {} left out\n",
                  grouped(r.documents), counted(r.windows, "window"), windows.length(),
                  100.0 * static_cast<double>(r.inputs) / places, counted(r.targets, "target"), grouped(r.split),
                  grouped(r.truncated), grouped(r.dropped), grouped(r.without_loss)));
}

void print_start(const train::FinetuneConfig& c, const train::Finetuner& tuner) {
  const train::Loop& loop = tuner.loop();
  if (tuner.windows()) print_packing(*tuner.windows());
  if (tuner.windows() && first_rank()) warn_of_long_examples(*tuner.windows());
  const int64_t whole = model::parameter_count(loop.spec());
  print_prose(fmt::format(
      "{}: {}{}, {} of {}, activations {}{}\n", c.out,
      train::trains_adapter(c)
          ? fmt::format("adapter of {} beside a model of {}", counted(loop.trained_parameters(), "parameter"),
                        grouped(whole))
          : fmt::format("{} of {} trained", grouped(loop.trained_parameters()), counted(whole, "parameter")),
      tuner.stages().size() > 1 ? fmt::format(" in the first of {}", counted(tuner.stages().size(), "stage")) : "",
      counted(loop.steps(), "step"), counted(c.batch * c.accumulation * tuner.length(), "token"),
      report::format_bytes(static_cast<int64_t>(loop.activation_bytes())), ranks_text()));
}

train::TrainSummary run_with_progress(train::Finetuner& tuner) {
  report::Progress progress = make_progress(
      {.total = tuner.loop().steps(), .start = tuner.loop().first_step(), .unit = "steps", .label = "finetune"});
  const bool staged = tuner.stages().size() > 1;
  const train::TrainSummary summary = tuner.run([&](const train::StepReport& r) {
    progress.update(r.step, (staged ? fmt::format("stage {} ", r.stage + 1) : "") + step_text(r));
  });
  progress.finish();
  return summary;
}

// Runs --dry-run: makes the same checks as a real run and prints the estimate. Reads all the data and writes nothing.
int estimate(const OptionFlags& flags, const train::FinetuneConfig& c,
             const std::shared_ptr<formats::ModelFolder>& model, const text::Tokenizer& tokenizer, train::Start start) {
  const Loaded data = load_data(c, model, tokenizer, Keep::kInMemory);
  note_default_out(flags, c.out);
  const train::FinetuneSetup setup(c, data_of(data, tokenizer), ranks().size());
  const model::ModelSpec& spec = setup.target().spec;
  const train::LoopOptions& loop = setup.loop_options();
  const std::filesystem::path from = train::check_start(loop, spec, start, ranks().size());
  const int64_t done = first_step(from), length = setup.target().length;
  if (setup.windows()) print_packing(*setup.windows());
  if (setup.windows()) warn_of_long_examples(*setup.windows());
  train::warn_of_start(loop, from);
  int64_t steps = 0;
  for (const train::Stage& stage : loop.stages) steps += stage.steps;
  const int64_t step_tokens = c.batch * c.accumulation * length, tokens = (steps - done) * step_tokens,
                parameters = model::parameter_count(spec);
  const int64_t trained = loop.adapter ? model::element_count(loop.adapter->tensors().infos()) : parameters;
  const int64_t windows = setup.validation() ? std::min(c.validation_windows, setup.validation()->windows()) : 0;
  const int64_t validated = validations_left(done, steps, c.validation_interval) * windows * length;
  const double each = model::forward_flops_per_token(spec, length);
  Work work{
      .parts = {{"training", Pass::kTraining, tokens, 3 * static_cast<double>(tokens) * each}},
      .spec = spec,
      .precision = c.precision,
      .recompute = c.recompute,
      .length = length,
      .batch = loop.shape.batch,
      .disk = training_disk(trained, c.keep_checkpoints) +
              train::cache_bytes(c.text, tokenizer, c.split, data::Split::kTrain) +
              train::cache_bytes(c.text.empty() ? std::vector<std::string>{} : validation_text_of(c, Say::kNothing),
                                 tokenizer, std::nullopt, data::Split::kValidation)};
  work.memory = training_memory(work, trained);
  if (validated > 0)
    work.parts.push_back({"validation", Pass::kForward, validated, static_cast<double>(validated) * each});
  print_prose(fmt::format("{}: a model of {}, {}\n\n", c.out, counted(parameters, "parameter"),
                          steps_text(done, steps, step_tokens)));
  return print_dry_run(work);
}

// Rejects options that would have no effect.
void check_effects(const OptionFlags& flags, const train::FinetuneConfig& c) {
  for (const char* flag : {"--lora-alpha", "--lora-dropout", "--lora-targets", "--lora-scaling"}) {
    COCA_CHECK(c.adapter.empty() || !flags.typed(flag),
               "{}: the adapter that is trained further, {}, has its own; leave the option out", flag, c.adapter);
    flags.check_effect(flag, c.lora_rank != 0 || !c.adapter.empty(),
                       "no LoRA adapter is trained; add --lora-rank (such as --lora-rank 8), or leave the option out");
  }
  for (const char* flag : {"--format", "--long-documents", "--chat-template", "--chat-var", "--bos"})
    flags.check_effect(flag, !c.data.empty(), "is about examples, and plain text has none; leave the option out");
  if (flags.given("--chat-var") && !c.data.empty())
    flags.check_effect("--chat-var", !train::chosen_chat_template(c).is_plain(),
                       "the template plain has no variables; choose another with --chat-template");
  if (flags.typed("--epochs") && c.steps > 0)
    print_note(fmt::format("--epochs has no effect beside --steps {}", c.steps));
}

void check_clex_rate(const OptionFlags& flags, const train::FinetuneConfig& c, const model::ModelSpec& spec) {
  flags.check_effect("--clex-rate", train::scaled_spec(c.positions, spec).rope_scaling.type == model::Scaling::kClex,
                     "only rope scaling clex has a network with a rate of its own; add --rope-scaling clex, or leave "
                     "the option out");
}

// Adds the chat template and variables that the model has learned, so that `coca generate --chat` uses them too, and
// what else belongs to a model.
void complete_folder(const train::FinetuneConfig& c, const Loaded& data, const std::filesystem::path& result) {
  const bool adapter = train::trains_adapter(c);
  const bool from_model = c.chat_template == "auto" && c.adapter.empty() && text::load_chat_template(c.model);
  if (data.rendered > 0 && !from_model)
    save_chat_template(train::chosen_chat_template(c), result);
  else if (const auto chat = c.adapter.empty() ? std::nullopt : text::load_chat_template(c.adapter); chat)
    save_chat_template(*chat, result);
  if (data.rendered > 0) save_chat_variables(train::chat_variables_for(c), c.model, result);
  if (!adapter) copy_companions(c.model, result);
}

int run(OptionFlags& flags, Options& options) {
  BeforeBegin before(options.config.out);
  require_shared_out(options.config.out);
  const bool found = options.resume && resume_options(flags, options.config, "finetune_config.json");
  const train::FinetuneConfig& c = options.config;
  COCA_CHECK(!options.resume || !c.model.empty(), "--model: none given, and {} holds no run to resume", c.out);
  train::check_config(c);
  check_effects(flags, c);
  const auto model = std::make_shared<formats::ModelFolder>(c.model);  // reports a wrong folder early
  check_clex_rate(flags, c, model->spec());
  const std::filesystem::path result_folder =
      std::filesystem::path(c.out) / (train::trains_adapter(c) ? "adapter" : "model");
  check_apart("--out", result_folder, train::trains_adapter(c) ? "--adapter" : "--model",
              train::trains_adapter(c) ? c.adapter : c.model);
  if (!options.resume) check_outside("--out", c.out, "--model", c.model);
  if (!options.resume && !c.adapter.empty()) check_outside("--out", c.out, "--adapter", c.adapter);
  const auto tokenizer = text::load_tokenizer(c.tokenizer.empty() ? c.model : c.tokenizer);
  const train::Start start = options.resume ? train::Start::kResume : train::Start::kFresh;
  if (options.dry_run) return estimate(flags, c, model, *tokenizer, start);
  before.claim();
  first_rank_checks([&] { return train::check_folder(c.out, start); });
  const Loaded data = load_data(c, model, *tokenizer, Keep::kInFolder);
  note_default_out(flags, c.out);
  if (data.rendered == 0 && flags.typed("--chat-template"))
    print_note("--chat-template has no effect: no example holds messages");
  const auto complete = [&](const std::filesystem::path& folder) { complete_folder(c, data, folder); };
  train::Finetuner tuner(c, data_of(data, *tokenizer, complete), start, ranks(), before.lock());
  before.begun();
  print_start(c, tuner);
  if (options.resume) print_resumed(c.out, found, tuner.loop().first_step(), tuner.loop().steps());
  const train::TrainSummary summary = run_with_progress(tuner);
  print_summary(summary, data.shared);
  const std::filesystem::path out = c.out;
  const std::string result = train::trains_adapter(c) ? "adapter" : "model";
  print_prose(fmt::format("{}: {}\nmetrics: {}\n", result, (out / result).string(), (out / "metrics.csv").string()));
  return 0;
}

}  // namespace

void add_finetune(CLI::App& root, Action* action) {
  add_command<Options>(
      root, action, "finetune", "Train a loaded model further, on examples or text",
      "Example: coca finetune --model out/model --data examples.jsonl --epochs 3 --learning-rate 1e-4 --out out/tuned",
      run);
}

}  // namespace coca::tools
