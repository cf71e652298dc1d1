// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <lawn/distributed/mpi.h>

/// Every rank runs every test; mpirun fails if one of them does.
int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const lawn::MpiSession session;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank != 0) {
    // One rank tells what passes; what fails is printed by whom it happens to.
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    struct Failures : testing::EmptyTestEventListener {
      void OnTestPartResult(const testing::TestPartResult& result) override {
        if (result.passed() || result.skipped()) return;
        std::cerr << "[a rank > 0] " << result.file_name() << ':' << result.line_number() << ": "
                  << result.message() << std::endl;
      }
    };
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new Failures);
  }
  const int failed = RUN_ALL_TESTS();
  return testing::UnitTest::GetInstance()->test_to_run_count() == 0 ? 1 : failed;
}
