// coca/data/ruler.h - prompts of RULER's synthetic tasks (Hsieh et al. 2024): needles, variable tracking, frequent
// words. Wording, counts and answer prefixes are RULER's; words are made up (words.h). Further tasks of the same kind:
// facts hidden in a text, graphs, requests in a conversation. See docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/base/rng.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

enum class RulerTask : uint8_t {
  kNiahSingle1,     // one needle (word: number) in noise
  kNiahSingle2,     // the same in a text
  kNiahSingle3,     // word: uuid, in a text
  kNiahMultikey1,   // four keys in a text, one asked for
  kNiahMultikey2,   // one needle among needles with other keys only
  kNiahMultikey3,   // the same, uuid: uuid
  kNiahMultivalue,  // one key with four values, in a text
  kNiahMultiquery,  // four keys, all asked for, in a text
  kVariableTracking,
  kCommonWords,
  kFrequentWords,
  // Not RULER's, and written after others' tasks:
  kFactOne,          // where a person went last, in a text (BABILong's qa1)
  kFactTwo,          // where a thing is, carried by a person, in a text (qa2)
  kGraphParents,     // the nodes with an edge to a node (Graphwalks)
  kGraphSteps,       // the nodes two steps from a node
  kRepeatedRequest,  // the second of three answers to the same request (MRCR)
};

struct RulerPrompt {
  std::string text;                  // ends in the answer prefix
  std::vector<std::string> answers;  // all of them should occur in the continuation
};

int64_t ruler_new_tokens(RulerTask);  // to generate, 15 to 128

// The largest prompt of at most `tokens` ids. `haystack` is the text in which the tasks "in a text" hide needles,
// between its sentences; if it is empty, they are hidden in noise. Error naming the smallest length if no prompt fits.
RulerPrompt make_ruler_prompt(RulerTask, int64_t tokens, const text::Tokenizer&, Rng&,
                              const std::string& haystack = {});

}  // namespace coca::data

COCA_ENUM_NAMES(coca::data::RulerTask, "task", {coca::data::RulerTask::kNiahSingle1, "niah_single_1"},
                {coca::data::RulerTask::kNiahSingle2, "niah_single_2"},
                {coca::data::RulerTask::kNiahSingle3, "niah_single_3"},
                {coca::data::RulerTask::kNiahMultikey1, "niah_multikey_1"},
                {coca::data::RulerTask::kNiahMultikey2, "niah_multikey_2"},
                {coca::data::RulerTask::kNiahMultikey3, "niah_multikey_3"},
                {coca::data::RulerTask::kNiahMultivalue, "niah_multivalue"},
                {coca::data::RulerTask::kNiahMultiquery, "niah_multiquery"},
                {coca::data::RulerTask::kVariableTracking, "vt"}, {coca::data::RulerTask::kCommonWords, "cwe"},
                {coca::data::RulerTask::kFrequentWords, "fwe"}, {coca::data::RulerTask::kFactOne, "fact_1"},
                {coca::data::RulerTask::kFactTwo, "fact_2"}, {coca::data::RulerTask::kGraphParents, "graph_parents"},
                {coca::data::RulerTask::kGraphSteps, "graph_steps"},
                {coca::data::RulerTask::kRepeatedRequest, "repeated_request"})
