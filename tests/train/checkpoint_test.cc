// SPDX-License-Identifier: Apache-2.0
#include "coca/train/checkpoint.h"

#include "coca/formats/model_folder.h"
#include "coca/io/json_file.h"
#include "train/tiny_run.h"

namespace coca::train::checkpoint_test {
namespace {

namespace fs = std::filesystem;
using test::expect_error;

// Weights and optimizer of one spec with random contents.
struct State {
  TrainConfig config;
  model::ModelSpec spec;
  model::ParamStore params;
  optim::AdamW optimizer;
  std::unique_ptr<text::Tokenizer> tokenizer = text::make_byte_tokenizer();

  explicit State(const TrainConfig& c, uint64_t seed)
      : config(c), spec(make_spec(c, 272, std::nullopt, std::nullopt)), params(spec), optimizer(spec, make_adamw(c)) {
    spec.init_std = 0.5;
    model::initialise(spec, seed++, params);
    spec.init_std = c.init_std;
    for (MutTensorRef moments : {optimizer.first_moment(), optimizer.second_moment()}) {
      Rng rng(seed++);
      std::generate_n(moments.as<float>(), moments.numel(), [&] { return static_cast<float>(rng.normal()); });
    }
  }
  CheckpointParts parts() { return {spec, params, optimizer, *tokenizer}; }
  void save(int64_t step) { save_checkpoint(checkpoint_plan(config), {.step = step}, parts()); }
  TrainState load() { return load_checkpoint(latest_checkpoint(config.out).value(), parts()); }
};

std::vector<float> values_of(TensorRef flat) { return {flat.as<float>(), flat.as<float>() + flat.numel()}; }

TEST(Checkpoint, RoundTripsBitwise) {
  const test::TempDir dir;
  State saved(test::tiny_config(dir.path()), 1), loaded(saved.config, 100);
  saved.optimizer.set_updates(6);
  const TrainState state{.step = 7,
                         .updates = 6,
                         .skipped = 1,
                         .bad_in_a_row = 1,
                         .tokens = 224,
                         .seconds = 1.0 / 3,
                         .interval_loss = 0.1,
                         .interval_steps = 1,
                         .data_tokens = 2000,
                         .tokenizer_fingerprint = saved.tokenizer->fingerprint(),
                         .data_fingerprint = "0123456789abcdef"};
  save_checkpoint(checkpoint_plan(saved.config), state, saved.parts());
  ASSERT_NE(test::values_of(saved.params), test::values_of(loaded.params));
  const TrainState back = loaded.load();
  EXPECT_EQ(test::values_of(saved.params), test::values_of(loaded.params));
  EXPECT_EQ(values_of(saved.optimizer.first_moment()), values_of(loaded.optimizer.first_moment()));
  EXPECT_EQ(values_of(saved.optimizer.second_moment()), values_of(loaded.optimizer.second_moment()));
  EXPECT_EQ(loaded.optimizer.updates(), 6);
  EXPECT_EQ(back.step, 7);
  EXPECT_EQ(back.skipped, 1);
  EXPECT_EQ(back.bad_in_a_row, 1);
  EXPECT_EQ(back.tokens, 224);
  EXPECT_EQ(back.seconds, 1.0 / 3);
  EXPECT_EQ(back.interval_loss, 0.1);
  EXPECT_EQ(back.interval_steps, 1);
  EXPECT_EQ(back.data_tokens, 2000);
  EXPECT_EQ(back.tokenizer_fingerprint, saved.tokenizer->fingerprint());
  EXPECT_EQ(back.data_fingerprint, "0123456789abcdef");
  EXPECT_EQ(load_train_config(*latest_checkpoint(dir.path())).learning_rate, saved.config.learning_rate);
}

TEST(Checkpoint, IsAModelFolder) {
  const test::TempDir dir;
  State run(test::tiny_config(dir.path()), 1);
  run.save(1);
  export_model(dir.path() / "model", run.parts());
  for (const fs::path& folder : {*latest_checkpoint(dir.path()), dir.path() / "model"}) {
    const model::Model model = formats::load_model(folder);
    EXPECT_EQ(test::values_of(*model.params), test::values_of(run.params));
    EXPECT_EQ(model.spec.attention, run.spec.attention);
    EXPECT_EQ(text::load_tokenizer(folder)->fingerprint(), run.tokenizer->fingerprint());
  }
  EXPECT_FALSE(fs::exists(dir.path() / "model" / "optimizer.safetensors"));
}

TEST(Checkpoint, KeepsTheNewest) {
  const test::TempDir dir;
  State run(test::tiny_config(dir.path()), 1);
  EXPECT_FALSE(latest_checkpoint(dir.path()));
  for (const int64_t step : {2, 9, 10, 100}) {
    run.save(step);
    EXPECT_EQ(latest_checkpoint(dir.path())->filename(), fmt::format("step-{:08}", step));
  }
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(checkpoint_root(dir.path()))) names.insert(entry.path().filename());
  EXPECT_THAT(names, testing::ElementsAre("step-00000010", "step-00000100"));
}

// A kill while an old checkpoint is removed leaves part of it; the next save removes the rest.
TEST(Checkpoint, HalfRemovedOnesGoWithTheNextSave) {
  const test::TempDir dir;
  State run(test::tiny_config(dir.path()), 1);
  run.save(1);
  run.save(4);
  const fs::path root = checkpoint_root(dir.path());
  fs::remove(root / "step-00000001" / "train_state.json");
  fs::create_directories(root / "step-00000002");
  run.save(5);
  std::vector<std::string> names;
  for (const fs::path& folder : io::list_folder(root)) names.push_back(folder.filename());
  EXPECT_THAT(names, testing::ElementsAre("step-00000004", "step-00000005"));
}

// A run that went back behind damaged checkpoints must not lose those it writes now.
TEST(Checkpoint, LaterOnesDoNotPushOutTheNewest) {
  const test::TempDir dir;
  TrainConfig config = test::tiny_config(dir.path());
  config.keep_checkpoints = 1;
  State run(config, 1);
  run.save(9);
  run.save(4);
  const fs::path root = checkpoint_root(dir.path());
  EXPECT_TRUE(fs::exists(root / "step-00000004"));
  run.save(5);
  EXPECT_TRUE(fs::exists(root / "step-00000005"));
  EXPECT_FALSE(fs::exists(root / "step-00000004"));
}

TEST(Checkpoint, UnfinishedFoldersAreIgnored) {
  const test::TempDir dir;
  State run(test::tiny_config(dir.path()), 1);
  run.save(4);
  const fs::path root = checkpoint_root(dir.path()), whole = root / "step-00000004";
  fs::copy(whole, root / ".tmp-step-00000008-1");  // as left by a kill while saving
  fs::copy(whole, root / "step-00000009x");
  fs::create_directory(root / "step-00000010");
  io::write_file_atomic(root / "step-00000011", "a file");
  EXPECT_EQ(latest_checkpoint(dir.path()), whole);
  run.save(5);
  run.save(6);  // pruning ignores them too
  EXPECT_FALSE(fs::exists(whole));
  EXPECT_TRUE(fs::exists(root / ".tmp-step-00000008-1"));
}

TEST(Checkpoint, AnotherSpecIsNamed) {
  const test::TempDir dir;
  const TrainConfig slack = test::tiny_config(dir.path());
  State(slack, 1).save(4);
  TrainConfig rope = slack, wide = slack, partial = slack;
  rope.attention = model::AttentionKind::kRope;  // has the same names and shapes as slack
  wide.width = 64;
  partial.rotary_pct = 0.5;
  expect_error([&] { State(rope, 1).load(); }, ErrorKind::kInvalidArgument,
               "\"attention_type\" is \"coca-slack\"; this run has \"rope\"");
  expect_error([&] { State(wide, 1).load(); }, ErrorKind::kInvalidArgument, "\"hidden_size\" is 32; this run has 64");
  expect_error([&] { State(partial, 1).load(); }, ErrorKind::kInvalidArgument,
               "\"rotary_pct\" is 1.0; this run has 0.5");
}

TEST(Checkpoint, DamagedFilesAreErrors) {
  const test::TempDir dir;
  State run(test::tiny_config(dir.path()), 1);
  run.save(4);
  const fs::path checkpoint = *latest_checkpoint(dir.path());
  const auto damaged = [&](const char* file, const std::string& content, ErrorKind kind, const std::string& text) {
    SCOPED_TRACE(file);
    const std::string good = io::read_file(checkpoint / file);
    io::write_file_atomic(checkpoint / file, content);
    expect_error([&] { run.load(); }, kind, text);
    io::write_file_atomic(checkpoint / file, good);
  };
  const auto cut = [&](const char* file, size_t lost) {
    const std::string all = io::read_file(checkpoint / file);
    return all.substr(0, all.size() - lost);
  };
  damaged("train_state.json", "{\"step\": 4", ErrorKind::kBadFile, "train_state.json");
  damaged("train_state.json", "{\"step\": 4}", ErrorKind::kBadFile, "updates");
  damaged("train_state.json", "{\"step\": \"4\"}", ErrorKind::kBadFile, "train_state.json");
  damaged("config.json", "[]", ErrorKind::kBadFile, "config.json");
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    damaged(file, cut(file, 1), ErrorKind::kBadFile, file);
    damaged(file, cut(file, 0) + "x", ErrorKind::kBadFile, file);
    damaged(file, "", ErrorKind::kBadFile, file);
  }
  std::string renamed = cut("optimizer.safetensors", 0);
  renamed.replace(renamed.find("\"v.embed_out.weight\""), 20, "\"w.embed_out.weight\"");
  damaged("optimizer.safetensors", renamed, ErrorKind::kBadFile, "v.embed_out.weight");
  fs::remove(checkpoint / "optimizer.safetensors");
  expect_error([&] { run.load(); }, ErrorKind::kIo, "optimizer.safetensors");
}

TEST(Checkpoint, InvalidStatesAreErrors) {
  const test::TempDir dir;
  const State saved(test::tiny_config(dir.path()), 1);
  const nlohmann::json good = {{"step", 7},          {"updates", 6},
                               {"skipped", 1},       {"bad_in_a_row", 0},
                               {"tokens", 224},      {"seconds", 1.5},
                               {"interval_loss", 0}, {"interval_steps", 0},
                               {"data_tokens", 9},   {"tokenizer_fingerprint", "byte"}};
  const auto expect = [&](const char* key, const nlohmann::json& value, const char* text) {
    nlohmann::json state = good;
    state[key] = value;
    io::write_json(dir.path() / "train_state.json", state);
    expect_error([&] { load_state(dir.path()); }, ErrorKind::kBadFile, text);
  };
  io::write_json(dir.path() / "train_state.json", good);
  EXPECT_EQ(load_state(dir.path()).tokens, 224);
  expect("step", 1e300, "\"step\" is 1e+300; expected an integer");  // used to be converted with undefined behaviour
  expect("step", 1.5, "\"step\" is 1.5");
  expect("tokens", true, "\"tokens\" is true");
  expect("updates", -1, "\"updates\" is -1; expected 0 or more");
  expect("skipped", uint64_t{1} << 63, "\"skipped\" is 9223372036854775808");
  expect("seconds", "1", "\"seconds\" is \"1\"");
  io::write_json(dir.path() / "train_state.json", nlohmann::json::array());
  expect_error([&] { load_state(dir.path()); }, ErrorKind::kBadFile, "expected a JSON object");
}

}  // namespace
}  // namespace coca::train::checkpoint_test
