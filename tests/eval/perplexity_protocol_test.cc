// Each named protocol on a tiny document: exactly which (window, target) pairs are scored, and the mean compared with a
// naive computation window by window.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/perplexity_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "coca/eval/perplexity.h"
#include "coca/eval/perplexity_windows.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_model.h"

namespace coca::eval::perplexity_protocol_test {

// "[0,4)>1-3": the tokens run, and the first and last target scored.
void PrintTo(const WindowSpan& s, std::ostream* out) {
  *out << fmt::format("[{},{})>{}-{}", s.begin, s.end, s.first_target, s.end_target - 1);
}

namespace {

using test::AttentionKind;
using testing::ElementsAre;
using testing::HasSubstr;
constexpr int32_t kBos = 7;

// The protocol with small W and S and no requirements on documents. If the stride equals the window it stays so.
Protocol toy(std::string_view name, int64_t W, int64_t S) {
  Protocol p = protocol_of(name);
  p.lengths = {W};
  if (p.stride > 1) p.stride = S;
  p.min_tokens = p.max_tokens = p.max_documents = 0;
  return p;
}

std::vector<WindowSpan> spans(const Protocol& p, int64_t tokens, std::optional<int32_t> bos) {
  const Texts texts = make_texts(std::vector<std::vector<int32_t>>{test::random_ids(tokens, 23, 1)}, p, bos);
  return plan_windows(static_cast<int64_t>(texts.texts.at(0).ids.size()), p, window_shape(p, p.lengths.at(0), bos));
}

// Windows slide by two over ten tokens. With a bos they hold three tokens of text, and the first one is scored too.
TEST(Protocols, SlidingWindowsScoreWhatIsNew) {
  for (const char* name : {"sliding", "coca", "pi", "yarn", "pose"}) {
    SCOPED_TRACE(name);
    EXPECT_THAT(
        spans(toy(name, 4, 2), 10, std::nullopt),
        ElementsAre(WindowSpan{0, 4, 1, 4}, WindowSpan{2, 6, 4, 6}, WindowSpan{4, 8, 6, 8}, WindowSpan{6, 10, 8, 10}));
    EXPECT_THAT(spans(toy(name, 4, 2), 10, kBos),
                ElementsAre(WindowSpan{0, 3, 0, 3}, WindowSpan{2, 5, 3, 5}, WindowSpan{4, 7, 5, 7},
                            WindowSpan{6, 9, 7, 9}, WindowSpan{8, 10, 9, 10}));
  }
}

TEST(DefaultLengths, DoubleFromTheTrainedLength) {
  EXPECT_THAT(default_lengths(100), ElementsAre(100, 200, 400, 800));
  EXPECT_THAT(default_lengths(100, [](int64_t length) { return length >= 400; }), ElementsAre(400, 800, 1600, 3200));
  EXPECT_THAT(default_lengths(100, [](int64_t) { return false; }), ElementsAre(100, 200, 400, 800));
  EXPECT_THAT(default_lengths(100000, [](int64_t) { return true; }), ElementsAre(100000, 200000, 400000, 800000));
  EXPECT_THAT(default_lengths(int64_t{1} << 30), ElementsAre(int64_t{1} << 30)) << "--lengths takes no greater one";
}

// One window per document, of at most W tokens including the bos.
TEST(Protocols, YarnTruncateScoresTheFirstWindowWhole) {
  EXPECT_THAT(spans(toy("yarn-truncate", 4, 2), 10, kBos), ElementsAre(WindowSpan{0, 3, 0, 3}));
  EXPECT_THAT(spans(toy("yarn-truncate", 4, 2), 10, std::nullopt), ElementsAre(WindowSpan{0, 4, 1, 4}));
}

// Every window is scored completely, so most tokens count twice. A window that ends at the end of the text is left out.
TEST(Protocols, LongLoraScoresWholeWindows) {
  EXPECT_THAT(
      spans(toy("longlora", 4, 2), 11, std::nullopt),
      ElementsAre(WindowSpan{0, 4, 1, 4}, WindowSpan{2, 6, 3, 6}, WindowSpan{4, 8, 5, 8}, WindowSpan{6, 10, 7, 10}));
  EXPECT_EQ(spans(toy("longlora", 4, 2), 10, std::nullopt).size(), 3u);
}

// x = data[i : i + W], y = data[i + 1 : i + 1 + W]. A window that lacks its last y is left out.
TEST(Protocols, LandmarkPredictsTheTokenBehindTheWindow) {
  EXPECT_THAT(spans(toy("landmark", 4, 2), 9, std::nullopt),
              ElementsAre(WindowSpan{0, 4, 1, 5}, WindowSpan{4, 8, 5, 9}));
  EXPECT_EQ(spans(toy("landmark", 4, 2), 8, std::nullopt).size(), 1u);
}

// fairseq shifts each block's input by one, so every token except the first of the text is a target. With an
// end-of-sentence token in front (index 0 here) the first token is a target too.
TEST(Protocols, AlibiBlocksScoreEveryToken) {
  EXPECT_THAT(spans(toy("alibi", 4, 2), 10, kBos),  // 11 tokens with the bos
              ElementsAre(WindowSpan{0, 4, 1, 5}, WindowSpan{4, 8, 5, 9}, WindowSpan{8, 10, 9, 11}));
  EXPECT_THAT(spans(toy("alibi", 4, 2), 6, std::nullopt), ElementsAre(WindowSpan{0, 4, 1, 5}, WindowSpan{4, 5, 5, 6}));
}

// Each window adds one target and uses the W tokens before it.
TEST(Protocols, AlibiSlidingGrowsToTheWindow) {
  EXPECT_THAT(spans(toy("alibi-sliding", 3, 2), 5, kBos),
              ElementsAre(WindowSpan{0, 1, 1, 2}, WindowSpan{0, 2, 2, 3}, WindowSpan{0, 3, 3, 4},
                          WindowSpan{1, 4, 4, 5}, WindowSpan{2, 5, 5, 6}));
  Protocol two = toy("alibi-sliding", 4, 2);  // context_window = 2: blocks of two targets
  two.stride = 2;
  EXPECT_THAT(spans(two, 6, kBos), ElementsAre(WindowSpan{0, 2, 1, 3}, WindowSpan{0, 4, 3, 5}, WindowSpan{2, 6, 5, 7}));
}

// n_ctx - 1 - n_ctx / 2 targets per chunk: 255 of 512. The rest of the text is not run.
TEST(Protocols, LlamaCppScoresTheSecondHalf) {
  EXPECT_THAT(spans(toy("llama.cpp", 6, 2), 14, kBos), ElementsAre(WindowSpan{0, 6, 4, 6}, WindowSpan{6, 12, 10, 12}));
  const auto chunks = spans(toy("llama.cpp", 512, 2), 1030, kBos);
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[0].targets(), 255);
}

// ceil((N - W) / S) windows; the last S targets of each count.
TEST(Protocols, LlamaCppStrideScoresTheLastOfEachWindow) {
  EXPECT_THAT(spans(toy("llama.cpp-stride", 5, 2), 10, std::nullopt),
              ElementsAre(WindowSpan{0, 5, 3, 5}, WindowSpan{2, 7, 5, 7}, WindowSpan{4, 9, 7, 9}));
  EXPECT_EQ(spans(toy("llama.cpp-stride", 5, 2), 9, std::nullopt).size(), 2u);
}

// Runs each (window, target) pair separately and builds the window's ids here.
double naive_nll(test::ReferenceDecoder<double>& exact, const model::ModelSpec& spec, const Text& text,
                 const Protocol& p, const WindowSpan& w, std::optional<int32_t> bos) {
  std::vector<int32_t> ids(text.ids.begin() + w.begin, text.ids.begin() + w.end);
  int64_t front = 0;
  if (bos && p.bos_place == BosPlace::kEveryWindow) {
    ids.insert(ids.begin(), *bos);
    front = 1;
  }
  if (bos && p.bos_place == BosPlace::kFirstToken) ids[0] = *bos;
  const std::vector<double> logits = exact.run(ids, static_cast<int64_t>(ids.size()));
  double sum = 0;
  for (int64_t t = w.first_target; t < w.end_target; ++t)
    sum += test::reference_nll(logits.data() + (t - 1 - w.begin + front) * spec.V, spec.V,
                               text.ids[static_cast<size_t>(t)]);
  return sum;
}

TEST(Protocols, MeansEqualTheNaiveOnes) {
  test::TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  m.spec.bos_id = kBos;
  const std::vector<std::vector<int32_t>> documents = {
      test::random_ids(23, m.spec.V, 1), test::random_ids(1, m.spec.V, 2), test::random_ids(30, m.spec.V, 3)};
  test::ReferenceDecoder<double> exact(m.spec, m.params);
  for (const NamedProtocol& named : named_protocols()) {
    SCOPED_TRACE(named.name);
    const Protocol p = toy(named.name, 8, 3);
    const std::optional<int32_t> bos = bos_token(m.spec, p.bos);
    EXPECT_EQ(bos.has_value(), p.bos != Bos::kNever);
    const Texts texts = make_texts(documents, p, bos);
    EXPECT_EQ(texts.texts.size(), p.join == Join::kJoined ? 1u : 2u);
    double sum = 0, means = 0, scored = 0, windows = 0;
    for (const Text& text : texts.texts)
      for (const WindowSpan& w : plan_windows(static_cast<int64_t>(text.ids.size()), p, window_shape(p, 8, bos))) {
        const double nll = naive_nll(exact, m.spec, text, p, w, bos);
        sum += nll;
        scored += static_cast<double>(w.targets());
        means += nll / static_cast<double>(w.targets());
        windows += 1;
      }
    Context cx;
    const PerplexityResult r = perplexity(cx, m.spec, m.params.weights(), documents, {.protocol = p}).at(0);
    EXPECT_EQ(static_cast<double>(r.scored_tokens), scored);
    EXPECT_EQ(static_cast<double>(r.windows), windows);
    // Two layers in float with an nll up to about 20: twice the bound for batches in perplexity_test.cc.
    EXPECT_NEAR(r.nll, sum / scored, 1e-4);
    EXPECT_NEAR(std::log(r.value(p.average)), p.average == Average::kTokens ? sum / scored : means / windows, 1e-4);
    EXPECT_EQ(r.by_document.size(), p.join == Join::kJoined ? 0u : 2u);
  }
}

TEST(Protocols, DocumentsAreChosenCutAndJoined) {
  const std::vector<std::vector<int32_t>> documents = {{1, 2}, {2, 3, 4, 5, 6}, {7, 8, 9}, {10, 11, 12}};
  Protocol p{.min_tokens = 3, .max_tokens = 3, .max_documents = 2};
  const Texts cut = make_texts(documents, p, 99);
  ASSERT_EQ(cut.texts.size(), 2u);
  EXPECT_THAT(cut.texts[0].ids, ElementsAre(3, 4, 5));
  EXPECT_EQ(cut.texts[0].document, 1);
  EXPECT_EQ(cut.documents, 2);
  EXPECT_EQ(cut.document_tokens, 6);
  EXPECT_EQ(cut.passed_over, 1);
  p.join = Join::kJoined;
  p.bos_place = BosPlace::kTextStart;
  const Texts joined = make_texts(documents, p, 99);
  ASSERT_EQ(joined.texts.size(), 1u);
  EXPECT_THAT(joined.texts[0].ids, ElementsAre(99, 3, 4, 5, 7, 8, 9));
  p.cut = Cut::kStart;
  EXPECT_THAT(make_texts(documents, p, 99).texts[0].ids, ElementsAre(99, 2, 3, 4, 7, 8, 9));
  p.min_tokens = 6;
  EXPECT_THAT([&] { make_texts(documents, p, 99); },
              testing::ThrowsMessage<Error>(HasSubstr("min_tokens is 6; of 4 documents none has as many")));
}

// Published scripts that cut documents keep the start. Our own protocol keeps the middle.
TEST(Protocols, PublishedOnesCutAtTheStart) {
  for (const char* name : {"coca", "pose", "yarn", "yarn-truncate"})
    EXPECT_EQ(protocol_of(name).cut, Cut::kStart) << name;
  EXPECT_EQ(protocol_of("sliding").cut, Cut::kMiddle);
}

TEST(Protocols, NamesAreUniqueAndMistakesListThem) {
  std::set<std::string_view> names;
  for (const NamedProtocol& p : named_protocols()) {
    EXPECT_TRUE(names.insert(p.name).second) << p.name;
    EXPECT_FALSE(p.source.empty());
    check_protocol(p.protocol);
  }
  EXPECT_THAT([] { protocol_of("yarm"); }, testing::ThrowsMessage<Error>(HasSubstr("sliding, coca, pi, yarn")));
  EXPECT_THAT([] { check_protocol({.placement = Placement::kEnds, .scored = Scored::kAll}); },
              testing::ThrowsMessage<Error>(HasSubstr("placement ends")));
}

// A word is counted at its first byte, so the counts of parts add up to that of the whole.
TEST(TextSizes, WordsOfPartsAddUp) {
  const auto tokenizer = text::make_byte_tokenizer();
  const std::vector<IdText> sizes = text_of_ids(*tokenizer);
  const std::string text = "  It was\na  d\xc3\xa9j\xc3\xa0-vu.\t";
  std::vector<int32_t> ids = tokenizer->encode(text);
  const auto N = static_cast<int64_t>(ids.size());
  const TextSize whole = text_size(sizes, ids, 0, N);
  EXPECT_EQ(whole.bytes, static_cast<int64_t>(text.size()));
  EXPECT_EQ(whole.words, 4);
  for (int64_t cut = 0; cut <= N; ++cut) {
    const TextSize front = text_size(sizes, ids, 0, cut), back = text_size(sizes, ids, cut, N);
    EXPECT_EQ(front.words + back.words, 4) << cut;
    EXPECT_EQ(front.bytes + back.bytes, whole.bytes);
  }
  ids.insert(ids.begin() + 4, 256);  // a control token inside "It" does not split the word
  EXPECT_EQ(text_size(sizes, ids, 5, N + 1).words, 3);
}

TEST(TextSizes, WordPerplexitySpreadsTheNllOverWords) {
  const PerplexitySums sums{.windows = 1, .scored_tokens = 12, .bytes = 20, .words = 4, .nll = 8};
  EXPECT_DOUBLE_EQ(sums.word_perplexity().value(), std::exp(2.0));
  EXPECT_DOUBLE_EQ(sums.bits_per_byte().value(), 8 / std::log(2.0) / 20);
  EXPECT_FALSE(PerplexitySums{.scored_tokens = 3}.word_perplexity());
}

}  // namespace
}  // namespace coca::eval::perplexity_protocol_test
