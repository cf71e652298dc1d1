// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

/// What ctest takes for "skipped": a test program of which everything was skipped (no GPU, say)
/// must not count as passed.
constexpr int kSkipped = 77;

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const int failed = RUN_ALL_TESTS();
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  if (tests.test_to_run_count() == 0 && !testing::GTEST_FLAG(list_tests)) {
    std::cerr << "no test ran\n";
    return 1;
  }
  return failed == 0 && tests.successful_test_count() == 0 ? kSkipped : failed;
}
