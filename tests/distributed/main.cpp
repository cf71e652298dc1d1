// SPDX-License-Identifier: Apache-2.0
#include <iostream>

#include <gtest/gtest.h>
#include <mpi.h>

/// Every rank runs every test; mpirun fails if one of them does. Not by a MpiSession, which would
/// not finalize after the groups that tests have fail: here all ranks are alive at the end.
int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  int provided = 0, rank = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank != 0) {
    // One rank tells what passes; what fails is printed by whom it happens to.
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    struct Failures : testing::EmptyTestEventListener {
      void OnTestPartResult(const testing::TestPartResult& result) override {
        if (result.passed() || result.skipped()) return;
        const char* const file = result.file_name();  // null for an exception that left a test
        std::cerr << "[a rank > 0] " << (file == nullptr ? "" : file) << ':' << result.line_number()
                  << ": " << result.message() << std::endl;
      }
    };
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new Failures);
  }
  const int failed = RUN_ALL_TESTS();
  int finalized = 0;  // by a test of what comes then
  MPI_Finalized(&finalized);
  if (finalized == 0) MPI_Finalize();
  return testing::UnitTest::GetInstance()->test_to_run_count() == 0 ? 1 : failed;
}
