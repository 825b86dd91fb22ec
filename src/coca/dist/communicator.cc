// SPDX-License-Identifier: Apache-2.0
#include "coca/dist/communicator.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

namespace coca::dist {

namespace {

class Alone : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    for (const Send& send : sends)
      COCA_CHECK_AS(kInternal, delivered_to_self(0, send, receives), "[dist] message to rank {} of 1", send.to);
  }
  std::unique_ptr<Communicator> duplicate() override { return std::make_unique<Alone>(); }
};

template <typename T>
std::span<std::byte> bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

// The result of a rank's work: the kind of its error and the message.
struct Outcome {
  bool failed = false;
  ErrorKind kind = ErrorKind::kInternal;
};

// Facts as one text and back: "<length> <text>" of each part.
std::string packed(const std::vector<Fact>& facts) {
  std::string text;
  for (const Fact& fact : facts)
    text += fmt::format("{} {}{} {}", fact.what.size(), fact.what, fact.value.size(), fact.value);
  return text;
}
std::vector<Fact> unpacked(const std::string& text) {
  std::vector<Fact> facts;
  size_t at = 0;
  const auto part = [&] {
    const size_t space = text.find(' ', at), bytes = std::stoull(text.substr(at, space - at));
    at = space + 1 + bytes;
    return text.substr(space + 1, bytes);
  };
  while (at < text.size()) {
    std::string what = part();
    facts.push_back({std::move(what), part()});
  }
  return facts;
}

// The first difference between the list of `rank` and that of rank 0; "" if there is none.
std::string difference(const std::vector<Fact>& first, const std::vector<Fact>& mine, int rank) {
  for (size_t i = 0; i < std::max(first.size(), mine.size()); ++i) {
    if (i < first.size() && i < mine.size()) {
      if (first[i].what == mine[i].what && first[i].value == mine[i].value) continue;
      if (first[i].what == mine[i].what)
        return fmt::format("{} is {} on rank 0 and {} on rank {}", mine[i].what, first[i].value, mine[i].value, rank);
    }
    const auto lacks = [](const std::vector<Fact>& facts, const std::string& what) {
      return std::ranges::find(facts, what, &Fact::what) == facts.end();
    };
    if (i < first.size() && lacks(mine, first[i].what))
      return fmt::format("rank 0 has {} ({}), which rank {} does not have", first[i].what, first[i].value, rank);
    if (i < mine.size() && lacks(first, mine[i].what))
      return fmt::format("rank {} has {} ({}), which rank 0 does not have", rank, mine[i].what, mine[i].value);
    return fmt::format("{} comes in another place on rank 0 than on rank {}", (i < mine.size() ? mine : first)[i].what,
                       rank);
  }
  return "";
}

}  // namespace

Communicator& alone() {
  static Alone one;
  return one;
}

double timeout_seconds() {
  const char* text = std::getenv("COCA_DIST_TIMEOUT");
  if (!text || !*text) return 600;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  COCA_CHECK(*end == 0 && std::isfinite(seconds) && seconds > 0, "COCA_DIST_TIMEOUT: \"{}\"; expected seconds above 0",
             text);
  return seconds;
}

// Ranks send themselves at most one message in a group.
bool delivered_to_self(int rank, const Send& send, std::span<const Receive> receives) {
  if (send.to != rank) return false;
  const auto to = std::ranges::find(receives, rank, &Receive::from);
  COCA_CHECK_AS(kInternal, to != receives.end() && to->bytes.size() == send.bytes.size(),
                "[dist] rank {} sends itself {} bytes that it does not receive", rank, send.bytes.size());
  if (!send.bytes.empty()) std::memmove(to->bytes.data(), send.bytes.data(), send.bytes.size());
  return true;
}

void all_gather(Communicator& ranks, std::span<const std::byte> mine, std::span<std::byte> all) {
  const size_t piece = mine.size();
  COCA_CHECK_AS(kInternal, all.size() == piece * static_cast<size_t>(ranks.size()),
                "[dist] {} bytes for {} pieces of {}", all.size(), ranks.size(), piece);
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int r = 0; r < ranks.size(); ++r) {
    sends.push_back({r, mine});
    receives.push_back({r, all.subspan(static_cast<size_t>(r) * piece, piece)});
  }
  ranks.exchange(sends, receives);
}

void barrier(Communicator& ranks) { all_gather_value(ranks, uint8_t{0}); }

void broadcast(Communicator& ranks, int root, std::span<std::byte> bytes) {
  if (ranks.rank() != root) {
    const Receive receive{root, bytes};
    ranks.exchange({}, {&receive, 1});
    return;
  }
  std::vector<Send> sends;
  for (int r = 0; r < ranks.size(); ++r)
    if (r != root) sends.push_back({r, bytes});
  ranks.exchange(sends, {});
}

std::string broadcast_text(Communicator& ranks, int root, std::string_view text) {
  uint64_t length = text.size();
  broadcast(ranks, root, bytes_of(length));
  std::string out(text);
  out.resize(length);
  broadcast(ranks, root, std::as_writable_bytes(std::span(out)));
  return out;
}

std::vector<std::string> gather_texts(Communicator& ranks, std::string_view mine) {
  const std::vector<uint64_t> lengths = all_gather_value<uint64_t>(ranks, mine.size());
  std::vector<std::string> texts;
  texts.reserve(lengths.size());
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (const uint64_t length : lengths) texts.emplace_back(length, '\0');
  for (int r = 0; r < ranks.size(); ++r) {
    sends.push_back({r, std::as_bytes(std::span(mine))});
    receives.push_back({r, std::as_writable_bytes(std::span(texts[static_cast<size_t>(r)]))});
  }
  ranks.exchange(sends, receives);
  return texts;
}

bool any(Communicator& ranks, bool mine) {
  const std::vector<uint8_t> all = all_gather_value<uint8_t>(ranks, mine);
  return std::ranges::find(all, 1) != all.end();
}

void together(Communicator& ranks, const std::function<void()>& work) {
  if (ranks.size() == 1) return work();
  Outcome mine;
  std::string message;
  try {
    work();
  } catch (const Error& error) {
    mine = {.failed = true, .kind = error.kind()};
    message = error.what();
  } catch (const std::bad_alloc&) {
    mine = {.failed = true, .kind = ErrorKind::kIo};
    message = "out of memory";
  } catch (const std::exception& error) {
    mine.failed = true;
    message = error.what();
  }
  const std::vector<Outcome> all = all_gather_value(ranks, mine);
  const auto bad = std::ranges::find(all, true, &Outcome::failed);
  if (bad == all.end()) return;
  const std::vector<std::string> messages = gather_texts(ranks, message);
  if (mine.failed) throw SharedError(mine.kind, message);
  const auto who = bad - all.begin();
  throw SharedError(bad->kind, fmt::format("rank {}: {}", who, messages[static_cast<size_t>(who)]));
}

void first_rank_first(Communicator& ranks, const std::function<void()>& work) {
  together(ranks, [&] {
    if (ranks.rank() == 0) work();
  });
  together(ranks, [&] {
    if (ranks.rank() != 0) work();
  });
}

void require_same(Communicator& ranks, const std::vector<Fact>& mine) {
  if (ranks.size() == 1) return;
  const std::vector<Fact> first = unpacked(broadcast_text(ranks, 0, packed(mine)));
  for (const std::string& found : gather_texts(ranks, difference(first, mine, ranks.rank())))
    if (!found.empty())
      throw SharedError(ErrorKind::kInvalidArgument,
                        found + "; all ranks must be started with the same program, options and files");
}

}  // namespace coca::dist
