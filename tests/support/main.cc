// tests/support/main.cc - the main function of every test program. ctest starts the program once for each test. A
// parameterized test counts as one test with the models as its cases, since a separate process for each of several
// thousand cases would take longer than the tests. --gtest_list_tests lists such a test as Suite.Test, and
// --gtest_filter=Suite.Test runs all its cases.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <set>
#include <string>

namespace {

void for_each_chosen(const std::function<void(const testing::TestInfo&)>& body) {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t)
      if (suite.GetTestInfo(t)->should_run()) body(*suite.GetTestInfo(t));
  }
}

// Removes the parts that parameterized tests add: Specs/Suite and Test/llama become Suite and Test.
std::string suite_of(const testing::TestInfo& test) {
  const std::string name = test.test_suite_name();
  return test.value_param() ? name.substr(name.find('/') + 1) : name;
}
std::string test_of(const testing::TestInfo& test) {
  const std::string name = test.name();
  return test.value_param() ? name.substr(0, name.find('/')) : name;
}

int list() {
  testing::internal::CaptureStdout();  // hides GoogleTest's list of cases
  const int code = RUN_ALL_TESTS();
  testing::internal::GetCapturedStdout();
  std::set<std::pair<std::string, std::string>> names;  // sorted, so that the tests of a suite are adjacent
  for_each_chosen([&](const testing::TestInfo& test) { names.emplace(suite_of(test), test_of(test)); });
  std::string suite;
  for (const auto& [of, test] : names) {
    if (of != suite) std::printf("%s.\n", of.c_str());
    std::printf("  %s\n", test.c_str());
    suite = of;
  }
  return code;
}

// ctest regards a test as skipped if its output contains "[  SKIPPED ]", so this is printed only if no case ran.
class CasesPrinter : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& part) override {
    if (part.skipped())
      skipped_ = part.message();
    else if (!part.passed())
      std::printf("%s:%d: Failure\n%s\n", part.file_name() ? part.file_name() : "?", part.line_number(),
                  part.message());
  }
  void OnTestEnd(const testing::TestInfo& test) override {
    if (test.result()->Failed()) std::printf("[  FAILED  ] %s.%s\n", test.test_suite_name(), test.name());
    std::fflush(stdout);
  }
  void OnTestProgramEnd(const testing::UnitTest& all) override {
    std::printf("%d cases: %d passed, %d failed, %d skipped\n", all.test_to_run_count(), all.successful_test_count(),
                all.failed_test_count(), all.skipped_test_count());
    if (all.skipped_test_count() > 0)
      std::printf("%s%s\n", all.skipped_test_count() == all.test_to_run_count() ? "[  SKIPPED ] " : "",
                  skipped_.c_str());
  }
  std::string skipped_;
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) return list();
  const std::string filter = GTEST_FLAG_GET(filter);
  bool has_cases = false;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count() && !has_cases; ++s) {
    const testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count() && !has_cases; ++t) {
      const testing::TestInfo& test = *suite.GetTestInfo(t);
      has_cases = test.value_param() && filter == suite_of(test) + "." + test_of(test);
    }
  }
  if (has_cases) {
    GTEST_FLAG_SET(filter, filter + "/*:*/" + filter + "/*");
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new CasesPrinter);  // takes ownership
  }
  return RUN_ALL_TESTS();
}
