// coca/text/piece_decoder.h - the "decoder" of a tokenizer.json, token by token: the whole text is
// never needed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "coca/text/json_field.h"
#include "coca/text/tokenizer.h"

namespace coca::text {

class PieceDecoder {
 public:
  // null (tokens are joined by spaces), or ByteLevel ByteFallback Fuse Replace Strip Metaspace Sequence. Bytes stay
  // bytes where the package writes U+FFFD for invalid characters.
  explicit PieceDecoder(const JsonField& field);

  // Appends what the token adds to the text.
  void append(std::string_view token, DecodeState& state, std::string& out) const;

 private:
  enum class Kind { kByteLevel, kByteFallback, kReplace, kStripEach, kMetaspace };
  struct Step {
    Kind kind;
    std::string from, to;  // kStripEach: the character; kMetaspace: the replacement
    size_t start = 0, stop = 0;
    bool drops_first = false;  // kMetaspace: no leading blank
  };
  void add(const JsonField& field);
  void add_strip(const JsonField& field);
  void add_metaspace(const JsonField& field);
  static void run(const Step& step, bool first, std::string& piece);

  std::vector<Step> steps_;
  bool joined_ = false;    // behind ByteLevel or Fuse the text is one token
  bool spaces_ = false;    // no decoder at all
  std::string strip_;      // a character dropped at the start of the joined text,
  size_t strip_most_ = 0;  // at most so often
};

}  // namespace coca::text
