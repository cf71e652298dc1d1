// SPDX-License-Identifier: Apache-2.0
//
// The companions' CUDA kernels, run on the host by the emulation in tests/support/cuda_emulation,
// against their ATen twins in float64; and the host's half of their calls.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <lawn/companions/mimicnorm/center_rows.h>
#include <lawn/companions/pruning/zero_pruned.h>
#include <lawn/companions/unification/admm_penalty.h>
#include <lawn/companions/unification/unify_frozen.h>
#include <lawn/sphere/cuda/by_device.h>
#include <lawn/sphere/cuda/call.h>
#include <lawn/companions/cuda/launchers.cuh>

#include "tests/support/cuda_emulation/heap_tensor.h"
#include "tests/support/cuda_emulation/kernels.cuh"
#include "tests/support/fake_gpus.h"
#include "tests/support/refusal.h"
#include "tests/support/warnings.h"

namespace {

using lawn::BlockShape;
using lawn::detail::companions::FlatPenalty;
using lawn::detail::companions::FlatPruned;
using lawn::detail::unification::FrozenSigns;
using lawn::detail::unification::PenaltyTerm;
using lawn::testing::expect_refusal;
using lawn::testing::spoiled_in_front;

constexpr torch::ScalarType kDtypes[] = {torch::kDouble, torch::kFloat, torch::kBFloat16,
                                         torch::kHalf};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kManyWideEntries = lawn::sphere::cuda::kManyWideEntries;

/// Numbers of elements around every border of the plan.
const std::vector<int64_t> kSizes{1,
                                  2,
                                  31,
                                  32,
                                  33,
                                  1000,
                                  kChunk - 1,
                                  kChunk,
                                  kChunk + 1,
                                  20001,
                                  kBlockSphere - 1,
                                  kBlockSphere,
                                  kBlockSphere + 1,
                                  5 * kChunk,
                                  5 * kChunk + 1};

int64_t random(int64_t end) { return torch::randint(end, {}).item<int64_t>(); }

/// Whether two tensors of one dtype and shape hold the same bits; NaN has some too.
bool same_bits(const torch::Tensor& a, const torch::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         (a.numel() == 0 ||
          std::memcmp(a.data_ptr(), b.data_ptr(), a.numel() * a.element_size()) == 0);
}

/// The sum of what launches do.
template <class Work>
int launches_of(const Work& work) {
  const int before = Machine::get().launches;
  const char* error = work();
  EXPECT_EQ(error, nullptr) << error;
  return Machine::get().launches - before;
}

struct Pruned {
  torch::Tensor tensor;
  torch::Tensor pruned;
};

/// Elements in front of each array of a term, which misalign it.
struct Skips {
  int64_t weight = 0;
  int64_t gradient = 0;
  int64_t target = 0;
  int64_t dual = 0;
};

class CompanionKernels : public Kernels {
 protected:
  // --- Centring ---

  /// Rows of which each has a mean of its own, and elements at borders that move it.
  static Layer make_rows(torch::ScalarType type, int64_t rows, int64_t numel, int64_t skipped = 0) {
    auto layer = make_layer({type, type}, rows, numel, {skipped, 0});
    const auto means = torch::rand({rows, 1}, torch::kDouble) + 0.5;
    const auto values = layer.weight.to(torch::kDouble).view({rows, numel}) + means;
    return {heap_tensor(values.to(type), skipped), {}, {}, 0, 0};
  }

  static std::vector<Flat> flat_rows(const std::vector<Layer>& layers) {
    std::vector<Flat> flats;
    for (const Layer& layer : layers) {
      EXPECT_TRUE(lawn::sphere::is_flat(layer));
      flats.push_back(lawn::sphere::flatten(layer));
    }
    return flats;
  }

  /// @return how many launches it took
  static int center(const std::vector<Layer>& layers, const Limits& limits = {}) {
    const auto flats = flat_rows(layers);
    const auto count = static_cast<int64_t>(flats.size());
    const auto bytes =
        static_cast<std::size_t>(lawn::sphere::cuda::workspace_bytes(flats.data(), count, limits));
    const std::unique_ptr<char[]> workspace(new char[bytes]);
    std::memset(workspace.get(), 0xff, bytes);
    return launches_of([&] {
      return lawn::detail::companions::cuda::center_rows(flats.data(), count, workspace.get(),
                                                         nullptr, limits);
    });
  }

  static int center_and_compare(const std::vector<Layer>& layers, const Limits& limits = {}) {
    std::vector<torch::Tensor> twins;
    for (const Layer& layer : layers) {
      twins.push_back(layer.weight.to(torch::kDouble, /*non_blocking=*/false, /*copy=*/true));
    }
    const int launches = center(layers, limits);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto& weight = layers[i].weight;
      const auto before = twins[i].clone();
      lawn::detail::mimicnorm::aten::center_rows_({twins[i], 0});
      expect_near(weight, twins[i], tolerance(weight.scalar_type()).norm, before,
                  "layer " + std::to_string(i) + " of " + std::to_string(weight.numel()) + ' ' +
                      c10::toString(weight.scalar_type()));
    }
    return launches;
  }

  // --- Zeroing ---

  static Pruned make_pruned(torch::ScalarType type, int64_t numel, Skipped skipped = {}) {
    auto values = torch::randn({numel}, torch::kDouble);
    auto pruned = torch::rand({numel}) < 0.5;
    // NaN and infinity, kept and pruned; bits of a zero that are not all 0.
    for (const double special : {kNaN, kInfinity, -0.0}) {
      for (const bool gone : {false, true}) {
        const auto at = random(numel);
        values[at] = special;
        pruned[at] = gone;
      }
    }
    return {heap_tensor(values.to(type), skipped.weight), heap_tensor(pruned, skipped.gradient)};
  }

  static std::vector<FlatPruned> runs_of(const std::vector<Pruned>& all) {
    std::vector<FlatPruned> runs;
    for (const auto& [tensor, pruned] : all) {
      runs.push_back({lawn::sphere::flat_tensor(tensor), tensor.data_ptr(),
                      static_cast<const std::uint8_t*>(pruned.const_data_ptr())});
    }
    return runs;
  }

  static int zero_and_compare(const std::vector<Pruned>& all, const Limits& limits = {}) {
    std::vector<torch::Tensor> twins;
    std::vector<torch::Tensor> masks;
    for (const auto& [tensor, pruned] : all) {
      twins.push_back(tensor.clone());
      masks.push_back(pruned.clone());
      lawn::detail::pruning::aten::zero_pruned_(twins.back(), pruned);
    }
    const auto runs = runs_of(all);
    const int launches = launches_of([&] {
      return lawn::detail::companions::cuda::zero_pruned(
          runs.data(), static_cast<int64_t>(runs.size()), nullptr, limits);
    });
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_TRUE(same_bits(all[i].tensor, twins[i]))
          << "tensor " << i << " of " << twins[i].numel();
      EXPECT_TRUE(same_bits(all[i].pruned, masks[i])) << "mask " << i;
    }
    return launches;
  }

  // --- The penalty ---

  static PenaltyTerm make_term(torch::ScalarType type, int64_t numel, Skips skips = {}) {
    const auto wide = type == torch::kDouble ? torch::kDouble : torch::kFloat;
    const auto values = [&](torch::ScalarType dtype, int64_t skipped) {
      return heap_tensor(torch::randn({numel}, torch::kDouble).to(dtype), skipped);
    };
    return {values(type, skips.weight), values(type, skips.gradient), values(wide, skips.target),
            values(wide, skips.dual)};
  }

  static std::vector<FlatPenalty> runs_of(const std::vector<PenaltyTerm>& terms) {
    std::vector<FlatPenalty> runs;
    for (const PenaltyTerm& term : terms) {
      runs.push_back({lawn::sphere::flat_tensor(term.weight), term.weight.const_data_ptr(),
                      term.gradient.data_ptr(), term.target.const_data_ptr(),
                      term.dual.const_data_ptr()});
    }
    return runs;
  }

  static int add_and_compare(const std::vector<PenaltyTerm>& terms, double rho,
                             const Limits& limits = {}) {
    std::vector<PenaltyTerm> twins;
    const auto wide = [](const torch::Tensor& tensor) {
      return tensor.to(torch::kDouble, /*non_blocking=*/false, /*copy=*/true);
    };
    for (const PenaltyTerm& term : terms) {
      twins.push_back({wide(term.weight), wide(term.gradient), wide(term.target), wide(term.dual)});
    }
    const auto runs = runs_of(terms);
    const int launches = launches_of([&] {
      return lawn::detail::companions::cuda::add_penalty(
          runs.data(), static_cast<int64_t>(runs.size()), rho, nullptr, limits);
    });
    for (std::size_t i = 0; i < terms.size(); ++i) {
      const auto type = terms[i].weight.scalar_type();
      const auto what = "term " + std::to_string(i) + " of " +
                        std::to_string(terms[i].weight.numel()) + ' ' + c10::toString(type);
      const auto unchanged = [&](const torch::Tensor& actual, const torch::Tensor& before) {
        EXPECT_TRUE(torch::equal(actual.to(torch::kDouble), before)) << what;
      };
      unchanged(terms[i].weight, twins[i].weight);
      unchanged(terms[i].target, twins[i].target);
      unchanged(terms[i].dual, twins[i].dual);
      lawn::detail::unification::aten::add_penalty_(twins[i], rho);
      expect_near(terms[i].gradient, twins[i].gradient, tolerance(type).norm,
                  twins[i].gradient.abs().clamp_min(2), what);  // of numbers of that size
    }
    return launches;
  }

  // --- Unification ---

  /// A weight of which some blocks are frozen, with signs that are not all its own; its matrix is
  /// rows x columns.
  static FrozenSigns make_frozen(torch::ScalarType type, int64_t rows, int64_t columns,
                                 BlockShape block, Skipped skipped = {}) {
    const auto weight = torch::randn({rows, columns}, torch::kDouble) + 0.25;
    const lawn::detail::companions::BlockGrid grid("test", "weight", weight, block);
    const auto chosen = torch::rand(grid.shape()) < 0.7;
    const auto signs = torch::where(weight < 0.1, -1.0, 1.0);
    return {heap_tensor(weight.to(type), skipped.weight),
            heap_tensor(torch::where(grid.spread(chosen), signs, 0.0).to(torch::kChar),
                        skipped.gradient),
            block};
  }

  static std::vector<lawn::detail::companions::FlatUnified> runs_of(
      const std::vector<FrozenSigns>& all) {
    std::vector<lawn::detail::companions::FlatUnified> runs;
    for (const FrozenSigns& frozen : all)
      runs.push_back(lawn::detail::unification::cuda::flat_unified(frozen));
    return runs;
  }

  static int unify_and_compare(const std::vector<FrozenSigns>& all, const Limits& limits = {}) {
    std::vector<torch::Tensor> twins;
    for (const auto& [weight, signs, block] : all) {
      twins.push_back(weight.clone());
      lawn::detail::unification::aten::unify_frozen_(twins.back(), signs, block);
    }
    const auto runs = runs_of(all);
    const auto unify = [&] {
      return lawn::detail::companions::cuda::unify_frozen(
          runs.data(), static_cast<int64_t>(runs.size()), nullptr, limits);
    };
    const int launches = launches_of(unify);
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto& [weight, signs, block] = all[i];
      const auto what = "weight " + std::to_string(i) + ' ' + c10::toString(weight.scalar_type());
      const auto once = weight.clone();
      expect_near(once, twins[i].to(torch::kDouble), tolerance(weight.scalar_type()).norm,
                  twins[i].to(torch::kDouble).nan_to_num(), what);
      const auto kept = signs == 0;
      EXPECT_TRUE(torch::equal(once.masked_select(kept), twins[i].masked_select(kept))) << what;
    }
    return launches;
  }

  /// With borders between the workers where small tensors cross them.
  static Limits small_limits(int64_t seed) {
    Limits limits;
    limits.warp_sphere = 16 + 50 * seed;
    limits.block_sphere = 64 + 64 * (seed % 3);
    limits.many_spheres = 3 + seed;
    limits.chunk = 64;
    limits.max_chunks = 1 + seed % 5;
    return limits;
  }
};

class CompanionKernelsOfDtype : public CompanionKernels,
                                public ::testing::WithParamInterface<torch::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Dtypes, CompanionKernelsOfDtype, ::testing::ValuesIn(kDtypes),
                         lawn::testing::dtype_name);

TEST_P(CompanionKernelsOfDtype, CentreRowsOfEverySize) {
  std::vector<Layer> layers;
  for (const int64_t numel : kSizes) layers.push_back(make_rows(GetParam(), 1, numel));
  for (const auto& [rows, numel] : std::vector<std::pair<int64_t, int64_t>>{{300, 64},
                                                                            {17, 1},
                                                                            {16, 33},
                                                                            {5, 1024},
                                                                            {5, 1025},
                                                                            {65, 2000},
                                                                            {2, kBlockSphere},
                                                                            {3, kBlockSphere + 1},
                                                                            {2, 5 * kChunk + 1}}) {
    layers.push_back(make_rows(GetParam(), rows, numel));
    layers.push_back(make_rows(GetParam(), rows, numel, 1));
  }
  EXPECT_EQ(center_and_compare(layers), 2);
}

TEST_P(CompanionKernelsOfDtype, CentreRowsAtEveryAlignment) {
  for (const int64_t numel : {int64_t{1}, int64_t{7}, int64_t{1001}, kBlockSphere + 3}) {
    std::vector<Layer> layers;
    for (int64_t skipped = 0; skipped < 8; ++skipped) {
      layers.push_back(make_rows(GetParam(), 2, numel, skipped));
    }
    center_and_compare(layers);
    for (int64_t skipped = 0; skipped < 8; ++skipped) {
      EXPECT_TRUE(spoiled_in_front(layers[skipped].weight, skipped));
    }
  }
}

TEST_P(CompanionKernelsOfDtype, LeaveARowWithBadNumbersAsItIsAndCentreTheOthers) {
  for (const int64_t numel : {int64_t{40}, int64_t{2000}, kBlockSphere + 1}) {
    for (const double bad : {kInfinity, -kInfinity, kNaN}) {
      const auto layer = make_rows(GetParam(), 3, numel);
      layer.weight[1][numel - 3] = bad;
      const auto before = layer.weight.clone();
      center({layer});
      EXPECT_TRUE(same_bits(layer.weight[1], before[1])) << numel << ", " << bad;
      for (const int64_t row : {0, 2}) {
        const auto mean = layer.weight[row].to(torch::kDouble).mean().abs().item<double>();
        EXPECT_LE(mean, 4 * tolerance(GetParam()).norm) << numel;
        EXPECT_FALSE(torch::equal(layer.weight[row], before[row]));
      }
    }
  }
}

TEST_P(CompanionKernelsOfDtype, MakeNothingOfARowOfOneNumberHoweverLarge) {
  // In half precision, sums of these are infinite.
  for (const int64_t numel : {int64_t{1}, int64_t{40}, int64_t{2048}, 2 * kBlockSphere}) {
    const auto layer = make_rows(GetParam(), 2, numel);
    layer.weight.fill_(61440);
    center({layer});
    EXPECT_EQ(layer.weight.abs().max().item<double>(), 0) << numel;
  }
}

TEST_P(CompanionKernelsOfDtype, ZeroWhatIsPrunedAtEverySize) {
  std::vector<Pruned> all;
  for (const int64_t numel : kSizes) all.push_back(make_pruned(GetParam(), numel));
  EXPECT_EQ(zero_and_compare(all), 1);
}

TEST_P(CompanionKernelsOfDtype, ZeroWhatIsPrunedAtEveryAlignment) {
  for (const int64_t numel : {int64_t{1}, int64_t{7}, int64_t{20}, int64_t{1001}, kChunk + 3}) {
    std::vector<Pruned> all;
    std::vector<Skipped> skips;
    for (int64_t tensor = 0; tensor < 8; ++tensor) {
      for (int64_t mask = 0; mask < 16; ++mask) {
        if (numel > kChunk && tensor != mask && (tensor + mask) % 5 != 0) continue;
        skips.push_back({tensor, mask});
        all.push_back(make_pruned(GetParam(), numel, skips.back()));
      }
    }
    zero_and_compare(all);
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_TRUE(spoiled_in_front(all[i].tensor, skips[i].weight));
      EXPECT_TRUE(spoiled_in_front(all[i].pruned, skips[i].gradient));
    }
  }
}

TEST_P(CompanionKernelsOfDtype, AddThePenaltyAtEverySize) {
  std::vector<PenaltyTerm> terms;
  for (const int64_t numel : kSizes) terms.push_back(make_term(GetParam(), numel));
  EXPECT_EQ(add_and_compare(terms, 0.3), 1);
  add_and_compare(terms, 0);
}

TEST_P(CompanionKernelsOfDtype, AddThePenaltyAtEveryAlignment) {
  for (const int64_t numel : {int64_t{1}, int64_t{7}, int64_t{1001}, kChunk + 3}) {
    std::vector<PenaltyTerm> terms;
    std::vector<Skips> skips;
    for (int64_t i = 0; i < 40; ++i) {
      // All alike first, so that packs begin somewhere in the middle.
      skips.push_back(i < 8 ? Skips{i, i, i, i} : Skips{i % 8, i / 3 % 8, i / 2 % 8, i * 5 % 8});
      terms.push_back(make_term(GetParam(), numel, skips.back()));
    }
    add_and_compare(terms, -1.25);
    for (std::size_t i = 0; i < terms.size(); ++i) {
      EXPECT_TRUE(spoiled_in_front(terms[i].gradient, skips[i].gradient));
    }
  }
}

TEST_P(CompanionKernelsOfDtype, UnifyBlocksOfEveryShape) {
  std::vector<FrozenSigns> all;
  for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {4, 4}, {7, 9}, {64, 27}, {33, 130}, {130, 300}, {3, 5000}}) {
    for (const auto& block :
         {BlockShape{1, 1}, BlockShape{4, 4}, BlockShape{2, 5}, BlockShape{3, 1}, BlockShape{1, 64},
          BlockShape{1, 65}, BlockShape{33, 3}, BlockShape{rows, columns}}) {
      if (block.rows > rows || block.columns > columns) continue;
      all.push_back(make_frozen(GetParam(), rows, columns, block, {columns % 3, rows % 5}));
    }
  }
  EXPECT_EQ(unify_and_compare(all), 1);
  for (const auto& [weight, signs, block] : all) {
    EXPECT_TRUE(spoiled_in_front(weight, weight.size(1) % 3));
  }
}

TEST_F(CompanionKernels, ChangeNoBitOfWhatIsUnified) {
  for (const auto type : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const auto& block : {BlockShape{4, 4}, BlockShape{5, 7}, BlockShape{30, 31}}) {
      const auto frozen = make_frozen(type, 64, 97, block);
      unify_and_compare({frozen});
      const auto once = frozen.weight.clone();
      unify_and_compare({frozen});
      EXPECT_TRUE(same_bits(frozen.weight, once));
    }
  }
}

TEST_P(CompanionKernelsOfDtype, KeepBadNumbersInTheirBlockAndMakeNoNegativeValue) {
  for (const auto& block : {BlockShape{4, 4}, BlockShape{16, 16}}) {
    auto frozen = make_frozen(GetParam(), 32, 32, block);
    frozen.weight.fill_(2);
    frozen.signs.fill_(1);
    frozen.weight[17][2] = kNaN;
    frozen.weight.narrow(0, 0, 16).fill_(-3);  // against their signs
    const auto runs = runs_of(std::vector<FrozenSigns>{frozen});
    launches_of(
        [&] { return lawn::detail::companions::cuda::unify_frozen(runs.data(), 1, nullptr); });
    const auto bad = torch::zeros({32, 32}, torch::kBool);
    bad.slice(0, 16, 16 + block.rows).slice(1, 0, block.columns).fill_(true);
    EXPECT_TRUE(torch::equal(frozen.weight.isnan(), bad));
    EXPECT_EQ(frozen.weight[31][31].item<double>(), 2);
    EXPECT_TRUE(torch::equal(frozen.weight.narrow(0, 0, 16),
                             torch::zeros({16, 32}, torch::TensorOptions(GetParam()))));
  }
}

TEST_F(CompanionKernels, RoundThePenaltyOnceInHalfPrecision) {
  // 1 + 2^-11 lies half-way between two halves; rounded before the sum, it would be 1.
  PenaltyTerm term = make_term(torch::kHalf, 5);
  term.weight.fill_(1);
  term.target.fill_(-std::ldexp(1.0, -11));
  term.dual.zero_();
  term.gradient.fill_(-1);
  const auto runs = runs_of({term});
  launches_of(
      [&] { return lawn::detail::companions::cuda::add_penalty(runs.data(), 1, 1, nullptr); });
  EXPECT_EQ(term.gradient.max().item<double>(), std::ldexp(1.0, -11));
}

TEST_F(CompanionKernels, TakeOneOrTwoLaunchesForHundredsOfTensors) {
  std::vector<Layer> rows;
  std::vector<Pruned> pruned;
  std::vector<PenaltyTerm> terms;
  std::vector<FrozenSigns> frozen;
  const auto add = [&](int64_t i) {
    const auto type = kDtypes[i % 4];
    const auto numel = i % 100 == 99 ? kBlockSphere + i : 1 + i * 37 % 400;
    // Rows of one length share a setting, of which a list holds 40.
    const auto row = i % 100 == 99 ? numel : 1 + i / 4 % 7 * 50;
    rows.push_back(make_rows(type, 1 + i % 3, row, i % 9));
    pruned.push_back(make_pruned(type, numel, {i % 5, i % 5}));
    if (terms.size() < kManyWideEntries) {
      terms.push_back(make_term(type, numel, {i % 3, i % 3, i % 3, i % 3}));
      frozen.push_back(make_frozen(type, 4 + i % 30, 4 + i % 70, {1 + i % 4, 4}));
    }
  };
  for (int64_t i = 0; i < 300; ++i) add(i);
  EXPECT_EQ(center_and_compare(rows), 2);
  EXPECT_EQ(zero_and_compare(pruned), 1);
  EXPECT_EQ(add_and_compare(terms, 0.5), 1);
  EXPECT_EQ(unify_and_compare(frozen), 1);
  for (int64_t i = 300; i < 1024; ++i) add(i);
  EXPECT_EQ(zero_and_compare(pruned), 1);
  EXPECT_EQ(add_and_compare(terms, 0.5), 1);
  EXPECT_EQ(unify_and_compare(frozen), 1);
  pruned.push_back(make_pruned(torch::kFloat, kBlockSphere + 1));
  terms.push_back(make_term(torch::kFloat, kBlockSphere + 1));
  EXPECT_EQ(zero_and_compare(pruned), 2);
  EXPECT_EQ(add_and_compare(terms, 0.5), 2);
  frozen.push_back(make_frozen(torch::kFloat, 40, 50, {20, 20}));
  EXPECT_EQ(unify_and_compare(frozen), 2);
}

TEST_F(CompanionKernels, TakeNoLaunchForNothing) {
  EXPECT_EQ(center({}), 0);
  EXPECT_EQ(zero_and_compare({}), 0);
  EXPECT_EQ(add_and_compare({}, 1), 0);
  EXPECT_EQ(center({{torch::empty({0, 3}), {}, {}, 0, 0}, {torch::empty({3, 0}), {}, {}, 0, 0}}),
            0);
  const auto mask = torch::empty({0}, torch::kBool);
  EXPECT_EQ(zero_and_compare({{torch::empty({0}), mask}}), 0);
  const FrozenSigns nothing{torch::empty({0, 4}), torch::empty({0, 4}, torch::kChar), {1, 1}};
  EXPECT_EQ(launches_of([&] {
              const auto runs = runs_of(std::vector<FrozenSigns>{nothing});
              return lawn::detail::companions::cuda::unify_frozen(runs.data(), 1, nullptr);
            }),
            0);
  const auto none = torch::empty({0});
  EXPECT_EQ(add_and_compare({{none, none, none, none}}, 1), 0);
  EXPECT_EQ(zero_and_compare({{torch::empty({0}), mask}, make_pruned(torch::kFloat, 3)}), 1);
}

TEST_F(CompanionKernels, EqualATenWhereverTheBordersBetweenRolesLie) {
  for (int64_t seed = 0; seed < 6; ++seed) {
    torch::manual_seed(seed);
    std::vector<Layer> rows;
    std::vector<Pruned> pruned;
    std::vector<PenaltyTerm> terms;
    for (int64_t i = 0; i < 60; ++i) {
      const auto type = kDtypes[random(4)];
      const auto numel = 1 + random(700);
      rows.push_back(make_rows(type, random(3) == 0 ? 1 + random(12) : 1, numel, random(9)));
      pruned.push_back(make_pruned(type, numel, {random(3), random(3)}));
      terms.push_back(make_term(type, numel, {random(2), random(2), random(2), random(2)}));
    }
    center_and_compare(rows, small_limits(seed));
    zero_and_compare(pruned, small_limits(seed));
    add_and_compare(terms, 0.75, small_limits(seed));
    std::vector<FrozenSigns> frozen;
    for (int64_t i = 0; i < 20; ++i) {
      const auto down = 1 + random(40);
      const auto across = 1 + random(80);
      frozen.push_back(make_frozen(kDtypes[random(4)], down, across,
                                   {1 + random(down), 1 + random(across)}, {random(3), random(3)}));
    }
    Limits limits;
    limits.thread_block = 1 + 37 * seed * seed;
    unify_and_compare(frozen, limits);
  }
}

TEST_F(CompanionKernels, GiveTheSameBitsInEveryOrderOfThreadsAndBlocks) {
  std::vector<torch::Tensor> first;
  for (unsigned run_index = 0; run_index < 4; ++run_index) {
    Machine::get().order_for_run(run_index);
    torch::manual_seed(5);
    std::vector<Layer> rows;
    std::vector<Pruned> pruned;
    std::vector<PenaltyTerm> terms;
    std::vector<FrozenSigns> frozen;
    for (int64_t i = 0; i < 30; ++i) {
      rows.push_back(make_rows(kDtypes[i % 4], 1 + i % 5, 1 + random(700), i % 3));
      pruned.push_back(make_pruned(kDtypes[i % 4], 1 + random(700)));
      terms.push_back(make_term(kDtypes[i % 4], 1 + random(700)));
      frozen.push_back(make_frozen(kDtypes[i % 4], 30, 40, {1 + i % 20, 1 + i}));
    }
    unify_and_compare(frozen);
    center(rows, small_limits(2));
    zero_and_compare(pruned, small_limits(2));
    add_and_compare(terms, 0.75, small_limits(2));
    std::vector<torch::Tensor> results;
    for (const Layer& layer : rows) results.push_back(layer.weight);
    for (const Pruned& one : pruned) results.push_back(one.tensor);
    for (const PenaltyTerm& term : terms) results.push_back(term.gradient);
    for (const FrozenSigns& one : frozen) results.push_back(one.weight);
    if (run_index == 0) first = results;
    ASSERT_EQ(results.size(), first.size());
    for (std::size_t i = 0; i < first.size(); ++i) {
      EXPECT_TRUE(same_bits(results[i], first[i])) << run_index << ", " << i;
    }
  }
}

/// What a program built with nvcc has, with the emulated kernels in the place of the real ones.
class CompanionCalls : public CompanionKernels {
 protected:
  void SetUp() override {
    CompanionKernels::SetUp();
    lawn::sphere::cuda::entries = &lawn::sphere::cuda::kEntries;
    lawn::detail::companions::cuda::entries = &lawn::detail::companions::cuda::kEntries;
  }
  void TearDown() override {
    lawn::sphere::cuda::entries = nullptr;
    lawn::detail::companions::cuda::entries = nullptr;
    CompanionKernels::TearDown();
  }
};

TEST_F(CompanionCalls, LaunchTheKernelThatTheyAreNamedAfter) {
  const auto rows = make_rows(torch::kBFloat16, 3, kBlockSphere + 1);
  const auto centered = rows.weight.to(torch::kDouble);
  lawn::detail::mimicnorm::aten::center_rows_({centered, 0});
  lawn::sphere::cuda::call(torch::kCPU, lawn::detail::companions::cuda::kEntries.center_rows,
                           flat_rows({rows}));
  expect_near(rows.weight, centered, tolerance(torch::kBFloat16).norm, centered, "rows");

  const auto pruned = make_pruned(torch::kHalf, 100);
  const auto zeroed = pruned.tensor.clone();
  lawn::detail::pruning::aten::zero_pruned_(zeroed, pruned.pruned);
  lawn::detail::pruning::cuda::zero_pruned_(torch::kCPU, runs_of(std::vector<Pruned>{pruned}));
  EXPECT_TRUE(same_bits(pruned.tensor, zeroed));

  const auto term = make_term(torch::kHalf, 100);
  auto twin = term;
  twin.gradient = term.gradient.to(torch::kDouble);
  lawn::detail::unification::aten::add_penalty_(twin, 0.5);
  lawn::detail::unification::cuda::add_penalty_(torch::kCPU,
                                                runs_of(std::vector<PenaltyTerm>{term}), 0.5);
  expect_near(term.gradient, twin.gradient, tolerance(torch::kHalf).step, twin.gradient, "penalty");

  const auto frozen = make_frozen(torch::kFloat, 40, 50, {4, 4});
  const auto unified = frozen.weight.clone();
  lawn::detail::unification::aten::unify_frozen_(unified, frozen.signs, frozen.block);
  lawn::detail::unification::cuda::unify_frozen_(torch::kCPU,
                                                 runs_of(std::vector<FrozenSigns>{frozen}));
  EXPECT_TRUE(same_bits(frozen.weight, unified));
}

TEST_F(CompanionCalls, LoadOncePerDeviceAndSayWhatCudaRefuses) {
  const auto center = [&] {
    lawn::sphere::cuda::call(torch::kCPU, lawn::detail::companions::cuda::kEntries.center_rows,
                             flat_rows({make_rows(torch::kFloat, 3, 10)}));
  };
  const auto zero = [&] {
    lawn::detail::pruning::cuda::zero_pruned_(
        torch::kCPU, runs_of(std::vector<Pruned>{make_pruned(torch::kFloat, 9)}));
  };
  const auto add = [&] {
    lawn::detail::unification::cuda::add_penalty_(
        torch::kCPU, runs_of(std::vector<PenaltyTerm>{make_term(torch::kFloat, 9)}), 1);
  };
  const auto unify = [&] {
    lawn::detail::unification::cuda::unify_frozen_(
        torch::kCPU, runs_of(std::vector<FrozenSigns>{make_frozen(torch::kFloat, 4, 4, {2, 2})}));
  };
  const std::string message = "lawn: launching a kernel on cpu failed: emulated error";
  Runtime& runtime = Runtime::get();
  runtime.device = 7;
  const auto expect_loads = [&](const auto& call, int kernels) {
    runtime.loads = 0;
    runtime.function_error = cudaErrorInvalidValue;
    expect_refusal(call, message);
    EXPECT_EQ(runtime.loads, 1);
    runtime.function_error = cudaSuccess;
    runtime.launch_error = cudaErrorInvalidValue;
    expect_refusal(call, message);
    EXPECT_EQ(runtime.loads, 1 + kernels);
    runtime.launch_error = cudaSuccess;
    call();
    EXPECT_EQ(runtime.loads, 1 + kernels);
  };
  expect_loads(center, 4);
  expect_loads(zero, 2);
  expect_loads(add, 2);
  expect_loads(unify, 2);
}

TEST_F(CompanionCalls, AreForDevicesThatHaveKernels) {
  using lawn::sphere::cuda::has_kernels;
  const lawn::testing::FakeGpus gpus(&lawn::sphere::cuda::kEntries);
  EXPECT_TRUE(has_kernels({torch::kCUDA, 1}));
  EXPECT_FALSE(has_kernels(torch::kCPU));
  EXPECT_FALSE(has_kernels(torch::kMeta));
}

TEST_F(CompanionCalls, AreNotForGPUsOfAnotherArchitecture) {
  const lawn::testing::FakeGpus gpus(&lawn::sphere::cuda::kEntries);
  const lawn::testing::CapturedWarnings warnings;
  Runtime& runtime = Runtime::get();
  runtime.function_error = cudaErrorNoKernelImageForDevice;
  const torch::Device other(torch::kCUDA, 1);
  EXPECT_FALSE(lawn::sphere::cuda::has_kernels(other));
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "whoever asks next would take it for theirs";
  EXPECT_NE(warnings.text().find("hold no code for cuda:1 (CUDA says: emulated error)"),
            std::string::npos)
      << warnings.text();
  EXPECT_EQ(runtime.loads, 1);
  EXPECT_FALSE(lawn::sphere::cuda::has_kernels(other));
  EXPECT_EQ(runtime.loads, 1) << "a step does not ask again";
}

TEST_F(CompanionCalls, AreAskedForByOneKernelAndLeaveOtherErrorsToTheLaunch) {
  Runtime& runtime = Runtime::get();
  const auto missing = lawn::sphere::cuda::kEntries.missing_code;
  EXPECT_EQ(missing(), nullptr);
  for (const auto error : {cudaErrorInvalidDeviceFunction, cudaErrorNoKernelImageForDevice,
                           cudaErrorJitCompilerNotFound, cudaErrorUnsupportedPtxVersion,
                           cudaErrorJitCompilationDisabled, cudaErrorInsufficientDriver,
                           cudaErrorCallRequiresNewerDriver}) {
    runtime.function_error = error;
    EXPECT_STREQ(missing(), "emulated error") << error;
  }
  runtime.function_error = cudaErrorInvalidValue;
  EXPECT_EQ(missing(), nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST(ByDevice, KeepsTheOrderOnEachDevice) {
  lawn::sphere::cuda::ByDevice<int> all;
  const torch::Device one(torch::kCUDA, 1);
  const torch::Device zero(torch::kCUDA, 0);
  all.add(one, 5);
  all.add(zero, 4);
  all.add(one, 3);
  all.add(torch::kCPU, 2);
  all.add(zero, 1);
  std::vector<std::pair<torch::Device, std::vector<int>>> seen;
  all.for_each(
      [&](torch::Device device, const std::vector<int>& runs) { seen.emplace_back(device, runs); });
  const std::vector<std::pair<torch::Device, std::vector<int>>> expected{
      {one, {5, 3}}, {zero, {4, 1}}, {torch::kCPU, {2}}};
  EXPECT_EQ(seen, expected);
}

}  // namespace
