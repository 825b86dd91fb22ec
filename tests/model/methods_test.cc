// Every combination that the table calls valid gives the reference's result in double, and every trainable one gives
// its gradient. All others are refused with the reason.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/methods.h"

#include <gtest/gtest.h>

#include "support/against_reference.h"

namespace coca::model::methods_test {
namespace {

constexpr int64_t kN = 26;  // exceeds the 8 trained tokens and each pattern's border to far keys

ModelSpec tiny() {
  ModelSpec s = test::tiny_llama(AttentionKind::kRope);
  s.L = 1;
  return s;
}

// The combination with parameters that reach each branch within so few tokens.
ModelSpec spec_of(const Method& m) {
  ModelSpec s = method_spec(tiny(), m.attention, m.scaling, m.sight);
  s.rope_scaling = test::tiny_scaling(m.scaling, s.R / 2);
  return s;
}

std::string name_of(const Method& m) {
  return fmt::format("{} x {} x {}", enum_name(m.attention), enum_name(m.scaling), enum_name(m.sight));
}

TEST(Methods, ValidOnesMatchTheReference) {
  int64_t checked = 0;
  for (const Method& method : all_methods(tiny())) {
    if (method.use == MethodUse::kNone) continue;
    SCOPED_TRACE(name_of(method));
    test::expect_reference_logits(spec_of(method), kN);
    ++checked;
  }
  EXPECT_GT(checked, 200);
}

TEST(Methods, ThoseThatTrainHaveTheGradientOfTheReference) {
  int64_t checked = 0;
  for (const Method& method : all_methods(tiny())) {
    if (method.use != MethodUse::kTraining) continue;
    SCOPED_TRACE(name_of(method));
    test::expect_reference_gradient(spec_of(method), 12);
    ++checked;
  }
  EXPECT_GE(checked, 70);
}

TEST(Methods, TheOthersAreRefusedWithTheReason) {
  int64_t refused = 0;
  for (const Method& method : all_methods(tiny())) {
    EXPECT_EQ(method.use == MethodUse::kNone, !method.reason.empty()) << name_of(method);
    if (method.use != MethodUse::kNone) continue;
    ++refused;
    const char* wanted =
        method.scaling != Scaling::kNone && !uses_rotary(method.attention)         ? "needs rotary positions"
        : method.scaling == Scaling::kClex && uses_xpos(method.attention)          ? "clex cannot be combined with xPos"
        : method.sight == Sight::kLongformerEncoder && uses_xpos(method.attention) ? "decays with the distance back"
        : method.sight >= Sight::kLongformer ? "global tokens cannot be combined with rope scaling clex"
                                             : "pattern";
    EXPECT_NE(method.reason.find(wanted), std::string::npos) << method.reason;
  }
  EXPECT_GT(refused, 100);
}

// Files, flags and reports use these names.
TEST(Methods, EveryPairOfScoreAndPositionHasItsName) {
  std::vector<std::string> names;
  for (const Score score : {Score::kDot, Score::kSlack, Score::kStrict, Score::kTied, Score::kAbs, Score::kPope})
    for (const Encoding position : {Encoding::kRotary, Encoding::kXpos, Encoding::kAlibi, Encoding::kNone})
      names.emplace_back(enum_name(AttentionKind{score, position}));
  EXPECT_EQ(names, (std::vector<std::string>{"rope",
                                             "xpos",
                                             "alibi",
                                             "none",  //
                                             "coca-slack",
                                             "coca-slack-xpos",
                                             "coca-slack-alibi",
                                             "coca-slack-none",  //
                                             "coca-strict",
                                             "coca-strict-xpos",
                                             "coca-strict-alibi",
                                             "coca-strict-none",  //
                                             "coca-tied",
                                             "coca-tied-xpos",
                                             "coca-tied-alibi",
                                             "coca-tied-none",  //
                                             "coca-abs",
                                             "coca-abs-xpos",
                                             "coca-abs-alibi",
                                             "coca-abs-none",  //
                                             "pope",
                                             "pope-xpos",
                                             "pope-alibi",
                                             "pope-none"}));
  EXPECT_EQ(EnumTraits<AttentionKind>::names().size(), names.size());
}

}  // namespace
}  // namespace coca::model::methods_test
