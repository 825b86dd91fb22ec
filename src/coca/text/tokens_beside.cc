// coca/text/tokens_beside.cc - see tokens_beside.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/tokens_beside.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include "coca/base/error.h"
#include "coca/base/log.h"
#include "coca/io/json_file.h"

namespace coca::text {

namespace {

constexpr const char* kAdded = "added_tokens.json";
constexpr const char* kConfig = "tokenizer_config.json";
constexpr const char* kMap = "special_tokens_map.json";
// In the order in which transformers gives ids to those that have none.
constexpr const char* kNamed[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

class Reader {
 public:
  Reader(const std::map<std::string, std::string>& files, const std::string& model_file, const PieceTable& pieces)
      : pieces_(pieces), dir_(std::filesystem::path(model_file).parent_path()), next_id_(pieces.size) {
    for (const char* name : {kAdded, kConfig, kMap})
      if (const auto file = files.find(name); file != files.end())
        json_[name] = io::parse_json(file->second, path(name));
  }

  TokensBeside read(const std::map<std::string, std::string>& files) {
    const bool decoder = has(kConfig) && field(kConfig).has("added_tokens_decoder");
    if (decoder) read_decoder(field(kConfig).at("added_tokens_decoder"));
    if (has(kAdded)) read_added(field(kAdded));
    // With a decoder transformers does not open the map; without one the map's names come before the config's.
    const std::vector<const char*> order = decoder ? std::vector{kConfig, kMap} : std::vector{kMap, kConfig};
    read_named(order);
    TokensBeside out;
    if (has(kConfig)) read_settings(field(kConfig), out);
    for (auto& [id, token] : by_id_) out.tokens.push_back(std::move(token));
    out.special = read_special_ids(files, (dir_ / "tokenizer.model").string(), order, [&](std::string_view name) {
      const auto added = ids_.find(name);
      return added != ids_.end() ? std::optional(added->second) : pieces_.find(name);
    });
    check_ends(out.special);
    return out;
  }

 private:
  std::string path(const char* name) const { return (dir_ / name).string(); }
  bool has(const char* file) const { return json_.contains(file); }
  JsonField field(const char* file) const { return {json_.at(file), path(file)}; }

  // {"32000": {"content": ..., "special": ...}, ...}
  void read_decoder(const JsonField& decoder) {
    if (!decoder.value().is_object()) decoder.refuse("an object of ids and tokens");
    for (const auto& [key, value] : decoder.value().items()) {
      const JsonField entry = decoder.at(key);
      int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0) entry.refuse("an id from 0 as its name");
      add(read_token(entry, id), entry);
    }
  }

  // {"<token>": 32000, ...}: special are those that are named so.
  void read_added(const JsonField& added) {
    if (!added.value().is_object()) added.refuse("an object of tokens and ids");
    const std::set<std::string> named = named_in({kMap, kConfig});
    for (const auto& [content, value] : added.value().items()) {
      const JsonField entry = added.at(content);
      if (entry.integer() < 0 || entry.integer() > INT32_MAX) entry.refuse(fmt::format("0 to {}", INT32_MAX));
      const auto id = static_cast<int32_t>(entry.integer());
      if (const auto known = ids_.find(content); known != ids_.end()) {
        if (known->second != id) entry.refuse(fmt::format("{}, as {} says", known->second, path(kConfig)));
        continue;
      }
      const bool special = named.contains(content);
      add({.id = id, .content = content, .normalized = !special, .special = special}, entry);
    }
  }

  // Tokens that have a role are special. Those without an id get the next ones.
  void read_named(const std::vector<const char*>& order) {
    std::vector<AddedToken> missing;
    std::set<std::string> waiting;
    bool last_pads = false;
    for_each_named(order, [&](const JsonField& entry, bool pads) {
      AddedToken token = read_token(entry, -1);
      token.special = true;
      if (token.content.empty() || ids_.contains(token.content)) return;
      const auto piece = pieces_.find(token.content);
      token.id = piece.value_or(-1);
      if (piece) return add(std::move(token), entry);
      if (!waiting.insert(token.content).second) return;
      missing.push_back(std::move(token));
      last_pads = pads;
    });
    // Nothing here is padded: a padding token that only the map knows would be an id more than the model has.
    if (last_pads) missing.pop_back();
    for (AddedToken& token : missing) {
      token.id = next_id_;
      const JsonField file = field(has(order[0]) ? order[0] : order[1]);
      log_once(LogLevel::kInfo, fmt::format("{}: token \"{}\" has no id in any file and gets the next one, {}",
                                            file.where(), token.content, token.id));
      add(std::move(token), file);
    }
  }

  std::set<std::string> named_in(const std::vector<const char*>& order) const {
    std::set<std::string> named;
    for_each_named(order, [&](const JsonField& entry, bool) { named.insert(read_token(entry, -1).content); });
    return named;
  }

  template <typename Visit>
  void for_each_named(const std::vector<const char*>& order, const Visit& visit) const {
    for (const char* name : kNamed)
      for (const char* file : order)
        if (has(file) && field(file).has(name)) {
          visit(field(file).at(name), std::string_view(name) == "pad_token");
          break;
        }
    for (const char* name : {"additional_special_tokens", "extra_special_tokens"})
      for (const char* file : order) {
        if (!has(file) || !field(file).has(name)) continue;
        const JsonField list = field(file).at(name);
        if (list.value().is_object()) {
          for (const auto& [key, value] : list.value().items()) visit(list.at(key), false);
        } else {
          for (size_t i = 0; i < list.size(); ++i) visit(list.item(i), false);
        }
      }
  }

  // A string, or an object of it and its flags.
  static AddedToken read_token(const JsonField& entry, int32_t id) {
    AddedToken token{.id = id};
    if (!entry.value().is_object()) {
      token.content = entry.string();
      token.normalized = false;
      return token;
    }
    entry.only({"content", "single_word", "lstrip", "rstrip", "normalized", "special", "__type"});
    token.content = entry.at("content").string();
    token.special = entry.flag("special", false);
    token.normalized = entry.flag("normalized", !token.special);
    token.single_word = entry.flag("single_word", false);
    token.lstrip = entry.flag("lstrip", false);
    token.rstrip = entry.flag("rstrip", false);
    return token;
  }

  void add(AddedToken token, const JsonField& entry) {
    const auto where = [&] {
      return fmt::format("{}: token \"{}\" has id {}", entry.where(), token.content, token.id);
    };
    if (token.content.empty()) {  // as in a tokenizer.json
      log_once(LogLevel::kWarning, fmt::format("{}: a token without text, id {}, is ignored", entry.where(), token.id));
      return;
    }
    const int64_t most = 16 * (int64_t{pieces_.size} + std::ssize(by_id_)) + 1024;
    COCA_CHECK_AS(kBadFile, token.id < most, "{}; expected less than {} with so few tokens", where(), most);
    const std::optional<int32_t> piece = pieces_.find(token.content);
    COCA_CHECK_AS(kBadFile, !piece || *piece == token.id, "{}, in tokenizer.model {}", where(), piece.value_or(-1));
    const bool own = token.id >= pieces_.size || pieces_.text(token.id) == token.content ||
                     pieces_.replaceable(token.id) ||
                     (pieces_.control(token.id) &&
                      (named_in({kMap}).contains(token.content) || named_in({kConfig}).contains(token.content)));
    COCA_CHECK_AS(kBadFile, own, "{}, which is \"{}\" in tokenizer.model", where(), pieces_.text(token.id));
    const auto [id_of, new_name] = ids_.emplace(token.content, token.id);
    COCA_CHECK_AS(kBadFile, new_name, "{}, and {} as well", where(), id_of->second);
    const auto other = by_id_.find(token.id);
    COCA_CHECK_AS(kBadFile, other == by_id_.end(), "{}, as \"{}\" has", where(), other->second.content);
    token.spelling = token.content;
    next_id_ = std::max(next_id_, token.id + 1);
    by_id_.emplace(token.id, std::move(token));
  }

  static void read_settings(const JsonField& config, TokensBeside& out) {
    // transformers 5: LLaMA's class prefixes the first part unless "legacy" says otherwise, others every part.
    const bool llama = config.text("tokenizer_class", "").find("Llama") != std::string::npos;
    if (!config.flag("legacy", !llama)) out.prefix = PrefixSpace::kFirstPart;
    if (!config.flag("add_prefix_space", true)) out.prefix = PrefixSpace::kNever;
    if (config.has("add_bos_token")) out.add_bos = config.at("add_bos_token").boolean();
    if (config.has("add_eos_token")) out.add_eos = config.at("add_eos_token").boolean();
  }

  void check_ends(const SpecialIds& special) const {
    std::vector<int32_t> ids = special.ends;
    if (special.bos) ids.push_back(*special.bos);
    for (const int32_t id : ids)
      COCA_CHECK_AS(kBadFile, id < next_id_, "{} names id {}; expected 0 to {}", path("generation_config.json"), id,
                    next_id_ - 1);
  }

  const PieceTable& pieces_;
  std::filesystem::path dir_;
  std::map<std::string, nlohmann::json> json_;
  std::map<int32_t, AddedToken> by_id_;
  std::map<std::string, int32_t, std::less<>> ids_;
  int32_t next_id_;
};

}  // namespace

TokensBeside read_tokens_beside(const std::map<std::string, std::string>& files, const std::string& model_file,
                                const PieceTable& pieces) {
  return Reader(files, model_file, pieces).read(files);
}

}  // namespace coca::text
