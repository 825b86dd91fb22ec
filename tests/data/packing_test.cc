// SPDX-License-Identifier: Apache-2.0
#include "coca/data/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "coca/base/rng.h"
#include "support/temp_dir.h"

namespace coca::data::packing_test {
namespace {

using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Documents of random lengths whose ids are all different, so that each token can be traced. The first half of each
// document is prompt.
struct Made {
  TokenDocuments documents;
  std::map<int32_t, int32_t> next;   // id to the next id of its document
  std::map<int32_t, int64_t> place;  // id to its index in its document
  std::set<int32_t> counted;         // ids that count as targets

  Made(int64_t count, int64_t longest, uint64_t seed) {
    Rng rng(seed);
    int32_t id = 1;
    for (int64_t d = 0; d < count; ++d) {
      const auto length = static_cast<size_t>(2 + rng.below(static_cast<uint64_t>(longest - 1)));
      TokenDocument document;
      for (size_t i = 0; i < length; ++i, ++id) {
        document.ids.push_back(id);
        document.counts.push_back(i >= (length + 1) / 2);
        place[id] = static_cast<int64_t>(i);
        if (i > 0) next[id - 1] = id;
        if (document.counts.back()) counted.insert(id);
      }
      documents.add(document);
    }
  }
};

struct Filled {
  std::vector<int32_t> ids, targets, starts;
  explicit Filled(int64_t N) : ids(static_cast<size_t>(N)), targets(ids.size()), starts(ids.size()) {}
  WindowRow row() { return {ids, targets, starts}; }
};

Filled shuffled(const PackedWindows& windows, int64_t k) {
  Filled f(windows.length());
  windows.shuffled(k, f.row());
  return f;
}

TEST(Packing, EveryCountedTokenIsATargetOnceAnEpoch) {
  constexpr int64_t kN = 24;
  const Made made(200, 60, 1);
  const PackedWindows windows(made.documents, {.length = kN, .seed = 5, .long_documents = LongDocuments::kSplit});
  std::multiset<int32_t> targets;
  int64_t inputs = 0;
  for (int64_t k = 0; k < windows.windows(); ++k) {
    const Filled f = shuffled(windows, k);
    for (size_t n = 0; n < static_cast<size_t>(kN); ++n) {
      const auto start = static_cast<size_t>(f.starts[n]);
      if (f.ids[n] == 0) {  // padding is a document of its own
        EXPECT_EQ(start, n);
        EXPECT_EQ(f.targets[n], kNoTarget);
        continue;
      }
      ++inputs;
      EXPECT_EQ(f.ids[n] - f.ids[start], static_cast<int32_t>(n - start));  // the document is contiguous from its start
      const auto next = made.next.find(f.ids[n]);
      ASSERT_NE(next, made.next.end());  // the last token of a document is never an input
      EXPECT_EQ(f.targets[n], made.counted.contains(next->second) ? next->second : kNoTarget);
      if (f.targets[n] != kNoTarget) targets.insert(f.targets[n]);
    }
  }
  const std::multiset<int32_t> wanted(made.counted.begin(), made.counted.end());
  EXPECT_EQ(targets, wanted);
  EXPECT_EQ(inputs, windows.report().inputs);
  EXPECT_EQ(static_cast<int64_t>(targets.size()), windows.report().targets);
  EXPECT_GT(windows.report().split, 0);
}

TEST(Packing, EveryTokenSeesItsWholeDocumentWhenThatFits) {
  const Made made(100, 20, 2);
  const PackedWindows windows(made.documents, {.length = 32, .seed = 1});
  for (int64_t k = 0; k < windows.windows(); ++k) {
    const Filled f = shuffled(windows, k);
    for (size_t n = 0; n < f.ids.size(); ++n)
      if (f.ids[n] != 0) {
        EXPECT_EQ(static_cast<int64_t>(n) - f.starts[n], made.place.at(f.ids[n]));
      }
  }
  EXPECT_EQ(windows.report().pieces, 100);
  EXPECT_EQ(windows.report().split + windows.report().truncated + windows.report().dropped, 0);
}

TEST(Packing, WindowsAreAFunctionOfSeedAndNumber) {
  const Made made(100, 20, 3);
  const PackingOptions options{.length = 32, .seed = 7};
  const PackedWindows one(made.documents, options), again(made.documents, options);
  const int64_t epoch = one.windows();
  for (const int64_t k : {5 * epoch, int64_t{3}, epoch - 1, int64_t{0}, int64_t{3}}) {
    const Filled a = shuffled(one, k), b = shuffled(again, k);
    EXPECT_EQ(a.ids, b.ids);
    EXPECT_EQ(a.targets, b.targets);
    EXPECT_EQ(a.starts, b.starts);
  }
  std::vector<std::vector<int32_t>> first, second;
  for (int64_t k = 0; k < epoch; ++k) {
    first.push_back(shuffled(one, k).ids);
    second.push_back(shuffled(one, epoch + k).ids);
  }
  EXPECT_NE(first, second);  // in a different order
  std::sort(first.begin(), first.end()), std::sort(second.begin(), second.end());
  EXPECT_EQ(first, second);  // the same windows
  const PackedWindows other(made.documents, {.length = 32, .seed = 8});
  EXPECT_NE(shuffled(one, 0).ids, shuffled(other, 0).ids);
}

TEST(Packing, WindowsAreFull) {
  const Made made(2000, 60, 4);
  const PackedWindows windows(made.documents, {.length = 128, .seed = 1});
  const double places = static_cast<double>(windows.windows() * 128);
  // Best fit leaves space in a window only if no later document was short enough. With pieces of 1 to 59 tokens in
  // windows of 128 that is a few per cent, plus the last windows.
  EXPECT_GT(static_cast<double>(windows.report().inputs) / places, 0.95);
}

TEST(Packing, LongDocumentsAreSplitTruncatedOrDropped) {
  TokenDocuments documents;
  const auto add = [&](int32_t first, size_t length, size_t counted_from) {
    TokenDocument d;
    for (size_t i = 0; i < length; ++i) {
      d.ids.push_back(first + static_cast<int32_t>(i));
      d.counts.push_back(i >= counted_from);
    }
    documents.add(d);
  };
  add(100, 11, 0);  // 10 inputs: three windows of 4
  add(200, 5, 1);   // 4 inputs: just fits
  add(300, 9, 8);   // if truncated, its answer is cut off
  const auto report = [&](LongDocuments policy) {
    return PackedWindows(documents, {.length = 4, .seed = 0, .long_documents = policy}).report();
  };
  const PackingReport split = report(LongDocuments::kSplit);
  EXPECT_EQ(split.split, 2);
  EXPECT_EQ(split.pieces, 3 + 1 + 1);  // of the last document only the piece with the answer
  EXPECT_EQ(split.targets, 10 + 4 + 1);
  EXPECT_EQ(split.without_loss, 0);
  const PackingReport cut = report(LongDocuments::kTruncate);
  EXPECT_EQ(cut.truncated, 2);
  EXPECT_EQ(cut.targets, 4 + 4);
  EXPECT_EQ(cut.without_loss, 1);
  const PackingReport dropped = report(LongDocuments::kDrop);
  EXPECT_EQ(dropped.dropped, 2);
  EXPECT_EQ(dropped.targets, 4);
  EXPECT_EQ(dropped.documents, 3);
  EXPECT_EQ(dropped.windows, 1);
}

TEST(Packing, NothingToLearnIsAnError) {
  TokenDocuments documents;
  documents.add({.ids = {1, 2, 3}, .counts = {true, false, false}});  // the first token is never a target
  documents.add({.ids = {7}, .counts = {true}});
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { PackedWindows(documents, {.length = 8}); }),
              HasSubstr("of 2 documents none"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { PackedWindows(documents, {.length = 0}); }),
              HasSubstr("length is 0"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument,
                       [&] {
                         documents.add({.ids = {1, 2}, .counts = {true}});
                       }),
              HasSubstr("2 ids with 1"));
}

TEST(Packing, TheFingerprintSeesIdsBoundsAndWhatCounts) {
  const auto of = [](std::vector<TokenDocument> list) {
    TokenDocuments documents;
    for (const TokenDocument& d : list) documents.add(d);
    return documents.fingerprint();
  };
  const std::set<std::string> all = {
      of({{{1, 2, 3, 4}, {false, true, true, true}}}), of({{{1, 2, 3, 5}, {false, true, true, true}}}),
      of({{{1, 2, 3, 4}, {false, false, true, true}}}), of({{{1, 2}, {false, true}}, {{3, 4}, {true, true}}})};
  EXPECT_EQ(all.size(), 4u);
  EXPECT_EQ(of({{{1, 2}, {false, true}}}), of({{{1, 2}, {false, true}}}));
}

}  // namespace
}  // namespace coca::data::packing_test
