// coca/text/tokenizer.h - text to token ids and back: bytes, a sentencepiece model, or a tokenizer.json; and
// sentencepiece training.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace coca::text {

// The state of decoding from token to token: a model may drop the space before the first word.
struct DecodeState {
  bool at_start = true;
  bool in_text = false;  // nothing more is dropped
  size_t stripped = 0;   // characters dropped so far
};

// How to treat text that spells a control token, such as "</s>" or "<|im_end|>".
enum class SpecialTokens {
  kAsText,  // as text: user input cannot become control ids
  kParse,   // as the token: for prompts made by a chat template
};

// The ids that the model expects around a text, from its tokenizer.json (often a leading bos).
struct SequenceFrame {
  std::vector<int32_t> before, after;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string kind() const = 0;    // "byte", "symbols", "sentencepiece", "bpe"
  virtual int32_t vocab_size() const = 0;  // largest id + 1; a tokenizer.json may leave ids without a token
  virtual std::optional<int32_t> bos_id() const = 0;
  virtual std::optional<int32_t> eos_id() const = 0;
  // All ids that end a generated text: eos, and what generation_config.json names beside it.
  virtual std::vector<int32_t> eos_ids() const;
  virtual std::optional<int32_t> token_id(std::string_view token) const = 0;  // of a token as its file writes it
  virtual SequenceFrame frame() const { return {}; }
  virtual bool has_frame() const { return false; }  // whether its files say so; else config.json's bos leads a text

  // Never adds bos or eos. With kAsText (the default) text never becomes a control id. A tokenizer.json's added tokens
  // that are not special, such as "<tool_call>", are found either way. Any bytes can be encoded: a byte-level model
  // keeps them, one of characters reads what is not UTF-8 as U+FFFD.
  std::vector<int32_t> encode(std::string_view utf8) const { return encode(utf8, SpecialTokens::kAsText); }
  virtual std::vector<int32_t> encode(std::string_view utf8, SpecialTokens special) const = 0;
  // bos, eos and other control ids decode to nothing. Byte tokens decode to their bytes.
  virtual std::string decode(std::span<const int32_t> ids) const;
  // Appends what one more id adds to the text. decode() is this, id after id.
  virtual void append_decoded(int32_t id, DecodeState& state, std::string& out) const = 0;
  // Writes into an existing folder what load_tokenizer(folder) reads.
  virtual void save(const std::filesystem::path& dir) const = 0;
  // A short text that differs between tokenizers whose ids mean different things.
  virtual std::string fingerprint() const = 0;

 protected:
  void check_id(int32_t id) const;  // Error unless 0 <= id < vocab_size()
};

// Ids 0..255 are bytes, 256 is <|endoftext|> = bos = eos. Encodes any bytes.
std::unique_ptr<Tokenizer> make_byte_tokenizer();
// Ids 0 .. symbols - 1 without bos and eos, for tasks that are no text (data/task.h). Encodes numbers with blanks
// between them; anything else is an Error.
inline constexpr std::string_view kSymbolsKind = "symbols";
inline constexpr int32_t kMostSymbols = 1 << 20;
std::unique_ptr<Tokenizer> make_symbol_tokenizer(int32_t symbols);
// Ids as in the model file. From a folder, its tokenizer.model and the tokens that the files beside it add or name:
// added_tokens.json, tokenizer_config.json, special_tokens_map.json.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file_or_dir);
// A tokenizer.json of Hugging Face's tokenizers with a BPE model (docs/tokenizers.md). From the folder of a model, bos
// and eos too: tokenizer_config.json, special_tokens_map.json, generation_config.json.
std::unique_ptr<Tokenizer> load_tokenizer_json(const std::filesystem::path& file_or_dir);
// "byte"; a .model or .json file; a folder holding coca_tokenizer.json ({"type": "byte"}, or {"type": "symbols",
// "symbols": 256}), tokenizer.json, tokenizer.model (sentencepiece's or LLaMA 3's), tekken.json, or vocab.json and
// merges.txt: the first of these counts.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& dir_or_file_or_name);

struct SentencePieceTraining {
  std::vector<std::filesystem::path> inputs;  // text files; invalid UTF-8 is replaced
  std::filesystem::path model_prefix;         // writes <model_prefix>.model, which must not exist
  int64_t vocab_size = 4096;
  std::string model_type = "bpe";  // bpe | unigram
  bool byte_fallback = true;       // characters outside the vocabulary become bytes, so that any text round-trips
  bool split_digits = true;        // each digit is a token of its own
  double character_coverage = 0.9995;
  int64_t max_sentences = 2'000'000;  // lines used, spread evenly over the inputs; 0 = all
  // Called before and after the library's trainer, which cannot be stopped and writes nothing.
  std::function<void(int64_t lines)> training_begins;
  std::function<void()> training_ended;
};

// Deterministic. Text is kept as it is: no normalization, no space added in front, runs of spaces and
// newlines kept. Error kInterrupted, with nothing written, on a request to stop before or after the library's trainer.
void train_sentencepiece(const SentencePieceTraining& training);

// Turns ids into text as they arrive, emitting only whole UTF-8 sequences (bytes that can never become one are
// passed through). All pushes and finish() together are decode() of all ids. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  std::string push(int32_t id);
  std::string finish();  // the bytes still held back; then starts again

 private:
  const Tokenizer* tokenizer_;
  DecodeState state_;
  std::string pending_;
};

}  // namespace coca::text
