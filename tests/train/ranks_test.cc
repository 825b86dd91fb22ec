// Training by several ranks (threads here): the same bits as one rank for the same slices, a distributed optimizer
// state, and checkpoints that any number of ranks can resume.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cmath>
#include <map>

#include "coca/base/log.h"
#include "coca/base/parallel.h"
#include "coca/base/stop.h"
#include "coca/dist/thread_group.h"
#include "coca/io/safetensors.h"
#include "coca/train/moments.h"
#include "train/tiny_finetune.h"
#include "train/tiny_run.h"

namespace coca::train::ranks_test {
namespace {

namespace fs = std::filesystem;

// One thread per rank, since they share the machine.
void run_ranks(int ranks, const std::function<void(dist::Communicator&)>& body) {
  dist::run_ranks(ranks, [&](dist::Communicator& here) {
    set_max_threads(1);
    body(here);
  });
}

TrainConfig config_of_8_windows(const fs::path& out) {
  TrainConfig c = test::tiny_config(out);
  c.batch = 4;
  c.accumulation = 2;
  c.slices = 4;
  c.validation_interval = 6;
  c.validation_windows = 5;
  return c;
}

// The summary of rank 0, after checking that all ranks agree.
TrainSummary train_by(int ranks, const TrainConfig& c, Start start = Start::kFresh) {
  const test::TinyData data;
  std::vector<TrainSummary> all(static_cast<size_t>(ranks));
  run_ranks(ranks, [&](dist::Communicator& here) {
    all[static_cast<size_t>(here.rank())] = Trainer(c, data.with_validation(), start, here).run();
  });
  for (const TrainSummary& one : all) {
    EXPECT_EQ(one.final_loss, all[0].final_loss);
    EXPECT_EQ(one.validation_loss, all[0].validation_loss);
    EXPECT_EQ(one.tokens, all[0].tokens);
  }
  return all[0];
}

// Moments by name, assembled from all files of the newest checkpoint.
std::map<std::string, std::vector<float>> moments_of(const fs::path& out) {
  std::map<std::string, std::vector<float>> all;
  for (const fs::directory_entry& entry : fs::directory_iterator(*latest_checkpoint(out))) {
    if (!entry.path().filename().string().starts_with("optimizer")) continue;
    const io::SafetensorsFile file(entry.path());
    for (const io::StoredTensor& t : file.tensors()) {
      const std::vector<float> values = io::to_f32(t);
      const size_t open = t.name.find('['), begin = open == std::string::npos ? 0 : std::stoul(t.name.substr(open + 1));
      std::vector<float>& whole = all[t.name.substr(0, open)];
      if (whole.size() < begin + values.size()) whole.resize(begin + values.size(), std::nanf(""));
      std::copy(values.begin(), values.end(), whole.begin() + static_cast<std::ptrdiff_t>(begin));
    }
  }
  return all;
}

void expect_same_run(const fs::path& a, const fs::path& b, const std::string& what) {
  EXPECT_TRUE(io::read_file(a / "model" / "model.safetensors") == io::read_file(b / "model" / "model.safetensors"))
      << what;
  EXPECT_TRUE(moments_of(a) == moments_of(b)) << what;
  EXPECT_EQ(test::metrics_without_times(a), test::metrics_without_times(b)) << what;
}

TEST(Ranks, AnyNumberThatDividesTheSlicesEndsInTheSameBits) {
  const test::TempDir dir;
  for (const auto& [name, change] : std::map<std::string, std::function<void(TrainConfig&)>>{
           {"f32", [](TrainConfig&) {}},
           {"bf16", [](TrainConfig& c) { c.precision = model::Precision::kBF16; }},
           {"tied-llama",
            [](TrainConfig& c) { c.tie_embeddings = true, c.architecture = model::Architecture::kLlama; }},
           {"remade", [](TrainConfig& c) { c.recompute = model::Recompute::kLayer; }},
           {"masked", [](TrainConfig& c) {
              c.direction = model::Direction::kBidirectional;
              c.windows.layer_window = {4};
              c.windows.global_tokens = 2;
            }}}) {
    TrainConfig c = config_of_8_windows(dir.path() / (name + "1"));
    change(c);
    train_by(1, c);
    for (const int ranks : {2, 4}) {
      c.out = (dir.path() / (name + std::to_string(ranks))).string();
      train_by(ranks, c);
      expect_same_run(dir.path() / (name + "1"), c.out, name + " on " + std::to_string(ranks));
    }
  }
}

TEST(Ranks, OneSliceForEachIsTheSameLossToRounding) {
  const test::TempDir dir;
  TrainConfig c = config_of_8_windows(dir.path() / "one");
  c.slices = 0;
  c.batch = 6;
  c.accumulation = 1;
  const TrainSummary one = train_by(1, c);
  for (const int ranks : {2, 3}) {
    c.out = (dir.path() / std::to_string(ranks)).string();
    const TrainSummary several = train_by(ranks, c);
    EXPECT_EQ(several.tokens, one.tokens);
    // Gradients differ by roundings, which Adam's first steps can turn into whole steps: 12 steps of 3e-3 on losses of
    // about 5.
    EXPECT_NEAR(several.final_loss, one.final_loss, 1e-3);
    EXPECT_NEAR(*several.validation_loss, *one.validation_loss, 1e-3);
  }
}

TEST(Ranks, EachKeepsItsShareOfTheState) {
  const test::TempDir dir;
  const TrainConfig c = config_of_8_windows(dir.path());
  train_by(4, c);
  const auto newest = latest_checkpoint(dir.path());
  int64_t least = 1 << 30, most = 0, total = 0;
  for (int r = 1; r <= 4; ++r) {
    const io::SafetensorsFile file(*newest / fmt::format("optimizer-{:05}-of-00004.safetensors", r));
    int64_t count = 0;
    for (const io::StoredTensor& t : file.tensors()) count += t.shape.product();
    least = std::min(least, count);
    most = std::max(most, count);
    total += count;
  }
  int64_t parameters = 0;
  for (const auto& [name, values] : moments_of(dir.path())) {
    parameters += static_cast<int64_t>(values.size());
    for (const float x : values) ASSERT_FALSE(std::isnan(x)) << name;  // every element is in one of the files
  }
  EXPECT_EQ(total, parameters);
  // For each moment, shares differ by at most one tile in each of the 4 buckets.
  EXPECT_LE(most - least, 2 * 4 * optim::Partition::kTile);
}

TEST(Ranks, ADifferentNumberResumes) {
  const test::TempDir dir;
  TrainConfig c = config_of_8_windows(dir.path() / "whole");
  train_by(1, c);
  c.out = (dir.path() / "parts").string();
  const test::TinyData data;
  for (const auto& [ranks, end] : {std::pair{4, 3}, std::pair{1, 6}, std::pair{2, 9}}) {
    EXPECT_THROW(run_ranks(ranks,
                           [&, end = end](dist::Communicator& here) {
                             Trainer(c, data.with_validation(), Start::kResume, here).run([&](const StepReport& r) {
                               if (r.step == end && here.rank() + 1 == here.size()) request_stop();
                             });
                           }),
                 Error);
    clear_stop();
    ASSERT_EQ(load_state(*latest_checkpoint(c.out)).step, end);
  }
  train_by(4, c, Start::kResume);
  expect_same_run(dir.path() / "whole", c.out, "4, 1, 2 and 4 ranks");
}

TEST(Ranks, FineTuneAdaptersAndPartsOfFusedProjections) {
  const test::TempDir dir;
  const test::TinyExamples examples;
  test::put_model(dir.path() / "model", test::byte_spec(test::tiny_neox(model::AttentionKind::kCocaSlack)));
  for (const auto& [name, change] : std::map<std::string, std::function<void(FinetuneConfig&)>>{
           {"lora", [](FinetuneConfig& c) { c.lora_rank = 2, c.lora_dropout = 0.1; }}, {"parts", [](FinetuneConfig& c) {
                                                                                          c.train = {"*.q.*", "*mlp*"};
                                                                                        }}}) {
    for (const int ranks : {1, 2}) {
      FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / (name + std::to_string(ranks)));
      c.batch = 2;
      c.accumulation = 2;
      c.slices = 2;
      change(c);
      run_ranks(ranks, [&](dist::Communicator& here) { Finetuner(c, examples.data(), Start::kFresh, here).run(); });
    }
    const auto at = [&](int ranks) { return dir.path() / (name + std::to_string(ranks)); };
    EXPECT_TRUE(moments_of(at(1)) == moments_of(at(2))) << name;
    const auto weights = [&](int ranks) {
      const fs::path newest = *latest_checkpoint(at(ranks));
      return io::read_file(newest / (name == "lora" ? "adapter_model.safetensors" : "model.safetensors"));
    };
    EXPECT_TRUE(weights(1) == weights(2)) << name;
  }
}

// Ring attention in training: the tokens of every window are distributed over all ranks.
TEST(Ranks, ShareTheTokensOfWindows) {
  const test::TempDir dir;
  for (const auto attention : {model::AttentionKind::kCocaSlack, model::AttentionKind::kRope}) {
    const std::string name(enum_name(attention));
    TrainConfig c = config_of_8_windows(dir.path() / (name + "1"));
    c.attention = attention;
    c.length = 19;
    c.slices = 0;
    c.context_parallel = true;
    c.recompute = model::Recompute::kLayer;
    c.decay = optim::Decay::kConstant;  // so that a shorter run equals the beginning of this one
    const TrainSummary one = train_by(1, c);
    for (const int ranks : {2, 3}) {
      c.out = (dir.path() / (name + std::to_string(ranks))).string();
      const TrainSummary several = train_by(ranks, c);
      EXPECT_EQ(several.tokens, one.tokens);
      // As above: roundings only.
      EXPECT_NEAR(several.final_loss, one.final_loss, 1e-3) << name << ranks;
      EXPECT_NEAR(*several.validation_loss, *one.validation_loss, 1e-3) << name << ranks;
    }
    // Stopped on 3 ranks, the run continues on 2, and then on 2 with whole windows.
    c.out = (dir.path() / (name + "resumed")).string();
    c.steps = 6;
    train_by(3, c);
    c.steps = 9;
    train_by(2, c, Start::kResume);
    c.steps = 12;
    c.context_parallel = false;
    EXPECT_NEAR(train_by(2, c, Start::kResume).final_loss, one.final_loss, 1e-3) << name;
  }
}

TEST(Ranks, MistakesAreNamed) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = config_of_8_windows(dir.path() / "a");
  const auto by = [&](int ranks) {
    return [&, ranks] {
      run_ranks(ranks, [&](dist::Communicator& here) { Trainer(c, data.with_validation(), Start::kFresh, here); });
    };
  };
  test::expect_error(by(3), ErrorKind::kInvalidArgument,
                     "slices is 4; expected 0 (one a rank) or a multiple of the 3 ranks");
  c.slices = 0;
  test::expect_error(by(3), ErrorKind::kInvalidArgument,
                     "a step of 8 windows (4 x 2) cannot be divided into 3 equal slices");
  c.slices = 3;
  test::expect_error(by(1), ErrorKind::kInvalidArgument,
                     "slices is 3; expected 0 (one a rank) or a divisor of the 8 windows");
  c.context_parallel = true;
  c.slices = 4;
  test::expect_error(by(2), ErrorKind::kInvalidArgument,
                     "slices is 4; with context_parallel a step is not cut into slices");
  c.slices = 0;
  c.windows.layer_window = {4};
  test::expect_error(by(2), ErrorKind::kInvalidArgument, "[ring] layer 0 has a window of 4 tokens");
  c.windows.layer_window = {};
  c.positions.draw = PositionDraw::kRandom;
  c.positions.target_length = 32;
  test::expect_error(by(2), ErrorKind::kInvalidArgument, "drawn positions");
  c.positions = {};
  c.context_parallel = false;
  train_by(2, c);
  test::expect_error(by(2), ErrorKind::kInvalidArgument, "already holds a training run");
}

TEST(Ranks, ACheckpointThatOneCannotWriteLosesNothing) {
  const test::TempDir dir;
  TrainConfig c = config_of_8_windows(dir.path() / "run");
  const test::TinyData data;
  std::atomic<int> warnings = 0;
  set_log_sink([&](LogLevel, std::string_view text) {
    if (text.find("step 8 could not be saved") != std::string_view::npos) ++warnings;
  });
  run_ranks(2, [&](dist::Communicator& here) {
    Trainer trainer(c, data.with_validation(), Start::kFresh, here);
    trainer.run([&](const StepReport& r) {
      if (here.rank() > 0) return;
      const fs::path root = checkpoint_root(c.out), aside = dir.path() / "aside";
      if (r.step == 7) {
        fs::rename(root, aside);
        io::write_file_atomic(root, "a file in the way");
      }
      if (r.step == 9) {
        fs::remove(root);
        fs::rename(aside, root);
      }
    });
  });
  set_log_sink({});
  EXPECT_EQ(warnings, 1);  // rank 0 warns for all
  EXPECT_EQ(load_state(*latest_checkpoint(c.out)).step, 12);
}

TEST(Moments, DamagedFilesAreNamed) {
  const test::TempDir dir;
  const TrainConfig c = config_of_8_windows(dir.path());
  train_by(2, c);
  const fs::path newest = *latest_checkpoint(dir.path());
  const model::ModelSpec spec =
      make_spec(c, padded_vocabulary(*text::make_byte_tokenizer()), std::nullopt, std::nullopt);
  optim::AdamW optimizer(spec, {});
  load_moments(newest, optimizer);
  fs::rename(newest / "optimizer-00002-of-00002.safetensors", dir.path() / "gone");
  test::expect_error([&] { load_moments(newest, optimizer); }, ErrorKind::kBadFile, "lacks its elements from");
  for (const char* name : {"m.embed_out.weight[0:", "m.embed_out.weight[5:3]", "m.embed_out.weight[-1:3]", "x]",
                           "m.embed_out.weight[0:4]"}) {
    const Tensor three({3});
    io::save_safetensors(newest / "optimizer-00002-of-00002.safetensors",
                         {{std::string(name) + (std::string_view(name).ends_with(']') ? "" : "]"), three.ref()}});
    test::expect_error([&] { load_moments(newest, optimizer); }, ErrorKind::kBadFile, "expected NAME[begin:end]");
  }
  const Tensor far({3});
  io::save_safetensors(newest / "optimizer-00002-of-00002.safetensors",
                       {{"m.gpt_neox.embed_in.weight[1000000:1000003]", far.ref()}});
  test::expect_error([&] { load_moments(newest, optimizer); }, ErrorKind::kBadFile,
                     "m.gpt_neox.embed_in.weight[1000000:1000003]");
}

}  // namespace
}  // namespace coca::train::ranks_test
