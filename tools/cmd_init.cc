// coca init: a model folder with random weights, of the shape a config.json describes.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/eval/protocol.h"
#include "coca/io/fs.h"
#include "coca/model/config.h"
#include "coca/model/model.h"
#include "coca/report/table.h"

namespace coca::tools {

namespace {

struct Options {
  std::string config, out, tokenizer = "byte";
  model::Precision precision = model::Precision::kF32;
  int64_t seed = 0;

  template <class V>
  void visit(V&& v) {
    v("config", "config.json that describes the model", config);
    v("out", "model folder to write", out);
    v("tokenizer", "byte, a sentencepiece .model, or a folder with one", tokenizer);
    v("precision", "of matrices and embeddings in the file", precision);
    v("seed", "of the weights", seed);
  }
};

int run(const Options& o) {
  COCA_CHECK(!o.config.empty(), "--config: no config.json given");
  COCA_CHECK(!o.out.empty(), "--out: no folder given");
  const model::ModelSpec spec = model::spec_from_json(io::read_json(o.config), o.config);
  const auto tokenizer = text::load_tokenizer(o.tokenizer);
  eval::check_tokenizer(*tokenizer, spec);
  io::AtomicDir folder(o.out, io::AtomicDir::Existing::kRefuse);
  model::ParamStore params(spec, o.precision);
  model::initialise(spec, static_cast<uint64_t>(o.seed), params);
  model::save_model(folder.path(), spec, params);
  tokenizer->save(folder.path());
  folder.commit();
  print(fmt::format("{}: {} random parameters, {}\n", o.out, report::format_count(model::parameter_count(spec)), enum_name(o.precision)));
  return 0;
}

}  // namespace

void add_init(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("init", "Make a model of any shape with random weights, for measurements");
  auto options = std::make_shared<Options>();
  auto flags = std::make_shared<OptionFlags>(*app, *options);
  app->footer("Example: coca init --config configs/model-350m.json --precision bf16 --out out/random");
  app->callback([=] {
    *action = [=] {
      flags->finish();
      return run(*options);
    };
  });
}

}  // namespace coca::tools
