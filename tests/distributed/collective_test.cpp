// SPDX-License-Identifier: Apache-2.0
#include <lawn/distributed/agreement.h>
#include <lawn/distributed/mpi.h>

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/distributed/ranks.h"
#include "tests/support/refusal.h"

namespace {

using namespace lawn;

using lawn::testing::expect_refusal;
using lawn::testing::refusal;

class MpiCollective : public lawn::testing::Ranks {};

TEST_F(MpiCollective, AddsEveryDtype) {
  for (const auto dtype : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kByte, at::kChar,
                           at::kShort, at::kInt, at::kLong}) {
    const auto tensor = torch::full({3, 2}, rank() + 1, dtype);
    ranks.sum_(tensor);
    const auto expected = torch::full({3, 2}, size() * (size() + 1) / 2, dtype);
    EXPECT_TRUE(torch::equal(tensor, expected)) << dtype << ": " << tensor;
  }
  const auto complex = torch::full({2}, c10::complex<float>(1, static_cast<float>(rank())));
  ranks.sum_(complex);
  EXPECT_EQ(complex[0].item<c10::complex<float>>().real(), size());
  EXPECT_EQ(complex[1].item<c10::complex<float>>().imag(), size() * (size() - 1) / 2);
}

TEST_F(MpiCollective, AddsHalfInFloat) {
  // 2048 + 1 is 2048 in half: one by one, the small ones would be lost.
  const auto tensor = torch::full({1}, rank() == 0 ? 2048 : 1, at::kHalf);
  ranks.sum_(tensor);
  EXPECT_EQ(tensor.item<float>(), torch::full({1}, 2048 + size() - 1, at::kHalf).item<float>());
}

TEST_F(MpiCollective, AddsNonContiguousEmptyAndScalarTensors) {
  const auto base = torch::arange(12, torch::kFloat).view({3, 4});
  const auto transposed = base.clone().t();
  ranks.sum_(transposed);
  EXPECT_TRUE(torch::equal(transposed, base.t() * size()));
  ranks.sum_(torch::empty({0, 3}));
  const auto scalar = torch::tensor(2.0);
  ranks.sum_(scalar);
  EXPECT_EQ(scalar.item<float>(), 2.0F * static_cast<float>(size()));
}

TEST_F(MpiCollective, AddsWithTheSameBitsOnEveryRank) {
  for (const int64_t length : {1, 7, 1000, 100000, 1000003}) {
    torch::manual_seed(rank());
    const auto tensor = torch::randn({length}) * torch::pow(10, torch::randn({length}));
    ranks.sum_(tensor);
    expect_same_everywhere(tensor, std::to_string(length) + " elements");
  }
}

TEST_F(MpiCollective, LeavesAutogradOutOfIt) {
  const auto weight = torch::ones({2}, torch::requires_grad());
  ranks.sum_(weight);
  EXPECT_TRUE(weight.is_leaf());
  EXPECT_EQ(weight[0].item<float>(), static_cast<float>(size()));
}

TEST_F(MpiCollective, BroadcastsFromEachRoot) {
  for (int root = 0; root < size(); ++root) {
    for (const auto dtype : {at::kFloat, at::kHalf, at::kBool, at::kLong, at::kComplexFloat}) {
      const auto tensor = torch::full({2, 3}, rank() == root ? 1 : 0, dtype).t();
      ranks.broadcast_(tensor, root);
      EXPECT_TRUE(torch::equal(tensor, torch::ones({3, 2}, dtype))) << dtype;
    }
  }
  expect_refusal([&] { ranks.broadcast_(torch::ones({1}), size()); }, "expected a root in [0, ");
}

TEST_F(MpiCollective, GathersTextsOfAnyLength) {
  const auto texts = ranks.gather(std::string(static_cast<std::size_t>(rank()) * 5, 'x'));
  ASSERT_EQ(static_cast<int>(texts.size()), size());
  for (std::size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(texts[i], std::string(i * 5, 'x'));
}

TEST_F(MpiCollective, RefusesWhatMpiCannotAdd) {
  expect_refusal([&] { ranks.sum_(torch::ones({2}).to_sparse()); }, "expected a strided tensor");
  expect_refusal([&] { ranks.sum_(torch::ones({2}, torch::kFloat8_e4m3fn)); },
                 "expected a dtype that MPI adds");
}

TEST_F(MpiCollective, ChecksItsOptions) {
  expect_refusal([] { MpiGroup(MpiOptions().timeout(std::chrono::milliseconds(0))); },
                 "lawn::MpiGroup: timeout must be > 0 ms, got 0 ms");
  expect_refusal([] { MpiGroup(MpiOptions().answer_time(std::chrono::milliseconds(-1))); },
                 "answer_time must be > 0 ms, got -1 ms");
}

TEST_F(MpiCollective, AgreesWhereTextsAreTheSame) {
  EXPECT_NO_THROW(check_agreement(ranks, "here", "options", "lr 1\nbatch 2"));
}

TEST_F(MpiCollective, NamesTheRankThatDiffersAndTheLine) {
  if (size() < 3) GTEST_SKIP() << "a majority takes three ranks";
  const auto message = refusal([&] {
    check_agreement(ranks, "here", "options", rank() == 1 ? "lr 1\nbatch 3" : "lr 1\nbatch 2");
  });
  EXPECT_NE(message.find("here: expected the same options on every rank"), std::string::npos)
      << message;
  EXPECT_NE(message.find("; rank 1: expected 'batch 2', got 'batch 3' in line 2"),
            std::string::npos)
      << message;
}

TEST_F(MpiCollective, SaysWhatIsMissingAtTheEndOfAText) {
  if (size() < 2) GTEST_SKIP() << "it takes two ranks to differ";
  const int last = size() - 1;
  expect_refusal([&] { check_agreement(ranks, "here", "model", rank() == last ? "a" : "a\nb"); },
                 "rank " + std::to_string(last) + ": expected 'b', got no more in line 2");
}

}  // namespace
