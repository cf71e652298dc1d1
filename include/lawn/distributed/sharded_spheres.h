// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Device.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>
#include <c10/util/irange.h>

#include <lawn/distributed/agreement.h>
#include <lawn/distributed/collective.h>
#include <lawn/distributed/shard.h>
#include <lawn/distributed/shard_ranks.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/parts.h>
#include <lawn/sphere/spheres.h>

namespace lawn {

/// LAWN on weights that are sharded over ranks (as by ZeRO or FSDP): each rank's optimizer holds a
/// flat range of each parameter, and norms are those of the whole parameters.
///
///   lawn::LAWN optimizer(torch::optim::Adam(parts), selection_of_parts,
///                        lawn::LAWNOptions().spheres(
///                            std::make_shared<lawn::ShardedSpheres>(ranks, shards)));
///
/// A step of the constrained phase takes two sums over the ranks, both in float64: <g,w> and <w,w>
/// of every sphere, and <w,w> once more after the optimizer's step. A step of the free phase takes
/// none. The radii are norms of the whole parameters. Weights and radii are the same, bit for bit,
/// in every run with the same number of ranks, if the collective's sums are.
///
/// `ParameterShards` (lawn/distributed/parameter_shards.h) cuts a module's parameters in this way.
/// A constrained parameter without a shard counts as held by each rank as a whole, with the same
/// gradient: sums over it are not added. Missing parts of a gradient count as zero, so a rank
/// without a gradient takes part all the same. Optimizers whose update of an element depends on
/// other elements (LARS, LAMB, L-BFGS) see only this rank's parts. Folding, captured steps and
/// `angular_steps` need weights in one process. A checkpoint of the optimizer holds this rank's
/// parts, and fits only the same number of ranks.
///
/// As long as this object lives, the parts are marked as parts: `GradScaler` and `clip_grad_norm_`
/// decide for all ranks together, and refuse parts that have outlived it.
/// `torch::nn::utils::clip_grad_norm_` takes each part for a whole, and would scale by a different
/// factor on each rank.
///
/// Every rank makes the same calls: `LAWN`'s constructor, `step`, `constrain` and `report`. If a
/// rank does not call, the collective reports it. On CPUs, the next projection names a rank that
/// goes on from the checkpoint of another step.
///
/// @source  Gupta et al. 2021, arXiv 2108.05839; Rajbhandari et al. 2020, arXiv 1910.02054 (ZeRO)
class ShardedSpheres : public Spheres {
 public:
  /// @param ranks   the ranks that hold the parts; must outlive this object
  /// @param shards  the same parameters in the same order on every rank
  /// @throws c10::Error on every rank: if the parameters differ from rank to rank, if an element is
  ///         on no rank or on two, and if a part is not dense, contiguous and within its parameter,
  ///         or comes twice
  ShardedSpheres(Collective& ranks, std::vector<Shard> shards)
      : ranks_(ranks), shards_(std::move(shards)), marks_(ranks) {
    std::ostringstream text;
    detail::distributed::tell_of_errors(ranks_, [&] {
      for (const auto i : c10::irange(shards_.size())) {
        const Shard& shard = shards_[i];
        detail::distributed::check_shard(shard);
        TORCH_CHECK(index_.emplace(shard.part.unsafeGetTensorImpl(), i).second,
                    "lawn::ShardedSpheres: expected every shard once, got that of ", shard.name,
                    " a second time; leave one out");
        text << "shard of " << shard.name << ' ' << shard.part.scalar_type() << ' '
             << at::IntArrayRef(shard.shape) << '\n';
      }
    });
    lawn::check_agreement(ranks_, "lawn::ShardedSpheres", "shards", text.str());
    detail::distributed::check_cover(ranks_, shards_);
    for (const Shard& shard : shards_) marks_.add(shard.part);
  }

  bool local() const override { return false; }

  at::IntArrayRef whole_shape(const at::Tensor& weight) const override {
    const Shard* shard = find(weight);
    return shard == nullptr ? weight.sizes() : at::IntArrayRef(shard->shape);
  }

  void check_agreement(const std::string& text) override {
    lawn::check_agreement(ranks_, "lawn::LAWN", "options and constrained weights", text);
  }

  void begin_step(int64_t step) override { step_ = step; }

  bool anywhere(bool here) override {
    const auto sum = at::full({}, here ? 1.0 : 0.0, at::TensorOptions(at::kDouble));
    ranks_.sum_(sum);
    return sum.item<double>() > 0;
  }

  /// Computes what `sphere::norms` does, over the whole of each layer.
  std::vector<at::Tensor> norms(c10::ArrayRef<sphere::Layer> layers) override {
    const at::NoGradGuard no_grad;
    const Parts parts(*this, layers.vec());
    const auto sums = parts.local_sums();
    ranks_.sum_(sums[1]);
    return parts.merge(Spheres::norms(parts.whole()), [&](std::size_t i, int64_t first) {
      const auto& layer = layers[i];
      return row_of(sums, 1, layer, first)
          .sqrt()
          .to(layer.weight.device(), sphere::accumulation_dtype(layer.weight));
    });
  }

  /// @throws c10::Error if a rank is in another step (on CPUs)
  void project_to_tangent_(c10::ArrayRef<sphere::Layer> layers) override {
    const at::NoGradGuard no_grad;
    const Parts parts(*this, layers.vec());
    Spheres::project_to_tangent_(parts.whole());
    // A further column of the sums has s and s^2 of this rank's step s. The steps are the same on
    // all ranks if and only if size * sum(s^2) = sum(s)^2. s is small enough that sums over
    // thousands of ranks are exact.
    const auto sums = parts.local_sums(1);
    const auto steps = sums.select(1, -1);
    const auto step = static_cast<double>(step_ % 4096);
    steps[0].fill_(step);
    steps[1].fill_(step * step);
    ranks_.sum_(sums);
    if (sums.is_cpu()) check_steps(steps[0].item<double>(), steps[1].item<double>());
    sphere::project_to_tangent_(parts.parts(), sums);
    parts.write_back_gradients();
  }

  /// Does what `sphere::rescale_` does, over the whole of each layer.
  void rescale_(c10::ArrayRef<sphere::Layer> layers) override {
    const at::NoGradGuard no_grad;
    auto weights = layers.vec();
    for (auto& layer : weights) layer.gradient.reset();
    const Parts parts(*this, std::move(weights));
    Spheres::rescale_(parts.whole());
    const auto sums = parts.local_sums();
    ranks_.sum_(sums[1]);
    sphere::rescale_(parts.parts(), sums);
  }

  std::vector<LayerSums> sums(c10::ArrayRef<sphere::Layer> layers) override {
    const at::NoGradGuard no_grad;
    const Parts parts(*this, layers.vec());
    // Further columns have <g, g> of each layer.
    const auto count = static_cast<int64_t>(layers.size());
    const auto sums = parts.local_sums(count);
    const auto squares = sums[0].narrow(0, sums.size(1) - count, count);
    for (const auto i : c10::irange(layers.size())) {
      const auto& gradient = layers[i].gradient;
      if (!gradient.defined()) continue;
      squares[static_cast<int64_t>(i)].copy_(gradient.to(at::kDouble).square().sum());
    }
    ranks_.sum_(sums);
    return parts.merge(Spheres::sums(parts.whole()), [&](std::size_t i, int64_t first) {
      return LayerSums{row_of(sums, 1, layers[i], first).sqrt(),
                       row_of(sums, 0, layers[i], first).sum().item<double>(),
                       squares[static_cast<int64_t>(i)].item<double>()};
    });
  }

 private:
  /// The layers of one call: those that each rank holds as a whole, and this rank's parts of the
  /// others. The sums of all parts lie side by side.
  class Parts {
   public:
    Parts(const ShardedSpheres& spheres, std::vector<sphere::Layer> layers)
        : layers_(std::move(layers)) {
      for (sphere::Layer& layer : layers_) {
        const Shard* shard = spheres.find(layer.weight);
        if (shard == nullptr) {
          first_.push_back(kWhole);
          whole_.push_back(layer);
          continue;
        }
        if (places_ == 0) device_ = layer.weight.device();
        if (layer.gradient.defined() && !layer.gradient.is_contiguous()) {
          copies_.emplace_back(layer.gradient, layer.gradient.contiguous());
          layer.gradient = copies_.back().second;
        }
        first_.push_back(places_);
        detail::distributed::append_parts(parts_, *shard, layer, places_);
        places_ += c10::multiply_integers(spheres.radius_shape(layer));
      }
    }
    Parts(const Parts&) = delete;  // the parts point at the layers
    Parts& operator=(const Parts&) = delete;

    const std::vector<sphere::Layer>& whole() const { return whole_; }
    const std::vector<sphere::Part>& parts() const { return parts_; }

    /// Sums over this rank's parts, laid out as by `sphere::add_inner_products`, with `further`
    /// columns of zeros.
    at::Tensor local_sums(int64_t further = 0) const {
      auto sums = at::zeros({2, places_ + further}, at::TensorOptions(device_).dtype(at::kDouble));
      sphere::add_inner_products(parts_, sums);
      return sums;
    }

    /// Merges, in the layers' order, the results of the layers held as a whole with
    /// `of_shard(index, first place)` of the others.
    template <class T, class OfShard>
    std::vector<T> merge(std::vector<T> of_whole, const OfShard& of_shard) const {
      std::vector<T> all;
      auto next = of_whole.begin();
      for (const auto i : c10::irange(first_.size())) {
        all.push_back(first_[i] == kWhole ? std::move(*next++) : of_shard(i, first_[i]));
      }
      return all;
    }

    /// Copies back the gradients that were not contiguous and therefore changed in copies.
    void write_back_gradients() const {
      for (const auto& [gradient, copy] : copies_) gradient.copy_(copy);
    }

   private:
    static constexpr int64_t kWhole = -1;

    std::vector<sphere::Layer> layers_;
    std::vector<sphere::Layer> whole_;
    std::vector<int64_t> first_;  ///< place of each layer's first sphere, or kWhole
    std::vector<sphere::Part> parts_;
    int64_t places_ = 0;
    std::vector<std::pair<at::Tensor, at::Tensor>> copies_;
    at::Device device_ = at::kCPU;
  };

  /// One row of a layer's sums, in the shape of its radii.
  at::Tensor row_of(const at::Tensor& sums, int64_t row, const sphere::Layer& layer,
                    int64_t first) const {
    const auto shape = radius_shape(layer);
    return sums[row].narrow(0, first, c10::multiply_integers(shape)).view(shape);
  }

  const Shard* find(const at::Tensor& weight) const {
    const auto found = index_.find(weight.unsafeGetTensorImpl());
    return found == index_.end() ? nullptr : &shards_[found->second];
  }

  /// @param sum, squares  sums over the ranks of their step numbers, and of the squares of these
  void check_steps(double sum, double squares) {
    if (ranks_.size() * squares == sum * sum) return;
    std::vector<int64_t> steps;
    for (const auto& text : ranks_.gather(std::to_string(step_))) {
      steps.push_back(std::stoll(text));
    }
    TORCH_CHECK(false, "lawn::LAWN: expected every rank in the same step, got ",
                detail::distributed::name_steps(detail::distributed::group_by_value(steps), steps),
                ": go on from checkpoints of one step, and call step() equally often everywhere");
  }

  Collective& ranks_;
  std::vector<Shard> shards_;
  std::unordered_map<const c10::TensorImpl*, std::size_t> index_;
  detail::distributed::ShardMarks marks_;
  int64_t step_ = 0;
};

}  // namespace lawn
