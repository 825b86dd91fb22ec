// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/passkey_protocol.h"

#include <algorithm>

namespace coca::eval {

using data::PasskeyLength;
using data::PasskeyWording;

void check_protocol(const PasskeyProtocol& p) {
  COCA_CHECK(!p.lengths.empty(), "lengths: none given");
  const int64_t least = p.length_control == PasskeyLength::kCharacters ? 0 : 2;
  for (const int64_t length : p.lengths)
    COCA_CHECK(length >= least, "lengths holds {} ({}); expected at least {}", length, enum_name(p.length_control),
               least);
  if (p.place == PasskeyPlace::kDepths) COCA_CHECK(!p.depths.empty(), "depths: none given");
  for (const double depth : p.depths) COCA_CHECK(depth >= 0 && depth <= 1, "depths holds {}; expected 0 to 1", depth);
  COCA_CHECK(p.trials >= 1, "trials is {}; expected at least 1", p.trials);
  COCA_CHECK(p.keys.least >= 0, "key_least is {}; expected at least 0", p.keys.least);
  COCA_CHECK(p.keys.least <= p.keys.most, "key_most is {}; expected at least key_least, {}", p.keys.most, p.keys.least);
  if (p.rule == PasskeyRule::kExact)
    COCA_CHECK(p.new_tokens == 0,
               "new_tokens is {}; expected 0, as rule exact generates as many tokens as the answer has", p.new_tokens);
  else
    COCA_CHECK(p.new_tokens >= 1, "new_tokens is {}; expected at least 1 with rule {}", p.new_tokens,
               enum_name(p.rule));
}

namespace {

constexpr data::KeyRange kLandmarkKeys{1, 50000};

std::vector<int64_t> doubling(int64_t from, int64_t to) {
  std::vector<int64_t> lengths;
  for (int64_t n = from; n <= to; n *= 2) lengths.push_back(n);
  return lengths;
}

std::vector<int64_t> thousands(int64_t count) {
  std::vector<int64_t> lengths;
  for (int64_t i = 1; i <= count; ++i) lengths.push_back(1000 * i);
  return lengths;
}

// What landmark attention's script and those made from it share.
PasskeyProtocol landmark(std::vector<int64_t> lengths, PasskeyLength control, int64_t trials) {
  return {.lengths = std::move(lengths),
          .length_control = control,
          .place = PasskeyPlace::kRandom,
          .keys = kLandmarkKeys,
          .trials = trials,
          .new_tokens = 10,
          .rule = PasskeyRule::kFirstNumber};
}

}  // namespace

const std::vector<NamedPasskeyProtocol>& named_passkey_protocols() {
  static const std::vector<NamedPasskeyProtocol> table = {
      {"ours", "this project's default", {}},
      {"landmark", "landmark attention, llama/run_test.py",
       landmark({0, 100, 500, 1000, 5000, 8000, 10000, 12000, 14000, 18000, 20000, 25000, 38000},
                PasskeyLength::kCharacters, 50)},
      {"yarn", "YaRN, eval/passkey.py", landmark(doubling(256, 8192), PasskeyLength::kGrown, 20)},
      {"longlora",
       "LongLoRA, passkey_retrivial.py (numpy's randint leaves out its upper end)",
       {.lengths = thousands(32),
        .length_control = PasskeyLength::kCharacters375,
        .place = PasskeyPlace::kRandomInside,
        .keys = {1, 49999},
        .trials = 10}},
      {"pose", "PoSE, src/eval_passkey.py (6134 is its own)",
       landmark({2048, 4096, 6134, 8192, 10240, 12288, 14336, 16384, 20480, 24576, 28672, 32768}, PasskeyLength::kUnits,
                50)},
      {"longrope", "LongRoPE's passkey script; it takes lengths and samples as flags, those here are ours",
       landmark(doubling(4096, 262144), PasskeyLength::kCharacters365, 10)},
      {"lm-infinite",
       "LM-Infinite, data/passkey_retrieval (it takes one length at a time; those here are ours)",
       {.lengths = doubling(2048, 32768),
        .length_control = PasskeyLength::kSentences,
        .wording = PasskeyWording::kLmInfinite,
        .place = PasskeyPlace::kRandomInside,
        .keys = {1, 9999999},
        .trials = 1000,
        .new_tokens = 7,
        .rule = PasskeyRule::kFirstNumber}},
      {"coca",
       "CoCA paper; what a length counts, how the place is drawn and when an answer counts are not stated there",
       {.lengths = doubling(512, 32768),
        .wording = PasskeyWording::kCoca,
        .place = PasskeyPlace::kRandom,
        .trials = 100,
        .new_tokens = 64,
        .rule = PasskeyRule::kContains}},
  };
  return table;
}

std::string passkey_protocol_names() { return names_of(named_passkey_protocols()); }

const PasskeyProtocol& passkey_protocol_of(std::string_view name) {
  return entry_of(named_passkey_protocols(), "protocol", name).protocol;
}

bool counts(PasskeyRule rule, std::string_view generated, int64_t key) {
  constexpr std::string_view kDigits = "0123456789";
  if (rule == PasskeyRule::kContains) return generated.find(std::to_string(key)) != std::string_view::npos;
  const size_t begin = generated.find_first_of(kDigits);
  if (begin == std::string_view::npos) return false;
  std::string_view number = generated.substr(begin, generated.find_first_not_of(kDigits, begin) - begin);
  number.remove_prefix(std::min(number.find_first_not_of('0'), number.size() - 1));  // 007 is 7
  return number == std::to_string(key);
}

}  // namespace coca::eval
