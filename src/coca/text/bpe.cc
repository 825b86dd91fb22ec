// coca/text/bpe.cc - see bpe.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/bpe.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <queue>

#include "coca/base/error.h"
#include "coca/base/stop.h"
#include "coca/text/unicode.h"

namespace coca::text {

namespace {

constexpr size_t kShortWord = 40;  // symbols up to which scanning all pairs beats a queue

struct Letters {
  uint32_t of_byte[256];
  int16_t of_letter[512];
  Letters() {
    std::ranges::fill(of_letter, int16_t{-1});
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      of_byte[b] = printable ? b : next++;
      of_letter[of_byte[b]] = static_cast<int16_t>(b);
    }
  }
};
const Letters& letters() {
  static const Letters table;
  return table;
}

// One thread's words: direct-mapped, each entry as large as a cache line.
struct CachedWord {
  static constexpr size_t kBytes = 27, kIds = 5;
  uint64_t hash = 0;
  uint32_t owner = 0;
  int32_t ids[kIds];
  uint8_t count = 0;
  uint8_t size = 0;
  char word[kBytes];
};
static_assert(sizeof(CachedWord) == 64);
constexpr size_t kCachedWords = 1 << 15;

CachedWord& cached(uint64_t hash) {
  thread_local std::vector<CachedWord> words(kCachedWords);
  return words[hash >> 49];
}

std::atomic<uint32_t> next_owner{1};

}  // namespace

uint32_t byte_letter(uint8_t byte) { return letters().of_byte[byte]; }
int letter_byte(uint32_t c) { return c < 512 ? letters().of_letter[c] : -1; }

Bpe::Bpe(const JsonField& model, const Vocabulary& vocabulary, const MergeList& merges, BpeSymbols symbols)
    : vocabulary_(vocabulary), symbols_(symbols), owner_(next_owner.fetch_add(1)) {
  read_options(model);
  read_symbols(model);
  read_merges(model, merges);
}

Bpe::~Bpe() = default;

void Bpe::read_options(const JsonField& model) {
  model.only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
              "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (model.has("dropout") && model.at("dropout").value() != 0.0) model.at("dropout").refuse("null (no dropout)");
  if (!model.text("continuing_subword_prefix", "").empty()) model.at("continuing_subword_prefix").refuse("null");
  suffix_ = model.text("end_of_word_suffix", "");
  fuse_unknown_ = model.flag("fuse_unk", false);
  byte_fallback_ = model.flag("byte_fallback", false);
  if (byte_fallback_ && !suffix_.empty()) model.at("byte_fallback").refuse("false beside an end_of_word_suffix");
  ignore_merges_ = model.flag("ignore_merges", false);
  if (!model.has("unk_token")) return;
  const auto id = vocabulary_.find(model.at("unk_token").string());
  if (!id) model.at("unk_token").refuse("a token of model.vocab");
  unknown_ = *id;
}

void Bpe::read_symbols(const JsonField& model) {
  bool all_bytes = true;
  for (uint32_t b = 0; b < 256; ++b) {
    std::string name;
    if (symbols_ == BpeSymbols::kBytes)
      append_utf8(byte_letter(static_cast<uint8_t>(b)), name);
    else
      name = fmt::format("<0x{:02X}>", b);
    byte_ids_[b] = vocabulary_.find(name).value_or(-1);
    last_byte_ids_[b] = suffix_.empty() ? byte_ids_[b] : vocabulary_.find(name + suffix_).value_or(-1);
    all_bytes &= byte_ids_[b] >= 0;
  }
  if (symbols_ == BpeSymbols::kBytes) {
    if (byte_fallback_ && !all_bytes)
      model.at("byte_fallback").refuse("false where bytes are missing from model.vocab");
    return;
  }
  characters_.resize(0x1100);
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    if (!vocabulary_.holds(id)) continue;
    const std::string_view token = vocabulary_.token(id);
    if (token.empty()) continue;
    const CodePoint c = read_utf8(token.data());
    if (c.length != token.size()) continue;
    auto& page = characters_[c.value >> 8];
    if (page.empty()) page.assign(256, -1);
    page[c.value & 255] = id;
  }
}

void Bpe::read_merges(const JsonField& model, const MergeList& merges) {
  const size_t slots = std::bit_ceil(std::max<size_t>(merges.size() + merges.size() / 2, 2));
  merges_.assign(slots, {kNoPair, 0, -1});
  shift_ = 64 - static_cast<uint32_t>(std::bit_width(slots - 1));
  uint32_t rank = 0;
  std::string joined;
  const auto id_of = [&](std::string_view token, std::string_view left, std::string_view right) {
    const auto id = vocabulary_.find(token);
    COCA_CHECK_AS(kBadFile, id, "{}.merges[{}]: \"{}\" + \"{}\": token \"{}\" is not in model.vocab", model.where(),
                  rank, left, right, token);
    return *id;
  };
  merges.for_each([&](std::string_view left, std::string_view right) {
    joined.assign(left).append(right);
    const uint64_t a = static_cast<uint32_t>(id_of(left, left, right));
    const uint64_t b = static_cast<uint32_t>(id_of(right, left, right));
    const Merge merge{a << 32 | b, rank, id_of(joined, left, right)};
    size_t slot = (merge.pair * 0x9e3779b97f4a7c15) >> shift_;
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != merge.pair) slot = (slot + 1) & (slots - 1);
    merges_[slot] = merge;  // of equal pairs the last one counts
    ++rank;
  });
}

inline const Bpe::Merge* Bpe::find(int32_t left, int32_t right) const {
  const uint64_t pair = static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  for (size_t slot = (pair * 0x9e3779b97f4a7c15) >> shift_;; slot = (slot + 1) & (merges_.size() - 1)) {
    const Merge& merge = merges_[slot];
    if (merge.pair == pair) return &merge;
    if (merge.pair == kNoPair) return nullptr;
  }
}

bool Bpe::splits_before(std::string_view mark) const {
  if (symbols_ != BpeSymbols::kCharacters || !vocabulary_.find(mark)) return false;  // unknown marks could be fused
  if (ignore_merges_ || !suffix_.empty()) return false;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    if (!vocabulary_.holds(id)) continue;
    std::string_view token = vocabulary_.token(id);
    while (token.starts_with(mark)) token.remove_prefix(mark.size());
    if (token.find(mark) != std::string_view::npos) return false;
  }
  return true;
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  check_interrupt();
  if (word.size() > CachedWord::kBytes) return encode_uncached(word, ids);
  const uint64_t hash = hash_bytes(word);
  CachedWord& entry = cached(hash);
  if (entry.hash == hash && entry.owner == owner_ && entry.size == word.size() &&
      std::memcmp(entry.word, word.data(), word.size()) == 0) {
    ids.insert(ids.end(), entry.ids, entry.ids + entry.count);
    return;
  }
  const size_t begin = ids.size();
  encode_uncached(word, ids);
  const size_t count = ids.size() - begin;
  if (count > CachedWord::kIds) return;
  entry.hash = hash;
  entry.owner = owner_;
  entry.size = static_cast<uint8_t>(word.size());
  entry.count = static_cast<uint8_t>(count);
  std::memcpy(entry.word, word.data(), word.size());
  std::copy(ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end(), entry.ids);
}

void Bpe::encode_uncached(std::string_view word, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    std::string written;
    if (symbols_ == BpeSymbols::kBytes)
      for (const char c : word) append_utf8(byte_letter(static_cast<uint8_t>(c)), written);
    if (const auto id = vocabulary_.find(symbols_ == BpeSymbols::kBytes ? std::string_view(written) : word)) {
      ids.push_back(*id);
      return;
    }
  }
  const size_t begin = ids.size();
  if (symbols_ == BpeSymbols::kBytes)
    byte_symbols(word, ids);
  else
    character_symbols(word, ids);
  if (ids.size() - begin <= kShortWord)
    merge_short(ids, begin);
  else
    merge_long(ids, begin);
}

void Bpe::byte_symbols(std::string_view word, std::vector<int32_t>& ids) const {
  bool unknown = false;  // whether the symbol before is the unknown one
  for (size_t i = 0; i < word.size(); ++i) {
    const int32_t id = (i + 1 < word.size() ? byte_ids_ : last_byte_ids_)[static_cast<unsigned char>(word[i])];
    if (id >= 0) {
      ids.push_back(id);
    } else if (unknown_ >= 0 && !(unknown && fuse_unknown_)) {
      ids.push_back(unknown_);
    }
    unknown = id < 0;
  }
}

int32_t Bpe::character_id(uint32_t c) const {
  const auto& page = characters_[c >> 8];
  return page.empty() ? -1 : page[c & 255];
}

void Bpe::character_symbols(std::string_view word, std::vector<int32_t>& ids) const {
  // As in the package, an unknown symbol waits for the next known character: bytes of a character between overtake it.
  bool waiting = false;
  for (size_t i = 0; i < word.size();) {
    const CodePoint c = read_utf8(word.data() + i);
    const std::string_view bytes = word.substr(i, c.length);
    i += c.length;
    const bool last = i == word.size() && !suffix_.empty();
    if (const int32_t id = last ? vocabulary_.find(std::string(bytes) + suffix_).value_or(-1) : character_id(c.value);
        id >= 0) {
      if (waiting) ids.push_back(unknown_);
      waiting = false;
      ids.push_back(id);
      continue;
    }
    const auto byte_id = [&](char b) { return byte_ids_[static_cast<unsigned char>(b)]; };
    if (byte_fallback_ && std::ranges::all_of(bytes, [&](char b) { return byte_id(b) >= 0; })) {
      for (const char b : bytes) ids.push_back(byte_id(b));
    } else if (unknown_ >= 0) {
      if (waiting && !fuse_unknown_) ids.push_back(unknown_);
      waiting = true;
    }
  }
  if (waiting) ids.push_back(unknown_);
}

void Bpe::merge_short(std::vector<int32_t>& ids, size_t begin) const {
  constexpr uint32_t kNone = UINT32_MAX;
  size_t count = ids.size() - begin;
  int32_t* symbols = ids.data() + begin;
  uint32_t ranks[kShortWord];  // of symbol i and its neighbour to the right
  int32_t merged[kShortWord];
  const auto look = [&](size_t i) {
    const Merge* merge = find(symbols[i], symbols[i + 1]);
    ranks[i] = merge ? merge->rank : kNone;
    if (merge) merged[i] = merge->id;
  };
  for (size_t i = 0; i + 1 < count; ++i) look(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == kNone) break;
    symbols[best] = merged[best];
    for (size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      if (i + 2 < count) {
        ranks[i] = ranks[i + 1];
        merged[i] = merged[i + 1];
      }
    }
    --count;
    if (best > 0) look(best - 1);
    if (best + 1 < count) look(best);
  }
  ids.resize(begin + count);
}

void Bpe::merge_long(std::vector<int32_t>& ids, size_t begin) const {
  struct Symbol {
    int32_t id;  // -1: merged into the one before
    uint32_t previous, next;
  };
  struct Candidate {
    uint32_t rank, at;
    int32_t left, right;  // the ids it was found for
    int32_t id;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  constexpr uint32_t kEnd = UINT32_MAX;
  const size_t count = ids.size() - begin;
  COCA_CHECK(count < kEnd, "a word of {} symbols is too long to encode", count);
  std::vector<Symbol> symbols(count);
  for (uint32_t i = 0; i < count; ++i)
    symbols[i] = {ids[begin + i], i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1};
  std::vector<Candidate> found;
  const auto candidate = [&](uint32_t at, auto&& push) {
    const uint32_t next = symbols[at].next;
    if (next == kEnd) return;
    if (const Merge* m = find(symbols[at].id, symbols[next].id))
      push(Candidate{m->rank, at, symbols[at].id, symbols[next].id, m->id});
  };
  for (uint32_t i = 0; i < count; ++i) candidate(i, [&](const Candidate& c) { found.push_back(c); });
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue({}, std::move(found));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.at];
    if (left.id != top.left || left.next == kEnd || symbols[left.next].id != top.right) continue;
    Symbol& right = symbols[left.next];
    left.id = top.id;
    left.next = right.next;
    right.id = -1;
    if (left.next != kEnd) symbols[left.next].previous = top.at;
    candidate(top.at, [&](const Candidate& c) { queue.push(c); });
    if (left.previous != kEnd) candidate(left.previous, [&](const Candidate& c) { queue.push(c); });
  }
  size_t out = begin;
  for (uint32_t i = 0; i != kEnd; i = symbols[i].next) ids[out++] = symbols[i].id;
  ids.resize(out);
}

}  // namespace coca::text
