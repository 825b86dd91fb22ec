// coca/eval/perplexity_protocol.h - what a published perplexity is a mean of, as data: windows, which of their targets
// count, what leads them, how documents are cut, how means are taken. perplexity.cc interprets it; docs/evaluation.md
// has the table of named protocols.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/eval/protocol.h"

namespace coca::eval {

enum class Average : uint8_t {
  kTokens,   // exp of the mean nll of all scored tokens
  kWindows,  // exp of the mean over windows of each window's mean nll, all documents pooled (YaRN's script)
};

enum class Placement : uint8_t {
  kBegins,  // windows begin at 0, S, 2S, ...
  kEnds,    // the k-th window ends k S tokens in and reaches back as far as its length allows (fairseq)
  kFirst,   // the first window of each text alone
};

enum class Scored : uint8_t {
  kNew,         // targets that no earlier window held
  kAll,         // all of each window, so that a token may count several times
  kSecondHalf,  // those after the middle of the window, W / 2 not included
  kLastStride,  // the last S
};

enum class Reach : uint8_t {
  kInside,  // the window's last token is a target, and predicts nothing
  kNext,    // the window's last token predicts the one after it
};

enum class Tail : uint8_t {
  kShort,         // the last window of a text may be short
  kFull,          // windows that are not full are left out
  kFullWithNext,  // so is a full one with no token behind it
};

// Where the bos token is, if there is one (see Bos). It is never a target.
enum class BosPlace : uint8_t {
  kEveryWindow,  // before each window; it counts in the window's length
  kTextStart,    // once, before each text
  kFirstToken,   // in front of each text and in place of the first token of each window
};

enum class Join : uint8_t {
  kSeparate,  // windows stay within a document
  kJoined,    // all documents, cut as they are, make one text, nothing between them
};

struct Protocol {
  std::vector<int64_t> lengths = {512, 1024, 2048, 4096};  // windows W in tokens, each at least 2
  int64_t stride = 512;                                    // S; 0: the window's tokens of text. Never more than these
  Placement placement = Placement::kBegins;
  Scored scored = Scored::kNew;
  Reach reach = Reach::kInside;
  Tail tail = Tail::kShort;
  Bos bos = Bos::kAuto;
  BosPlace bos_place = BosPlace::kEveryWindow;
  Average average = Average::kTokens;
  Join join = Join::kSeparate;
  int64_t min_tokens = 0;     // shorter documents are passed over
  int64_t max_tokens = 0;     // of a document, the rest is cut off; 0: all
  Cut cut = Cut::kMiddle;     // which of them stay
  int64_t max_documents = 0;  // the most documents used, the first that are long enough; 0: all

  template <class V>
  void visit(V&& v) {
    v("lengths", "", lengths);
    v("stride", "", stride);
    v("placement", "", placement);
    v("scored", "", scored);
    v("reach", "", reach);
    v("tail", "", tail);
    v("bos", "", bos);
    v("bos_place", "", bos_place);
    v("average", "", average);
    v("join", "", join);
    v("min_tokens", "", min_tokens);
    v("max_tokens", "", max_tokens);
    v("cut", "", cut);
    v("max_documents", "", max_documents);
  }
};

// Error naming the first choice that makes no sense.
void check_protocol(const Protocol&);

struct NamedProtocol {
  std::string_view name, source;
  Protocol protocol;
};
const std::vector<NamedProtocol>& named_protocols();  // the first is the default
const Protocol& protocol_of(std::string_view name);   // Error listing the names
std::string protocol_names();                         // "sliding, coca, ..."

}  // namespace coca::eval

COCA_ENUM_NAMES(coca::eval::Average, "average", {coca::eval::Average::kTokens, "tokens"},
                {coca::eval::Average::kWindows, "windows"})
COCA_ENUM_NAMES(coca::eval::Placement, "placement", {coca::eval::Placement::kBegins, "begins"},
                {coca::eval::Placement::kEnds, "ends"}, {coca::eval::Placement::kFirst, "first"})
COCA_ENUM_NAMES(coca::eval::Scored, "scored", {coca::eval::Scored::kNew, "new"}, {coca::eval::Scored::kAll, "all"},
                {coca::eval::Scored::kSecondHalf, "second-half"}, {coca::eval::Scored::kLastStride, "last-stride"})
COCA_ENUM_NAMES(coca::eval::Reach, "reach", {coca::eval::Reach::kInside, "inside"}, {coca::eval::Reach::kNext, "next"})
COCA_ENUM_NAMES(coca::eval::Tail, "tail", {coca::eval::Tail::kShort, "short"}, {coca::eval::Tail::kFull, "full"},
                {coca::eval::Tail::kFullWithNext, "full-with-next"})
COCA_ENUM_NAMES(coca::eval::BosPlace, "bos place", {coca::eval::BosPlace::kEveryWindow, "every-window"},
                {coca::eval::BosPlace::kTextStart, "text-start"}, {coca::eval::BosPlace::kFirstToken, "first-token"})
COCA_ENUM_NAMES(coca::eval::Join, "join", {coca::eval::Join::kSeparate, "separate"},
                {coca::eval::Join::kJoined, "joined"})
