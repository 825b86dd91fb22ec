// coca merge: merges an adapter into a model.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/formats/adapter_file.h"
#include "coca/formats/model_folder.h"
#include "coca/io/fs.h"
#include "coca/report/table.h"
#include "coca/text/chat_choice.h"
#include "companions.h"

namespace coca::tools {

namespace {

struct Options {
  std::string model, adapter, out;
  model::Precision precision = model::Precision::kF32;

  template <class V>
  void visit(V&& v) {
    v.group("Model");
    v("model", "model folder", model);
    v("adapter", "adapter folder in PEFT's layout", adapter);
    v.group("Output");
    v("out", "model folder to write; must not exist", out);
    v("precision", "of matrices and embeddings in the file; sums are formed in fp32", precision);
  }
};

int merge(const Options& o) {
  COCA_CHECK(!o.model.empty(), "--model: no model folder given");
  COCA_CHECK(!o.adapter.empty(), "--adapter: no adapter folder given");
  COCA_CHECK(!o.out.empty(), "--out: no folder to write given");
  check_is_no_file("--out", o.out);
  check_outside("--out", o.out, "--model", o.model);
  check_outside("--out", o.out, "--adapter", o.adapter);
  formats::ModelFolder source(o.model);
  // Reports mistakes before the weights are read.
  const auto adapter = formats::load_adapter(o.adapter, source.spec(), source.fingerprint());
  check_companions(o.model);
  const auto chat = text::load_chat_template(o.adapter);  // the adapter may have learned another than the model's
  io::AtomicDir folder(o.out, io::AtomicDir::Existing::kRefuse);
  model::Model merged = formats::load_model(source);
  model::merge_adapter(*adapter, *merged.params);
  if (o.precision != model::Precision::kF32) {
    auto rounded = std::make_unique<model::ParamStore>(merged.spec, o.precision);
    Context cx(nullptr);
    model::copy_params(cx, *merged.params, *rounded);
    merged.params = std::move(rounded);
  }
  formats::save_model(folder.path(), merged.spec, *merged.params);
  if (chat) save_chat_template(*chat, folder.path());
  save_chat_variables(text::saved_chat_variables("auto", o.model, o.adapter), o.model, folder.path());
  copy_companions(o.model, folder.path());
  folder.commit();
  print_prose(fmt::format("{}: {} with {} changed by {}\n", o.out, o.model,
                          counted(adapter->targets().size(), "matrix", "matrices"), o.adapter));
  return 0;
}

int run(const Options& o) {
  return all_or_nothing([&] { return merge(o); });
}

}  // namespace

void add_merge(CLI::App& root, Action* action) {
  add_command<Options>(root, action, "merge", "Merge a LoRA adapter into a model",
                       "Example: coca merge --model out/model --adapter out/tuned/adapter --out out/merged", run);
}

}  // namespace coca::tools
