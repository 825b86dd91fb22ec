// coca/eval/passkey_protocol.h - the rules of a published passkey accuracy, as data: wording, meaning of a length,
// place and range of the key, how much is generated, and when an answer counts. passkey.cc interprets them;
// docs/evaluation.md has the table of named protocols.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/data/passkey.h"
#include "coca/eval/protocol.h"

namespace coca::eval {

enum class PasskeyPlace : uint8_t {
  kDepths,        // at each of the depths
  kRandom,        // the garbage before the key is drawn from 0 to all, in characters or units
  kRandomInside,  // the same, but never all of it (LM-Infinite)
};

enum class PasskeyRule : uint8_t {
  kExact,        // the generated tokens, as many as the answer has, are those of the answer
  kFirstNumber,  // the first digits in the generated text are the key, as a number
  kContains,     // the generated text contains the key's digits
};

struct PasskeyProtocol {
  std::vector<int64_t> lengths = {512, 1024, 2048, 4096};
  data::PasskeyLength length_control = data::PasskeyLength::kTokens;
  data::PasskeyWording wording = data::PasskeyWording::kLandmark;
  PasskeyPlace place = PasskeyPlace::kDepths;
  std::vector<double> depths = {0.0, 0.25, 0.5, 0.75, 1.0};  // share of the garbage before the key; kDepths only
  data::KeyRange keys;
  int64_t trials = 20;     // per length and depth; kRandom: per length
  int64_t new_tokens = 0;  // generated; 0 with kExact: as many as the answer has
  PasskeyRule rule = PasskeyRule::kExact;
  Bos bos = Bos::kAuto;

  template <class V>
  void visit(V&& v) {
    v("lengths", "", lengths);
    v("length_control", "", length_control);
    v("wording", "", wording);
    v("place", "", place);
    v("depths", "", depths);
    v("key_least", "", keys.least);
    v("key_most", "", keys.most);
    v("trials", "", trials);
    v("new_tokens", "", new_tokens);
    v("rule", "", rule);
    v("bos", "", bos);
  }
};

// Error naming the first invalid choice.
void check_protocol(const PasskeyProtocol&);

struct NamedPasskeyProtocol {
  std::string_view name, source;
  PasskeyProtocol protocol;
};
const std::vector<NamedPasskeyProtocol>& named_passkey_protocols();  // the first is the default
const PasskeyProtocol& passkey_protocol_of(std::string_view name);   // Error listing the names
std::string passkey_protocol_names();                                // "ours, landmark, ..."

// Whether the generated text counts as right with kFirstNumber or kContains.
bool counts(PasskeyRule, std::string_view generated, int64_t key);

}  // namespace coca::eval

COCA_ENUM_NAMES(coca::eval::PasskeyPlace, "place", {coca::eval::PasskeyPlace::kDepths, "depths"},
                {coca::eval::PasskeyPlace::kRandom, "random"},
                {coca::eval::PasskeyPlace::kRandomInside, "random-inside"})
COCA_ENUM_NAMES(coca::eval::PasskeyRule, "rule", {coca::eval::PasskeyRule::kExact, "exact"},
                {coca::eval::PasskeyRule::kFirstNumber, "first-number"},
                {coca::eval::PasskeyRule::kContains, "contains"})
