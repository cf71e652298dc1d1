// SPDX-License-Identifier: Apache-2.0
//
// The emulation of CUDA that runs the kernels in tests: that it computes what CUDA does, and that
// it sees the faults that it is there for.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <lawn/sphere/cuda/packs.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

namespace {

using cuda_emulation::Machine;
using cuda_emulation::Order;
using lawn::sphere::cuda::Extent;
using lawn::sphere::cuda::kLanes;
using lawn::sphere::cuda::kThreads;
using lawn::sphere::cuda::kWarps;
using lawn::sphere::cuda::Sums;
using lawn::sphere::cuda::Team;

constexpr Order kOrders[] = {Order::kForward, Order::kBackward, Order::kShuffled};

class Emulation : public ::testing::Test {
 protected:
  void SetUp() override { reset(); }
  void TearDown() override { reset(); }

  static void reset() {
    Machine::get().thread_order = Order::kForward;
    Machine::get().block_order = Order::kForward;
  }

  template <class... P>
  static void launch(void (*kernel)(P...), unsigned blocks, std::common_type_t<P>... arguments) {
    void* pointers[] = {&arguments..., nullptr};
    ASSERT_EQ(cudaLaunchKernel(kernel, dim3(blocks), dim3(kThreads), pointers, 0, nullptr),
              cudaSuccess);
  }

  /// What the launch says of a fault that it sees.
  static std::string refusal(const std::function<void()>& faulty) {
    try {
      faulty();
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "no refusal";
  }
};

/// A sum over the block as `block_sum` takes it, whose barrier can be left out.
template <bool kBarrier>
void planted_sum(const float* values, float* sums) {
  __shared__ float of_warps[kWarps];
  const int thread = static_cast<int>(threadIdx.x);
  const float* of_block = values + blockIdx.x * kThreads;
  Sums<float, 1> sum;
  sum.value[0] = of_block[thread];
  sum = lawn::sphere::cuda::warp_sum(sum);
  if (thread % kLanes == 0) of_warps[thread / kLanes] = sum.value[0];
  if (kBarrier) __syncthreads();
  sum.value[0] = thread % kLanes < kWarps ? of_warps[thread % kLanes] : 0.0F;
  sums[blockIdx.x * kThreads + threadIdx.x] = lawn::sphere::cuda::warp_sum(sum).value[0];
}

class PlantedBarrier : public Emulation {
 protected:
  static constexpr unsigned kBlocks = 3;

  /// Threads that got another sum than their block's.
  static int wrong(void (*kernel)(const float*, float*)) {
    std::vector<float> values(kBlocks * kThreads, 1);
    values[0] = 2;
    std::vector<float> sums(kBlocks * kThreads);
    launch(kernel, kBlocks, values.data(), sums.data());
    int count = 0;
    for (unsigned i = 0; i < sums.size(); ++i) {
      count += sums[i] != static_cast<float>(kThreads + (i < kThreads ? 1 : 0));
    }
    return count;
  }
};

TEST_F(PlantedBarrier, IsSeenWhenItIsMissingInEveryOrderOfThreads) {
  for (const Order order : kOrders) {
    Machine::get().thread_order = order;
    EXPECT_EQ(wrong(planted_sum<true>), 0);
    EXPECT_GT(wrong(planted_sum<false>), 0);
  }
}

/// Doubles a run with the loops of the kernels. The last element can be forgotten, and the
/// element after it taken along.
template <int kMore>
void planted_double(float* values, int numel) {
  using lawn::sphere::cuda::Pack;
  constexpr int kWidth = lawn::sphere::cuda::kPackWidth<float>;
  const int thread = static_cast<int>(threadIdx.x);
  const Team team{thread % kLanes, thread / kLanes, kWarps};
  lawn::sphere::cuda::for_each_pack<kWidth>(
      lawn::sphere::cuda::extent_of<kWidth>(numel + kMore, values), team,
      [&](auto width, int i) { return lawn::sphere::cuda::load<width.value>(values + i); },
      [&](auto width, int, int i, auto& pack) {
        for (int k = 0; k < width.value; ++k) pack.set(k, 2 * pack.get(k));
        lawn::sphere::cuda::store<width.value>(values + i, pack);
      });
}

class PlantedOffByOne : public Emulation {
 protected:
  /// Whether the run of `numel` ones, and nothing beside it, was doubled.
  static bool right(void (*kernel)(float*, int), int numel, int skipped) {
    constexpr int kBeyond = 8;
    std::vector<float> values(static_cast<std::size_t>(skipped + numel + kBeyond), 1);
    launch(kernel, 1, values.data() + skipped, numel);
    bool all = true;
    for (int i = 0; i < static_cast<int>(values.size()); ++i) {
      const bool inside = i >= skipped && i < skipped + numel;
      all = all && values[static_cast<std::size_t>(i)] == (inside ? 2.0F : 1.0F);
    }
    return all;
  }
};

TEST_F(PlantedOffByOne, IsSeenAtEverySizeAndAlignment) {
  for (const int numel : {1, 2, 3, 4, 5, 31, 32, 33, 2047, 2048, 2049, 8191, 8192, 8193}) {
    for (const int skipped : {0, 1, 2, 3}) {
      EXPECT_TRUE(right(planted_double<0>, numel, skipped)) << numel << ", " << skipped;
      EXPECT_FALSE(right(planted_double<-1>, numel, skipped)) << numel << ", " << skipped;
      EXPECT_FALSE(right(planted_double<1>, numel, skipped)) << numel << ", " << skipped;
    }
  }
}

TEST_F(Emulation, SeesAReadBeyondTheEndUnderAddressSanitizer) {
#ifdef LAWN_ADDRESS_SANITIZER
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  constexpr int kNumel = 1001;
  const std::unique_ptr<float[]> values(new float[kNumel]());
  launch(planted_double<0>, 1, values.get(), kNumel);
  EXPECT_DEATH(launch(planted_double<1>, 1, values.get(), kNumel), "heap-buffer-overflow");
#else
  GTEST_SKIP() << "built without AddressSanitizer";
#endif
}

void one_warp_returns() {
  if (threadIdx.x / kLanes == 1) return;
  __syncthreads();
}

void two_barriers() {
  if (threadIdx.x / kLanes == 1) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

void half_a_warp_shuffles(float* into) {
  if (threadIdx.x % 2 == 0) return;
  into[threadIdx.x] = __shfl_xor_sync(0xffffffffU, 1.0F, 1);
}

void two_distances(float* into) {
  const int distance = threadIdx.x % 2 == 0 ? 1 : 2;
  into[threadIdx.x] = __shfl_xor_sync(0xffffffffU, 1.0F, distance);
}

TEST_F(Emulation, RefusesBarriersAndShufflesThatNotAllThreadsReach) {
  std::vector<float> values(kThreads);
  for (const Order order : kOrders) {
    Machine::get().thread_order = order;
    EXPECT_NE(refusal([] {
                launch(one_warp_returns, 1);
              }).find("480 threads wait at a barrier, 0 at a shuffle, 32 have returned"),
              std::string::npos);
    EXPECT_NE(refusal([] { launch(two_barriers, 1); }).find("different barriers"),
              std::string::npos);
    EXPECT_NE(refusal([&] {
                launch(half_a_warp_shuffles, 1, values.data());
              }).find("256 at a shuffle, 256 have returned"),
              std::string::npos);
    EXPECT_NE(refusal([&] { launch(two_distances, 1, values.data()); }).find("different places"),
              std::string::npos);
  }
}

TEST_F(Emulation, GoesOnAfterARefusal) {
  std::vector<float> values(kThreads, 1);
  std::vector<float> sums(kThreads);
  EXPECT_NE(refusal([] { launch(one_warp_returns, 1); }), "no refusal");
  launch(planted_sum<true>, 1, values.data(), sums.data());
  EXPECT_EQ(sums.back(), static_cast<float>(kThreads));
}

void read_shared(float* into) {
  __shared__ float kept;
  if (threadIdx.x == 0) into[blockIdx.x] = kept;
  __syncthreads();
  kept = 7;
}

TEST_F(Emulation, SpoilsSharedMemoryBetweenBlocks) {
  std::vector<float> found(2);
  launch(read_shared, 2, found.data());
  for (const float value : found) EXPECT_TRUE(std::isnan(value));
}

void note_turn(std::vector<unsigned>* turns) {
  turns->push_back(blockIdx.x * kThreads + threadIdx.x);
}

TEST_F(Emulation, RunsEachThreadOnceInTheChosenOrder) {
  std::vector<std::vector<unsigned>> all;
  for (const Order order : kOrders) {
    Machine::get().thread_order = order;
    Machine::get().block_order = order;
    std::vector<unsigned> turns;
    launch(note_turn, 4, &turns);
    all.push_back(turns);
  }
  EXPECT_EQ(all[0].front(), 0U);
  EXPECT_EQ(all[1].front(), 4 * kThreads - 1U);
  for (auto& turns : all) {
    EXPECT_NE(&turns == &all[0], !std::is_sorted(turns.begin(), turns.end()));
    std::sort(turns.begin(), turns.end());
    EXPECT_EQ(turns, all[0]);
  }
  EXPECT_EQ(all[0].size(), 4U * kThreads);
}

void xor_lanes(std::vector<int>* into) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  for (int distance = 1; distance < kLanes; distance *= 2) {
    const int other = __shfl_xor_sync(0xffffffffU, lane, distance);
    if ((lane ^ distance) != other) into->push_back(lane);
  }
}

TEST_F(Emulation, ShufflesByXor) {
  for (const Order order : kOrders) {
    Machine::get().thread_order = order;
    std::vector<int> wrong;
    launch(xor_lanes, 2, &wrong);
    EXPECT_TRUE(wrong.empty());
  }
}

}  // namespace
