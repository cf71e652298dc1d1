// SPDX-License-Identifier: Apache-2.0
//
// What comes after MPI_Finalize: a program of its own, since there is nothing after it.
#include <lawn/distributed/mpi.h>

#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/support/refusal.h"
#include "tests/support/warnings.h"

namespace {

using namespace lawn;

using lawn::testing::expect_refusal;

TEST(MpiFinalized, EveryUseOfAGroupIsRefusedByNameAndTheProgramGoesOn) {
  auto used = std::make_unique<MpiGroup>(), unused = std::make_unique<MpiGroup>();
  const auto tensor = torch::ones({3});
  used->sum_(tensor);
  EXPECT_EQ(tensor[0].item<float>(), static_cast<float>(used->size()));
  MPI_Finalize();
  const std::string message =
      "lawn::MpiGroup: expected an MPI that is not finalized, got a call after "
      "MPI_Finalize; construct the group, and let it end, before MPI_Finalize";
  expect_refusal([&] { used->sum_(tensor); }, message);
  expect_refusal([&] { used->broadcast_(tensor, 0); }, message);
  expect_refusal([&] { used->gather("text"); }, message);
  expect_refusal([] { MpiGroup(); }, message);
  expect_refusal([] { MpiSession(); }, "lawn::MpiSession: expected an MPI that is not finalized");
  used->fail("this and that");
  const lawn::testing::CapturedWarnings warnings;
  used.reset();
  unused.reset();
  EXPECT_NE(warnings.text().find(message), std::string::npos) << warnings.text();
}

}  // namespace
