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
#include <ATen/ops/cat.h>
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
#include <lawn/sphere/layer.h>
#include <lawn/sphere/parts.h>
#include <lawn/sphere/spheres.h>

namespace lawn {

/// LAWN on weights that are sharded over ranks (as by ZeRO or FSDP): each rank's optimizer holds a
/// flat range of each parameter, and norms are those of the whole.
///
///   lawn::LAWN optimizer(torch::optim::Adam(parts), selection_of_parts,
///                        lawn::LAWNOptions().spheres(
///                            std::make_shared<lawn::ShardedSpheres>(ranks, shards)));
///
/// A step of the constrained phase has two sums over the ranks: <g,w> and <w,w> of every sphere,
/// and <w,w> once more after the optimizer's step; both in float64. A step of the free phase has
/// none. The radii are norms of the whole parameters. Weights and radii are the same, bit for bit,
/// in every run with as many ranks, if the collective's sums are.
///
/// `ParameterShards` (lawn/distributed/parameter_shards.h) cuts a module's parameters in this way.
/// Constrained parameters without a shard count as held by each rank as a whole, with the same
/// gradient: sums over them are not added. What a rank lacks of a gradient counts as zero, so a
/// rank whose gradient is missing takes part all the same. Optimizers whose update of an element
/// depends on other elements (LARS, LAMB, L-BFGS) see this rank's parts alone. Folding, captured
/// steps and `angular_steps` are for weights in one process. A checkpoint of the optimizer holds
/// this rank's parts, and is for as many ranks.
///
/// Every rank makes the same calls: `LAWN`'s constructor, `step`, `constrain` and `report`. One
/// that does not come is named as the collective does it; on CPUs, one that goes on from the
/// checkpoint of another step is named at the next projection.
///
/// @source  Gupta et al. 2021, arXiv 2108.05839; Rajbhandari et al. 2020, arXiv 1910.02054 (ZeRO)
class ShardedSpheres : public Spheres {
 public:
  /// @param ranks   that hold the parts; must outlive this
  /// @param shards  the same parameters in the same order on every rank
  /// @throws c10::Error on every rank: for other parameters on one of them, for elements that are
  /// on
  ///         no rank or on two, and for a part that is not dense, contiguous and within its
  ///         parameter, or comes twice
  ShardedSpheres(Collective& ranks, std::vector<Shard> shards)
      : ranks_(ranks), shards_(std::move(shards)) {
    std::ostringstream text;
    detail::tell_of_errors(ranks_, [&] {
      for (const auto i : c10::irange(shards_.size())) {
        const Shard& shard = shards_[i];
        detail::check_shard(shard);
        TORCH_CHECK(index_.emplace(shard.part.unsafeGetTensorImpl(), i).second,
                    "lawn::ShardedSpheres: expected every shard once, got that of ", shard.name,
                    " a second time; leave one out");
        text << "shard of " << shard.name << ' ' << shard.part.scalar_type() << ' '
             << at::IntArrayRef(shard.shape) << '\n';
      }
    });
    lawn::check_agreement(ranks_, "lawn::ShardedSpheres", "shards", text.str());
    detail::check_cover(ranks_, shards_);
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

  std::vector<at::Tensor> norms(c10::ArrayRef<sphere::Layer> layers) override {
    const at::NoGradGuard no_grad;
    const Parts parts(*this, layers);
    const auto total = parts.local_sums();
    ranks_.sum_(total[1]);
    return parts.merge(Spheres::norms(parts.whole()), [&](std::size_t i) {
      const auto& layer = layers[i];
      return parts.of(i, total[1])
          .sqrt()
          .to(layer.weight.device(), sphere::accumulation_dtype(layer.weight))
          .reshape(radius_shape(layer));
    });
  }

  /// @throws c10::Error if a rank is in another step (on CPUs)
  void project_to_tangent_(c10::ArrayRef<sphere::Layer> layers) override {
    const at::NoGradGuard no_grad;
    const Parts parts(*this, layers);
    Spheres::project_to_tangent_(parts.whole());
    const auto sums = parts.local_sums();
    const auto all = at::cat({sums, step_beside(sums)}, 1);
    ranks_.sum_(all);
    if (all.is_cpu()) check_steps(all.select(1, -1));
    sphere::project_to_tangent_(parts.pieces(), parts.of_pieces(all));
    parts.write_back_gradients();
  }

  void rescale_(c10::ArrayRef<sphere::Layer> layers) override {
    const at::NoGradGuard no_grad;
    auto weights = layers.vec();
    for (auto& layer : weights) layer.gradient.reset();
    const Parts parts(*this, weights);
    Spheres::rescale_(parts.whole());
    const auto total = parts.local_sums();
    ranks_.sum_(total[1]);
    sphere::rescale_(parts.pieces(), parts.of_pieces(total));
  }

  std::vector<LayerSums> sums(c10::ArrayRef<sphere::Layer> layers) override {
    const at::NoGradGuard no_grad;
    const Parts parts(*this, layers);
    const auto sums = parts.local_sums();
    const auto squares = at::zeros({static_cast<int64_t>(layers.size())}, sums.options());
    for (const auto i : c10::irange(layers.size())) {
      const auto& gradient = layers[i].gradient;
      if (gradient.defined()) {
        squares[static_cast<int64_t>(i)].copy_(gradient.to(at::kDouble).square().sum());
      }
    }
    const auto all = at::cat({sums.reshape({-1}), squares});
    ranks_.sum_(all);
    const auto total = all.narrow(0, 0, sums.numel()).view(sums.sizes());
    return parts.merge(Spheres::sums(parts.whole()), [&](std::size_t i) {
      return LayerSums{parts.of(i, total[1]).sqrt().reshape(radius_shape(layers[i])),
                       parts.of(i, total[0]).sum().item<double>(),
                       all[sums.numel() + static_cast<int64_t>(i)].item<double>()};
    });
  }

 private:
  /// The layers of one call: those that each rank holds as a whole, and the pieces of the others,
  /// with places for their sums one beside the other.
  class Parts {
   public:
    Parts(const ShardedSpheres& spheres, c10::ArrayRef<sphere::Layer> layers) {
      for (const auto& layer : layers) {
        const Shard* shard = spheres.find(layer.weight);
        if (shard == nullptr) {
          places_.push_back({kWhole, 0});
          whole_.push_back(layer);
          continue;
        }
        if (places_of_shards_ == 0) device_ = layer.weight.device();
        places_.push_back({places_of_shards_, c10::multiply_integers(spheres.radius_shape(layer))});
        add_pieces(*shard, layer);
        places_of_shards_ += places_.back().spheres;
      }
    }

    const std::vector<sphere::Layer>& whole() const { return whole_; }
    const std::vector<sphere::Layer>& pieces() const { return pieces_; }

    /// What this rank adds: float64 [2, spheres], as of sphere::inner_products.
    at::Tensor local_sums() const {
      const auto total =
          at::zeros({2, places_of_shards_}, at::TensorOptions(device_).dtype(at::kDouble));
      const auto sums = sphere::inner_products(pieces_);
      for (const auto i : c10::irange(pieces_.size())) {
        total.narrow(1, first_[i], sums[i].size(1)).add_(sums[i].to(device_));
      }
      return total;
    }

    /// Of all sums, those of each piece's spheres.
    std::vector<at::Tensor> of_pieces(const at::Tensor& total) const {
      std::vector<at::Tensor> sums;
      for (const auto i : c10::irange(pieces_.size())) {
        sums.push_back(
            total.narrow(1, first_[i], pieces_[i].weight.size(0)).to(pieces_[i].weight.device()));
      }
      return sums;
    }

    /// Of one row of all sums, those of layer `i`.
    at::Tensor of(std::size_t i, const at::Tensor& row) const {
      return row.narrow(0, places_[i].first, places_[i].spheres);
    }

    /// Results of the layers held as a whole, and `of_shard(index)` for the others, in the layers'
    /// order.
    template <class T, class OfShard>
    std::vector<T> merge(std::vector<T> of_whole, const OfShard& of_shard) const {
      std::vector<T> all;
      auto next = of_whole.begin();
      for (const auto i : c10::irange(places_.size())) {
        all.push_back(places_[i].first == kWhole ? std::move(*next++) : of_shard(i));
      }
      return all;
    }

    /// Gradients that are not contiguous were worked on in copies.
    void write_back_gradients() const {
      for (const auto& [gradient, copy] : copies_) gradient.copy_(copy.view(gradient.sizes()));
    }

   private:
    static constexpr int64_t kWhole = -1;
    struct Place {
      int64_t first;
      int64_t spheres;
    };

    void add_pieces(const Shard& shard, const sphere::Layer& layer) {
      const auto weight = layer.weight.detach().view({-1});
      at::Tensor gradient;
      if (layer.gradient.defined()) {
        gradient = layer.gradient.contiguous().view({-1});
        if (!layer.gradient.is_contiguous()) copies_.emplace_back(layer.gradient, gradient);
      }
      for (const auto& cut :
           detail::cut(shard.shape, layer.unit_dim, shard.begin, weight.numel())) {
        const auto piece_of = [&](const at::Tensor& flat) {
          return flat.narrow(0, cut.begin, cut.spheres * cut.numel).view({cut.spheres, cut.numel});
        };
        sphere::Layer piece;
        piece.weight = piece_of(weight);
        if (gradient.defined()) piece.gradient = piece_of(gradient);
        if (layer.radius.defined()) {
          piece.radius = layer.radius.view({-1}).narrow(0, cut.first_sphere, cut.spheres);
        }
        piece.unit_dim = 0;
        piece.weight_decay = layer.weight_decay;
        pieces_.push_back(std::move(piece));
        first_.push_back(places_of_shards_ + cut.first_sphere);
      }
    }

    std::vector<sphere::Layer> whole_;
    std::vector<Place> places_;  ///< of each layer
    int64_t places_of_shards_ = 0;
    std::vector<sphere::Layer> pieces_;
    std::vector<int64_t> first_;  ///< place of each piece's first sphere
    std::vector<std::pair<at::Tensor, at::Tensor>> copies_;
    at::Device device_ = at::kCPU;
  };

  const Shard* find(const at::Tensor& weight) const {
    const auto found = index_.find(weight.unsafeGetTensorImpl());
    return found == index_.end() ? nullptr : &shards_[found->second];
  }

  /// A further column for this rank's step s: s and s^2. They are the same on all ranks where
  /// size * sum(s^2) = sum(s)^2. Small enough for sums over thousands of ranks to be exact.
  at::Tensor step_beside(const at::Tensor& sums) const {
    const auto step = at::full({2, 1}, static_cast<double>(step_ % 4096), sums.options());
    step[1].square_();
    return step;
  }

  void check_steps(const at::Tensor& sums) {
    const double first = sums[0].item<double>();
    if (ranks_.size() * sums[1].item<double>() == first * first) return;
    std::vector<int64_t> steps;
    for (const auto& text : ranks_.gather(std::to_string(step_))) {
      steps.push_back(std::stoll(text));
    }
    TORCH_CHECK(false, "lawn::LAWN: expected every rank in the same step, got ",
                detail::name_steps(detail::group_by_value(steps), steps),
                ": go on from checkpoints of one step, and call step() equally often everywhere");
  }

  Collective& ranks_;
  std::vector<Shard> shards_;
  std::unordered_map<const c10::TensorImpl*, std::size_t> index_;
  int64_t step_ = 0;
};

}  // namespace lawn
