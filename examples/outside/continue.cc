// Loads a model folder, measures the perplexity of a text, and continues it with the most likely tokens.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "coca/base/version.h"
#include "coca/eval/perplexity.h"
#include "coca/formats/model_folder.h"
#include "coca/infer/generate.h"
#include "coca/text/tokenizer.h"

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::fprintf(stderr, "usage: continue MODEL TEXT\n");
    return 2;
  }
  const auto tokenizer = coca::text::load_tokenizer(argv[1]);
  const coca::model::Model model = coca::formats::load_model(argv[1]);
  const std::vector<std::vector<int32_t>> documents = {tokenizer->encode(argv[2])};

  coca::Context cx;
  coca::eval::PerplexityOptions options;
  options.protocol.lengths = {32};  // windows of 32 tokens that do not overlap
  options.protocol.stride = 32;
  const auto result = coca::eval::perplexity(cx, model.spec, model.params->weights(), documents, options).front();
  std::printf("coca %s\nperplexity of %lld tokens: %.6f\n", std::string(coca::version()).c_str(),
              static_cast<long long>(result.scored_tokens), result.perplexity);

  coca::infer::BatchDecoder decoder(model.spec, model.params->weights());
  coca::infer::Request request;
  request.prompt = documents.front();
  request.max_new_tokens = 8;
  request.sampling.temperature = 0;
  std::printf("next ids:");
  for (const int32_t id : coca::infer::generate(cx, decoder, request).ids) std::printf(" %d", static_cast<int>(id));
  std::printf("\n");
  return 0;
} catch (const std::exception& error) {  // coca::Error names the file and the problem
  std::fprintf(stderr, "continue: %s\n", error.what());
  return 1;
}
