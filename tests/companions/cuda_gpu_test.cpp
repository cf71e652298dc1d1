// SPDX-License-Identifier: Apache-2.0
//
// The companions' CUDA kernels on a GPU, against their ATen twins on the same GPU: called one by
// one, for hundreds of tensors at once, around an optimizer, and in a CUDA graph.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <lawn/companions/mimicnorm/center_rows.h>
#include <lawn/companions/mimicnorm/centered.h>
#include <lawn/companions/pruning/magnitude_masks.h>
#include <lawn/companions/pruning/masked.h>
#include <lawn/companions/pruning/zero_pruned.h>
#include <lawn/companions/unification/admm_penalty.h>
#include <lawn/companions/unification/unify_frozen.h>
#include <lawn/subnetwork/selection.h>

#include "tests/support/gpu.h"
#include "tests/support/tolerance.h"

// Where the program links the CUDA runtime, which LibTorch's CUDA headers call, too.
#if defined(LAWN_CUDA_RUNTIME)
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

namespace {

using lawn::center_rows_;
using lawn::WeightRows;
using lawn::detail::unification::FrozenSigns;
using lawn::detail::unification::PenaltyTerm;
using lawn::testing::tolerance;

constexpr torch::ScalarType kDtypes[] = {torch::kDouble, torch::kFloat, torch::kBFloat16,
                                         torch::kHalf};

double largest(const torch::Tensor& tensor) {
  return tensor.numel() == 0 ? 0 : tensor.abs().max().to(torch::kDouble).item<double>();
}

void expect_near(const torch::Tensor& actual, const torch::Tensor& expected, double bound,
                 const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const auto difference = actual.to(torch::kDouble) - expected.to(torch::kDouble);
  EXPECT_TRUE(torch::isfinite(difference).all().item<bool>()) << what;
  EXPECT_LE(largest(difference), bound) << what << ", shape " << actual.sizes();
}

/// What the base class skips on: no GPU, or no kernels.
class CudaCompanions : public lawn::testing::Gpu {
 protected:
  /// `count` tensors of all kinds, from one element to several chunks.
  static std::vector<torch::Tensor> tensors_of(int64_t count, torch::ScalarType dtype) {
    std::vector<torch::Tensor> tensors;
    const auto options = torch::TensorOptions(device()).dtype(dtype);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t size = i % 100 == 7 ? 100000 : 1 + i / 3 % 8 * 77;
      auto made = torch::randn({1 + i % 5, size}, options) + 0.5;
      if (i % 4 == 3) {  // begins between the places where a load of 16 bytes may
        made = torch::empty({made.numel() + 8}, options)
                   .narrow(0, 1 + i % 7, made.numel())
                   .view(made.sizes())
                   .copy_(made);
      }
      tensors.push_back(made);
    }
    return tensors;
  }

  static std::vector<WeightRows> rows_of(const std::vector<torch::Tensor>& tensors) {
    std::vector<WeightRows> rows;
    for (const auto& tensor : tensors) rows.push_back({tensor});
    return rows;
  }

  static std::vector<torch::Tensor> masks_of(const std::vector<torch::Tensor>& tensors) {
    std::vector<torch::Tensor> masks;
    for (const auto& tensor : tensors) {
      masks.push_back(torch::rand(tensor.sizes(), device()) < 0.5);
    }
    return masks;
  }

  static std::vector<PenaltyTerm> terms_of(const std::vector<torch::Tensor>& tensors) {
    std::vector<PenaltyTerm> terms;
    for (const auto& tensor : tensors) {
      const auto wide = lawn::sphere::accumulation_dtype(tensor);
      const auto like = torch::TensorOptions().dtype(wide);
      terms.push_back({tensor, torch::randn_like(tensor), torch::randn_like(tensor, like),
                       torch::randn_like(tensor, like)});
    }
    return terms;
  }

  /// Of matrices in blocks of several shapes, about half of them frozen.
  static std::vector<FrozenSigns> frozen_of(int64_t count, torch::ScalarType dtype) {
    std::vector<FrozenSigns> frozen;
    for (int64_t i = 0; i < count; ++i) {
      const auto options = torch::TensorOptions(device()).dtype(dtype);
      const auto weight = torch::randn({8 + i % 37, 12 + i % 53}, options);
      const lawn::BlockShape block =
          i % 10 == 3 ? lawn::BlockShape{8, 12} : lawn::BlockShape{1 + i % 4, 4};
      const lawn::detail::companions::BlockGrid grid("test", "weight", weight, block);
      const auto chosen = torch::rand(grid.shape(), device()) < 0.5;
      const auto signs = torch::where(grid.spread(chosen), torch::sign(weight), 0.0);
      frozen.push_back({weight, signs.to(torch::kChar).contiguous(), block});
    }
    return frozen;
  }

  static std::vector<torch::Tensor> clones_of(const std::vector<torch::Tensor>& tensors) {
    std::vector<torch::Tensor> clones;
    for (const auto& tensor : tensors) clones.push_back(tensor.clone());
    return clones;
  }

  /// A copy as far from a place where a load of 16 bytes may begin: the kernels add up both in one
  /// order.
  static torch::Tensor twin_of(const torch::Tensor& tensor) {
    const int64_t offset = tensor.storage_offset();
    return torch::empty({offset + tensor.numel()}, tensor.options())
        .narrow(0, offset, tensor.numel())
        .view(tensor.sizes())
        .copy_(tensor);
  }
};

class CudaCompanionsOfDtype : public CudaCompanions,
                              public ::testing::WithParamInterface<torch::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(All, CudaCompanionsOfDtype, ::testing::ValuesIn(kDtypes),
                         lawn::testing::dtype_name);

TEST_P(CudaCompanionsOfDtype, CentreRowsAsATenDoes) {
  const auto weights = tensors_of(600, GetParam());
  const auto before = clones_of(weights);
  const auto version = weights[0]._version();
  for (const WeightRows& rows : rows_of(weights)) ASSERT_TRUE(lawn::detail::mimicnorm::takes(rows));
  center_rows_(rows_of(weights));
  EXPECT_GT(weights[0]._version(), version) << "autograd has to know";
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto expected = before[i].to(torch::kDouble, /*non_blocking=*/false, /*copy=*/true);
    lawn::detail::mimicnorm::aten::center_rows_({expected});
    expect_near(weights[i], expected, 4 * tolerance(GetParam()).norm * largest(before[i]),
                "weight " + std::to_string(i));
  }
}

TEST_P(CudaCompanionsOfDtype, CentreRowsOfEveryLayoutOfLargeAndOfBadOnes) {
  const auto options = torch::TensorOptions(device()).dtype(GetParam());
  const auto images = torch::randn({24, 16, 3, 3}, options) + 0.5;
  std::vector<torch::Tensor> weights{images.clone(),
                                     images.contiguous(torch::MemoryFormat::ChannelsLast),
                                     torch::randn({50, 70}, options).t(),
                                     torch::randn({70, 3000}, options) + 0.5,
                                     torch::randn({2, 500001}, options) + 0.5,
                                     torch::randn({10, 40}, options).slice(1, 0, 40, 2),
                                     torch::ones({5}, options),
                                     torch::ones({0, 4}, options),
                                     torch::ones({4, 0}, options)};
  weights[0][3].fill_(std::numeric_limits<double>::infinity());
  weights[3][5][7] = std::numeric_limits<double>::quiet_NaN();
  std::vector<torch::Tensor> twins;
  for (const auto& weight : weights) {
    twins.push_back(torch::empty_strided(weight.sizes(), weight.strides(),
                                         weight.options().dtype(torch::kDouble))
                        .copy_(weight));
  }
  center_rows_(rows_of(weights));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    lawn::detail::mimicnorm::aten::center_rows_({twins[i]});
    const double bound = 32 * tolerance(GetParam()).norm;  // of numbers up to 8
    EXPECT_TRUE(torch::allclose(weights[i].to(torch::kDouble), twins[i], 0, bound,
                                /*equal_nan=*/true))
        << i;
  }
}

TEST_P(CudaCompanionsOfDtype, ZeroWhatIsPrunedAndNothingElse) {
  const auto tensors = tensors_of(600, GetParam());
  const auto masks = masks_of(tensors);
  for (const auto& tensor : tensors) {
    tensor.view({-1})[tensor.numel() / 2] = std::numeric_limits<double>::infinity();
  }
  const auto twins = clones_of(tensors);
  const auto version = tensors[0]._version();
  ASSERT_TRUE(lawn::detail::pruning::takes(tensors[0], masks[0]));
  lawn::detail::pruning::zero_pruned_(tensors, masks);
  EXPECT_GT(tensors[0]._version(), version) << "autograd has to know";
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    lawn::detail::pruning::aten::zero_pruned_(twins[i], masks[i]);
    EXPECT_TRUE(torch::equal(tensors[i], twins[i])) << i;
  }
}

TEST_P(CudaCompanionsOfDtype, AddThePenaltyAsATenDoes) {
  const auto terms = terms_of(tensors_of(600, GetParam()));
  std::vector<PenaltyTerm> twins;
  for (const PenaltyTerm& term : terms) {
    ASSERT_TRUE(lawn::detail::unification::takes(term));
    twins.push_back({term.weight.clone(), term.gradient.to(torch::kDouble, false, /*copy=*/true),
                     term.target, term.dual});
  }
  lawn::detail::unification::add_penalty_(terms, 0.3);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto exact = twins[i].gradient + 0.3 * (twins[i].weight.to(torch::kDouble) -
                                                  twins[i].target.to(torch::kDouble) +
                                                  twins[i].dual.to(torch::kDouble));
    const double scale = 4 + largest(exact);
    expect_near(terms[i].gradient, exact, tolerance(GetParam()).norm * scale,
                "term " + std::to_string(i));
    EXPECT_TRUE(torch::equal(terms[i].weight, twins[i].weight)) << i;
  }
}

TEST_P(CudaCompanionsOfDtype, UnifyFrozenBlocksAsATenDoes) {
  const auto all = frozen_of(600, GetParam());
  std::vector<torch::Tensor> twins;
  for (const FrozenSigns& frozen : all) {
    ASSERT_TRUE(lawn::detail::unification::takes(frozen));
    twins.push_back(frozen.weight.clone());
  }
  const auto version = all[0].weight._version();
  lawn::detail::unification::unify_frozen_(all);
  EXPECT_GT(all[0].weight._version(), version) << "autograd has to know";
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& [weight, signs, block] = all[i];
    lawn::detail::unification::aten::unify_frozen_(twins[i], signs, block);
    expect_near(weight, twins[i], tolerance(GetParam()).norm * largest(twins[i]),
                "weight " + std::to_string(i));
  }
}

TEST_F(CudaCompanions, MasksAreBesideAMovedModelBeforeItsFirstStep) {
  torch::nn::Linear model(8, 6);
  const auto weight = model->weight;
  const auto selection = lawn::select({weight});
  using Masked = lawn::Masked<torch::optim::SGD>;
  lawn::Centered<Masked> optimizer(
      Masked(torch::optim::SGD(model->parameters(), 0.1), lawn::magnitude_masks(selection)),
      selection);
  const auto keep = optimizer.masks()[0].keep;
  model->to(device());
  EXPECT_TRUE(torch::equal(optimizer.masks()[0].keep, keep.to(device())));
  EXPECT_TRUE(torch::equal(optimizer.pruned_of(weight), keep.logical_not().to(device())));
  optimizer.center();
  EXPECT_EQ(weight.masked_select(keep.logical_not().to(device())).count_nonzero().item<int64_t>(),
            0);
}

#if defined(LAWN_CUDA_RUNTIME)

/// The functions, one after the other.
struct Work {
  std::vector<torch::Tensor> tensors;
  std::vector<torch::Tensor> start;
  std::vector<torch::Tensor> masks;
  std::vector<PenaltyTerm> terms;
  std::vector<FrozenSigns> frozen;

  void operator()() const {
    std::vector<WeightRows> rows;
    for (const auto& tensor : tensors) rows.push_back({tensor});
    center_rows_(rows);
    lawn::detail::pruning::zero_pruned_(tensors, masks);
    lawn::detail::unification::add_penalty_(terms, 0.5);
    lawn::detail::unification::unify_frozen_(frozen);
  }

  /// The same from the same start, so that replays compare.
  void again() const {
    for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].copy_(start[i]);
    (*this)();
  }
};

TEST_F(CudaCompanions, ReplayInAGraphWhatTheyDoEagerly) {
  for (const auto dtype : kDtypes) {
    SCOPED_TRACE(c10::toString(dtype));
    Work captured;
    captured.tensors = tensors_of(50, dtype);
    captured.start = clones_of(captured.tensors);
    captured.masks = masks_of(captured.tensors);
    captured.terms = terms_of(captured.tensors);
    for (const auto& tensor : captured.tensors) {
      // Of what centring and masks have left, so that the order tells.
      captured.frozen.push_back({tensor, torch::ones_like(tensor, torch::kChar), {1, 1}});
    }
    Work eager = captured;
    for (std::size_t i = 0; i < eager.tensors.size(); ++i) {
      eager.tensors[i] = twin_of(captured.tensors[i]);
      eager.terms[i].weight = eager.tensors[i];
      eager.frozen[i].weight = eager.tensors[i];
      eager.terms[i].gradient = captured.terms[i].gradient.clone();
    }
    const auto stream = c10::cuda::getStreamFromPool();
    torch::cuda::synchronize();
    const c10::cuda::CUDAStreamGuard guard(stream);
    captured.again();
    eager.again();
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    captured.again();
    graph.capture_end();
    for (int i = 0; i < 3; ++i) {
      graph.replay();
      eager.again();
    }
    torch::cuda::synchronize();
    for (std::size_t i = 0; i < eager.tensors.size(); ++i) {
      EXPECT_TRUE(torch::equal(captured.tensors[i], eager.tensors[i])) << i;
      EXPECT_TRUE(torch::equal(captured.terms[i].gradient, eager.terms[i].gradient)) << i;
    }
  }
}

TEST_F(CudaCompanions, LaunchFiveKernelsForHundredsOfTensors) {
  Work work;
  work.tensors = tensors_of(600, torch::kFloat);
  work.masks = masks_of(work.tensors);
  work.terms = terms_of(work.tensors);
  work.frozen = frozen_of(600, torch::kFloat);
  const auto stream = c10::cuda::getStreamFromPool();
  torch::cuda::synchronize();
  const c10::cuda::CUDAStreamGuard guard(stream);
  work();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  work();
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long id = 0;
  cudaGraph_t nodes_of = nullptr;
  std::size_t nodes = 0;
  const auto asked = cudaStreamGetCaptureInfo(stream.stream(), &status, &id, &nodes_of);
  const auto counted = cudaGraphGetNodes(nodes_of, nullptr, &nodes);
  graph.capture_end();  // before anything that may leave this function
  ASSERT_EQ(asked, cudaSuccess);
  ASSERT_EQ(counted, cudaSuccess);
  EXPECT_EQ(nodes, 5U) << "two for centring, one each for masks, penalty and unification";
}

#endif

}  // namespace
