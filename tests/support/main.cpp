// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <new>

#include <gtest/gtest.h>

#include "tests/support/address_sanitizer.h"

#if defined(LAWN_ADDRESS_SANITIZER)
// AddressSanitizer's own ends the program where it has no memory to give; damaged files make LibTorch
// ask for as much.
void* operator new(std::size_t size) {
  void* const memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

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
