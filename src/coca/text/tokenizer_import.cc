// coca/text/tokenizer_import.cc - see tokenizer_import.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/tokenizer_import.h"

#include <algorithm>
#include <charconv>
#include <unordered_map>
#include <vector>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/text/bpe.h"
#include "coca/text/json_field.h"
#include "coca/text/scanner.h"
#include "coca/text/tokens_beside.h"
#include "coca/text/unicode.h"

namespace coca::text {

namespace {

using nlohmann::json;

constexpr size_t kMostBytes = 512;  // of a token: cutting it into its parts takes the square
constexpr int32_t kLlama3Ranks = 128000, kLlama3Special = 256;

int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// Nothing where the text is no base64 of at least one byte.
std::string decode_base64(std::string_view text) {
  std::string bytes;
  while (text.ends_with('=')) text.remove_suffix(1);
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const int value = base64_value(text[i]);
    if (value < 0) return {};
    bits = bits << 6 | static_cast<uint32_t>(value);
    if (i % 4 != 0) bytes += static_cast<char>(bits >> (6 - 2 * (i % 4)) & 0xff);
  }
  return bytes;
}

// For an error: in quotes, on one line, and not too much of it.
std::string quoted(std::string_view text) {
  constexpr size_t kMost = 60;
  return json(text.substr(0, kMost)).dump(-1, ' ', false, json::error_handler_t::replace) +
         (text.size() > kMost ? "..." : "");
}

// Tokens of bytes by rank, as tiktoken has them: of all neighbours whose join is a token, the one of lowest rank is
// joined.
class Ranks {
 public:
  explicit Ranks(std::string origin) : origin_(std::move(origin)) {}

  // where: the token's place in the file, for errors.
  void add(std::string_view base64, int64_t rank, const std::string& where) {
    COCA_CHECK_AS(kBadFile, rank == std::ssize(tokens_), "{}: rank {} after {}; expected ranks in order from 0", where,
                  rank, counted(tokens_.size(), "token"));
    std::string bytes = decode_base64(base64);
    COCA_CHECK_AS(kBadFile, !bytes.empty(), "{}: the token {} is not base64", where, quoted(base64));
    COCA_CHECK_AS(kBadFile, bytes.size() <= kMostBytes, "{}: the token of rank {} has {}; expected at most {}", where,
                  rank, counted(bytes.size(), "byte"), kMostBytes);
    const auto [at, fresh] = ranks_.emplace(std::move(bytes), static_cast<int32_t>(rank));
    COCA_CHECK_AS(kBadFile, fresh, "{}: ranks {} and {} are the same token", where, at->second, rank);
    tokens_.push_back(&at->first);
  }
  size_t size() const { return tokens_.size(); }

  // "vocab" and "merges" of a BPE model whose ids begin at first_id. A token's last merge is what its bytes have become
  // by the merges before it; where those leave more than two parts it is reached as a whole word only (ignore_merges).
  std::string model_text(int32_t first_id) const {
    for (int byte = 0; byte < 256; ++byte)
      COCA_CHECK_AS(kBadFile, ranks_.contains(std::string(1, static_cast<char>(byte))), "{}: byte {} has no token",
                    origin_, byte);
    std::string vocab, merges;
    for (size_t rank = 0; rank < tokens_.size(); ++rank) {
      const std::string& token = *tokens_[rank];
      vocab += fmt::format("{}{}:{}", rank == 0 ? "" : ",", json(letters(token)).dump(),
                           first_id + static_cast<int32_t>(rank));
      if (token.size() < 2) continue;
      const std::vector<size_t> ends = parts(token, static_cast<int32_t>(rank));
      if (ends.size() != 2) continue;
      merges += merges.empty() ? "" : ",";
      merges += json(letters(token.substr(0, ends[0])) + " " + letters(token.substr(ends[0]))).dump();
    }
    return "\"vocab\":{" + vocab + "},\"merges\":[" + merges + "]";
  }

 private:
  static std::string letters(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) append_utf8(byte_letter(static_cast<uint8_t>(c)), out);
    return out;
  }

  // Where the parts end that the merges of lower ranks make of a token.
  std::vector<size_t> parts(const std::string& token, int32_t below) const {
    std::vector<size_t> ends(token.size());
    for (size_t i = 0; i < ends.size(); ++i) ends[i] = i + 1;
    const auto rank_at = [&](size_t i) {  // of parts i and i + 1 together
      const size_t begin = i == 0 ? 0 : ends[i - 1];
      const auto found = ranks_.find(token.substr(begin, ends[i + 1] - begin));
      return found != ranks_.end() && found->second < below ? found->second : INT32_MAX;
    };
    std::vector<int32_t> joined(ends.size() - 1);
    for (size_t i = 0; i < joined.size(); ++i) joined[i] = rank_at(i);
    while (!joined.empty()) {
      const auto best = std::ranges::min_element(joined);
      if (*best == INT32_MAX) break;
      const auto at = static_cast<size_t>(best - joined.begin());
      ends.erase(ends.begin() + static_cast<std::ptrdiff_t>(at));
      joined.erase(best);
      if (at > 0) joined[at - 1] = rank_at(at - 1);
      if (at < joined.size()) joined[at] = rank_at(at);
    }
    return ends;
  }

  std::string origin_;
  std::unordered_map<std::string, int32_t> ranks_;
  std::vector<const std::string*> tokens_;
};

json special_token(int64_t id, std::string_view content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

// Words of a pattern, then letters for bytes.
json split_words(std::string_view pattern, bool prefix_space) {
  return {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", false}}}}};
}

json byte_level(bool prefix_space) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", true}};
}

// A bos before each text.
json leading_bos(std::string_view bos, int64_t id) {
  const json piece = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const auto text = [](const char* name, int type) { return json{{"Sequence", {{"id", name}, {"type_id", type}}}}; };
  return {{"type", "TemplateProcessing"},
          {"single", {piece, text("A", 0)}},
          {"pair", {piece, text("A", 0), {{"SpecialToken", {{"id", bos}, {"type_id", 1}}}}, text("B", 1)}},
          {"special_tokens", {{std::string(bos), {{"id", bos}, {"ids", {id}}, {"tokens", {bos}}}}}}};
}

// `words`: the rest of the file but for its model.
std::string file_text(json words, std::string_view model, bool ignore_merges) {
  words["version"] = "1.0";
  words["truncation"] = words["padding"] = nullptr;
  words["decoder"] = byte_level(true);
  if (!words.contains("normalizer")) words["normalizer"] = nullptr;
  if (!words.contains("post_processor")) words["post_processor"] = byte_level(true);
  std::string text = words.dump();
  text.pop_back();
  return text +
         R"(,"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,)"
         R"("end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":)" +
         (ignore_merges ? "true," : "false,") + std::string(model) + "}}";
}

std::map<std::string, std::string> config_beside(std::string_view bos, std::string_view eos) {
  const json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"bos_token", bos}, {"eos_token", eos}};
  return {{"tokenizer_config.json", config.dump(2) + "\n"}};
}

// Of LLaMA 3.1 and later; 3.0 has reserved names for some.
std::vector<std::string> llama3_special() {
  std::vector<std::string> names = {"<|begin_of_text|>",
                                    "<|end_of_text|>",
                                    "<|reserved_special_token_0|>",
                                    "<|reserved_special_token_1|>",
                                    "<|finetune_right_pad_id|>",
                                    "<|reserved_special_token_2|>",
                                    "<|start_header_id|>",
                                    "<|end_header_id|>",
                                    "<|eom_id|>",
                                    "<|eot_id|>",
                                    "<|python_tag|>"};
  for (int i = 3; std::ssize(names) < kLlama3Special; ++i)
    names.push_back(fmt::format("<|reserved_special_token_{}|>", i));
  return names;
}

// The words of tokenizers of vocab.json and merges.txt by class.
json words_of_class(std::string_view name, bool prefix_space) {
  json words;
  if (name.starts_with("GPT2") || name.starts_with("GPTNeoX") || name == "gpt2" || name == "gpt_neox") {
    words["pre_tokenizer"] = byte_level(prefix_space);
  } else if (name.starts_with("Qwen2") || name == "qwen2" || name == "qwen3") {
    words["pre_tokenizer"] = split_words(kQwen2Pattern, prefix_space);
    words["normalizer"] = {{"type", "NFC"}};
  }
  return words;
}

// What tokenizer_config.json or config.json says of how a text is cut, and where.
std::pair<std::string, std::string> class_of(const std::filesystem::path& dir, const json& config) {
  if (const JsonField field(config, (dir / "tokenizer_config.json").string()); field.has("tokenizer_class"))
    return {field.at("tokenizer_class").string(), "tokenizer_class of " + (dir / "tokenizer_config.json").string()};
  const std::filesystem::path model = dir / "config.json";
  if (!io::exists(model)) return {"", "no tokenizer_class in " + (dir / "tokenizer_config.json").string()};
  const json whole = io::read_json(model);
  return {JsonField(whole, model.string()).text("model_type", ""), "model_type of " + model.string()};
}

// Lines "a b" after a first line with the version.
std::string merges_text(std::string_view content, const std::string& origin) {
  std::string out;
  if (content.starts_with("\xef\xbb\xbf")) content.remove_prefix(3);
  for (size_t at = 0, number = 1; at < content.size(); ++number) {
    const size_t end = std::min(content.find('\n', at), content.size());
    std::string_view line = content.substr(at, end - at);
    at = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const size_t space = line.find(' ');
    COCA_CHECK_AS(kBadFile,
                  space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
                      line.find(' ', space + 1) == std::string_view::npos,
                  "{}:{}: expected two tokens with a blank between them", origin, number);
    out += out.empty() ? "" : ",";
    out += json({line.substr(0, space), line.substr(space + 1)}).dump(-1, ' ', false, json::error_handler_t::replace);
  }
  return out;
}

}  // namespace

bool is_tiktoken(std::string_view content) {
  const std::string_view line = content.substr(0, std::min(content.find('\n'), size_t{1024}));
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space % 4 != 0 || decode_base64(line.substr(0, space)).empty()) return false;
  const std::string_view rank = line.substr(space + 1, line.find('\r', space + 1) - space - 1);
  return !rank.empty() && rank.find_first_not_of("0123456789") == std::string_view::npos;
}

ImportedTokenizer import_tiktoken(std::string_view content, const std::string& origin) {
  Ranks ranks(origin);
  for (size_t at = 0, number = 1; at < content.size(); ++number) {
    const size_t end = std::min(content.find('\n', at), content.size());
    std::string_view line = content.substr(at, end - at);
    at = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::string where = fmt::format("{}:{}", origin, number);
    const size_t space = std::min(line.find(' '), line.size());
    int64_t rank = -1;
    const char* const line_end = line.data() + line.size();
    const auto [stop, error] = std::from_chars(line.data() + std::min(space + 1, line.size()), line_end, rank);
    COCA_CHECK_AS(kBadFile, space > 0 && error == std::errc() && stop == line_end && rank >= 0,
                  "{}: {}; expected a token in base64, a blank and its rank", where, quoted(line));
    ranks.add(line.substr(0, space), rank, where);
    COCA_CHECK_AS(kBadFile, ranks.size() <= kLlama3Ranks,
                  "{}: a tiktoken vocabulary of more than the {} ranks of LLaMA 3; the pattern and special tokens of "
                  "other models are not in "
                  "the file: use the tokenizer.json of the model's Hugging Face folder",
                  origin, kLlama3Ranks);
  }
  const auto first = static_cast<int64_t>(ranks.size());
  const std::vector<std::string> special = llama3_special();
  json words;
  for (size_t i = 0; i < special.size(); ++i)
    words["added_tokens"].push_back(special_token(first + static_cast<int64_t>(i), special[i]));
  words["pre_tokenizer"] = split_words(kLlama3Pattern, false);
  words["post_processor"] = {{"type", "Sequence"}, {"processors", {byte_level(true), leading_bos(special[0], first)}}};
  return {file_text(std::move(words), ranks.model_text(0), true), config_beside(special[0], special[1])};
}

ImportedTokenizer import_tekken(std::string_view content, const std::string& origin) {
  static const char* const kNames[] = {"<unk>",
                                       "<s>",
                                       "</s>",
                                       "[INST]",
                                       "[/INST]",
                                       "[AVAILABLE_TOOLS]",
                                       "[/AVAILABLE_TOOLS]",
                                       "[TOOL_RESULTS]",
                                       "[/TOOL_RESULTS]",
                                       "[TOOL_CALLS]",
                                       "[IMG]",
                                       "<pad>",
                                       "[IMG_BREAK]",
                                       "[IMG_END]",
                                       "[PREFIX]",
                                       "[MIDDLE]",
                                       "[SUFFIX]",
                                       "[SYSTEM_PROMPT]",
                                       "[/SYSTEM_PROMPT]",
                                       "[TOOL_CONTENT]"};
  const json file = io::parse_json(content, origin);
  const JsonField root(file, origin), config = root.at("config"), vocab = root.at("vocab");
  const JsonField count = config.at("default_num_special_tokens"), whole = config.at("default_vocab_size");
  if (count.integer() < 3 || count.integer() > 100'000) count.refuse("3 to 100000");
  if (whole.integer() < count.integer() || whole.integer() - count.integer() > static_cast<int64_t>(vocab.size()))
    whole.refuse(
        fmt::format("{} and at most the {} of vocab", counted(count.integer(), "special token"), vocab.size()));
  std::vector<std::string> special(static_cast<size_t>(count.integer()));
  if (root.has("special_tokens")) {
    const JsonField list = root.at("special_tokens");
    for (size_t i = 0; i < list.size(); ++i) {
      const int64_t rank = list.item(i).at("rank").integer();
      if (rank < 0 || rank >= count.integer())
        list.item(i).at("rank").refuse(fmt::format("0 to {}", count.integer() - 1));
      special[static_cast<size_t>(rank)] = list.item(i).at("token_str").string();
    }
  } else {
    for (size_t i = 0; i < std::size(kNames) && i < special.size(); ++i) special[i] = kNames[i];
  }
  json words;
  for (size_t i = 0; i < special.size(); ++i) {
    if (special[i].empty()) special[i] = fmt::format("<SPECIAL_{}>", i);
    words["added_tokens"].push_back(special_token(static_cast<int64_t>(i), special[i]));
  }
  Ranks ranks(origin);
  for (int64_t i = 0; i < whole.integer() - count.integer(); ++i) {
    const JsonField token = vocab.item(static_cast<size_t>(i));
    ranks.add(token.at("token_bytes").string(), token.at("rank").integer(), fmt::format("{}: vocab[{}]", origin, i));
  }
  words["pre_tokenizer"] = split_words(config.at("pattern").string(), false);
  words["post_processor"] = {{"type", "Sequence"}, {"processors", {byte_level(true), leading_bos(special[1], 1)}}};
  return {file_text(std::move(words), ranks.model_text(static_cast<int32_t>(count.integer())), true),
          config_beside(special[1], special[2])};
}

ImportedTokenizer import_vocab_and_merges(const std::filesystem::path& dir,
                                          const std::map<std::string, std::string>& beside) {
  const std::string vocab_file = (dir / "vocab.json").string(), config_file = (dir / "tokenizer_config.json").string();
  const json vocab = io::read_json(vocab_file);
  const auto config_text = beside.find("tokenizer_config.json");
  const json config = config_text == beside.end() ? json::object() : io::parse_json(config_text->second, config_file);
  const auto [name, where] = class_of(dir, config);
  json words = words_of_class(name, JsonField(config, config_file).flag("add_prefix_space", false));
  COCA_CHECK_AS(kBadFile, !words.is_null(),
                "{}: vocab.json and merges.txt do not say how a text is cut, and \"{}\" ({}) is not known here; "
                "expected GPT2Tokenizer, "
                "GPTNeoXTokenizer or Qwen2Tokenizer. A tokenizer.json says it: save the tokenizer with transformers",
                dir.string(), name, where);
  const JsonField entries(vocab, vocab_file);
  if (!vocab.is_object()) entries.refuse("an object of tokens and ids");
  std::map<int32_t, std::string_view> by_id;
  for (const auto& [token, value] : vocab.items()) {
    const JsonField entry = entries.at(token);
    if (entry.integer() < 0 || entry.integer() > INT32_MAX) entry.refuse(fmt::format("0 to {}", INT32_MAX));
    by_id.emplace(static_cast<int32_t>(entry.integer()), token);
  }
  const PieceTable table{.size = by_id.empty() ? 0 : by_id.rbegin()->first + 1,
                         .text =
                             [&](int32_t id) {
                               const auto at = by_id.find(id);
                               return at == by_id.end() ? std::string_view() : at->second;
                             },
                         .find =
                             [&](std::string_view token) {
                               const auto at = vocab.find(token);
                               return at == vocab.end() ? std::nullopt : std::optional<int32_t>(at->get<int32_t>());
                             },
                         .replaceable = [&](int32_t id) { return !by_id.contains(id); },
                         .control = [](int32_t) { return false; }};
  const TokensBeside tokens = read_tokens_beside(beside, vocab_file, table);
  words["added_tokens"] = json::array();
  for (const AddedToken& token : tokens.tokens) {
    json entry = special_token(token.id, token.content);
    entry.update({{"special", token.special},
                  {"lstrip", token.lstrip},
                  {"rstrip", token.rstrip},
                  {"single_word", token.single_word},
                  {"normalized", token.normalized}});
    words["added_tokens"].push_back(std::move(entry));
  }
  const std::string merges_file = (dir / "merges.txt").string();
  const std::string model =
      "\"vocab\":" + vocab.dump() + ",\"merges\":[" + merges_text(io::read_file(merges_file), merges_file) + "]";
  return {file_text(std::move(words), model, false), {}};
}

}  // namespace coca::text
