// SPDX-License-Identifier: Apache-2.0
//
// Time of one optimizer step with and without LAWN. For each optimizer and list of shapes:
//   base/<Optimizer>/<shapes>   the optimizer alone
//   free/<Optimizer>/<shapes>   LAWN in its free phase
//   lawn/<Optimizer>/<shapes>   LAWN in its constrained phase, every tensor constrained
//   apart/<Optimizer>/<shapes>  the same with a fused optimizer, but not folded into it
//   loops/FusedSGD/<shapes>     on the CPU, the loops of lawn/FusedSGD alone, without tensors
//   aten/<Optimizer>/<shapes>   the same written naively, one ATen call at a time
//   centered/SGD, masked/Adam, admm/Adam   the companions that act around a step
//   lawn/sphere, aten/sphere    the projection and the rescaling without the optimizer
//   copy/<shapes>               memcpy (on a GPU: a copy) of as many floats, 8 bytes each: what
//   memory allows
// On a GPU each stands for the device's time with cold caches; /hot, /host and /graph after the
// name are the times of timing.h. Run `bench/compare.py --run <this program>` for the ratios.

#include <benchmark/benchmark.h>
#include <torch/torch.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <lawn/companions/mimicnorm/centered.h>
#include <lawn/companions/pruning/masked.h>
#include <lawn/companions/unification/admm.h>
#include <lawn/lawn.h>
#include <lawn/sphere/functions.h>

#include "naive_lawn.h"
#include "network.h"
#include "program.h"
#include "shapes.h"
#include "timing.h"

namespace {

using bench::NaiveLAWN;
using bench::Network;
using bench::ShapeList;
using bench::Timing;

// Bytes that a part has to move for one float32, if each of its passes is one kernel and what it
// reads twice stays in the cache (projection: w, g read, g written; rescaling: w read and written).
constexpr int kCopyBytes = 8;
constexpr int kSphereBytes = 12 + 8;

/// What LAWN's part adds to the step of `Opt`: nothing where it is folded into the step's own pass.
template <class Opt>
constexpr int kBytesOfLAWN = lawn::detail::folded::kFoldsInto<Opt> ? 0 : kSphereBytes;

// Gradients are set once and not refreshed between steps, although each projection changes them: a
// second projection does the arithmetic of the first, and its operands stay ordinary numbers. At
// this learning rate a step turns the weights by an angle of some 1e-5. Projecting onto the new
// tangent space scales the gradient by the cosine of that angle, and so removes 1e-10 of it.
constexpr double kLearningRate = 1e-6;

template <class Opt>
struct SGD {
  using Optimizer = Opt;
  static constexpr int kBytes = 20;  // w, g, momentum read; w, momentum written
  static Opt make(const std::vector<at::Tensor>& weights) {
    return Opt(weights, torch::optim::SGDOptions(kLearningRate).momentum(0.9));
  }
};

template <class Opt>
struct Adam {
  using Optimizer = Opt;
  static constexpr int kBytes = 28;  // w, g and two moments read; w and two moments written
  static Opt make(const std::vector<at::Tensor>& weights) {
    return Opt(weights, torch::optim::AdamOptions(kLearningRate));
  }
};

/// Fused optimizers under a name into which LAWN does not fold.
struct ApartSGD : lawn::FusedSGD {
  using FusedSGD::FusedSGD;
};
struct ApartAdam : lawn::FusedAdam {
  using FusedAdam::FusedAdam;
};

using Step = std::function<void()>;

void count(benchmark::State& state, const ShapeList& list, int bytes) {
  state.counters["elements"] = static_cast<double>(list.elements());
  state.counters["floor_bytes"] = static_cast<double>(bytes * list.elements());
}

/// Registers `name` for each timing that `device` has. `prepare` makes the step to be timed.
/// @param bytes  the least that one element needs, for the counter `floor_bytes`
void add(const std::string& name, const ShapeList& list, at::Device device, int bytes,
         const std::function<Step()>& prepare,
         std::vector<Timing> timings = {Timing::kStep, Timing::kHot, Timing::kHost}) {
  if (device.is_cpu()) timings = {Timing::kStep};
  for (const Timing timing : timings) {
    const auto full_name = name + "/" + list.name + suffix(timing);
    auto* added = benchmark::RegisterBenchmark(full_name.c_str(), [=](benchmark::State& state) {
      count(state, list, bytes);
      measure(state, device, timing, prepare());
    });
    added->Unit(benchmark::kMicrosecond);
    if (!device.is_cpu()) added->UseManualTime()->Iterations(bench::iterations(timing));
  }
}

/// Registers the step of a decorated optimizer. On the CPU it takes turns with the step of the
/// optimizer that it decorates, on the same state.
/// @param make  of a list of weights and the plain optimizer for them: a shared_ptr
template <class Kind, class Make>
void add_decorated(const std::string& name, const ShapeList& list, at::Device device, int bytes,
                   const Make& make) {
  const auto make_shared = [=] {
    const auto& weights = Network::shared(list, device).weights;
    return make(weights, Kind::make(weights));
  };
  if (!device.is_cpu()) {
    add(name, list, device, bytes,
        [=] { return [optimizer = make_shared()] { optimizer->step(); }; });
    return;
  }
  benchmark::RegisterBenchmark((name + "/" + list.name).c_str(),
                               [=](benchmark::State& state) {
                                 count(state, list, bytes);
                                 const auto optimizer = make_shared();
                                 using Opt = typename Kind::Optimizer;
                                 bench::measure_after(
                                     state, [&] { optimizer->Opt::step(); },
                                     [&] { optimizer->step(); });
                               })
      ->Unit(benchmark::kMicrosecond)
      ->UseManualTime();
}

/// LAWN's step after `free_steps` steps.
template <class Kind>
void add_lawn(const std::string& name, const ShapeList& list, at::Device device, int bytes,
              int64_t free_steps) {
  using Opt = typename Kind::Optimizer;
  add_decorated<Kind>(
      name, list, device, bytes, [=](const std::vector<at::Tensor>& weights, Opt&& optimizer) {
        return std::make_shared<lawn::LAWN<Opt>>(std::move(optimizer), lawn::select(weights),
                                                 lawn::LAWNOptions().free_steps(free_steps));
      });
}

/// The companions that act around a step.
void add_companions(const ShapeList& list, at::Device device) {
  using Weights = std::vector<at::Tensor>;
  using SGDKind = SGD<torch::optim::SGD>;
  using AdamKind = Adam<torch::optim::Adam>;
  constexpr int kCenterBytes = 8;    // w read and written
  constexpr int kMaskBytes = 9;      // and a mask read
  constexpr int kPenaltyBytes = 20;  // w, Z, U, g read and g written
  add_decorated<SGDKind>("centered/SGD", list, device, SGDKind::kBytes + kCenterBytes,
                         [](const Weights& weights, torch::optim::SGD&& optimizer) {
                           return std::make_shared<lawn::Centered<torch::optim::SGD>>(
                               std::move(optimizer), lawn::select(weights));
                         });
  add_decorated<AdamKind>("masked/Adam", list, device, AdamKind::kBytes + kMaskBytes,
                          [](const Weights& weights, torch::optim::Adam&& optimizer) {
                            lawn::Masks masks;
                            for (const auto& weight : weights) {
                              masks.push_back({"weight", weight, weight.detach() > 0});
                            }
                            return std::make_shared<lawn::Masked<torch::optim::Adam>>(
                                std::move(optimizer), masks);
                          });
  add_decorated<AdamKind>("admm/Adam", list, device, AdamKind::kBytes + kPenaltyBytes,
                          [](const Weights& weights, torch::optim::Adam&& optimizer) {
                            return std::make_shared<lawn::Admm<torch::optim::Adam>>(
                                std::move(optimizer), lawn::select(weights),
                                lawn::Projection::unify_blocks({4, 4}, 0.5));
                          });
}

/// What the folded step of SGD does to memory, without what finds and checks that memory.
void add_loops(const ShapeList& list) {
  add("loops/FusedSGD", list, at::kCPU, SGD<lawn::FusedSGD>::kBytes, [=] {
    std::vector<lawn::sphere::Layer> layers;
    std::vector<lawn::detail::folded::FlatLayer> flat;
    std::vector<at::Tensor> momenta;
    for (const auto& weight : Network::shared(list, at::kCPU).weights) {
      layers.push_back({weight.detach(), weight.grad(), weight.detach().norm()});
      momenta.push_back(torch::zeros_like(weight));
      lawn::detail::folded::FlatLayer layer;
      static_cast<lawn::sphere::Flat&>(layer) = lawn::sphere::flatten(layers.back());
      layer.first_moment = momenta.back().data_ptr();
      flat.push_back(layer);
    }
    const lawn::detail::folded::SGD step = {kLearningRate, 0.9, 0, false, false};
    return [layers, momenta, flat, step] { lawn::detail::folded::cpu::step(flat, step); };
  });
}

template <class Kind>
void add_optimizer(const std::string& name, const ShapeList& list, at::Device device) {
  using Opt = typename Kind::Optimizer;
  add("base/" + name, list, device, Kind::kBytes, [=] {
    auto optimizer = std::make_shared<Opt>(Kind::make(Network::shared(list, device).weights));
    return [optimizer] { optimizer->step(); };
  });
  add_lawn<Kind>("free/" + name, list, device, Kind::kBytes, lawn::LAWNOptions::kNever);
  add_lawn<Kind>("lawn/" + name, list, device, Kind::kBytes + kBytesOfLAWN<Opt>, 0);
}

/// LAWN's step with learning rate, step count and phase in memory of the device, to be compared with
/// `lawn/`; on a GPU also captured in a graph.
template <class Kind>
void add_captured(const std::string& name, const ShapeList& list, at::Device device) {
  using Opt = typename Kind::Optimizer;
  add("captured/" + name, list, device, Kind::kBytes + kBytesOfLAWN<Opt>,
      [=] {
        const auto& weights = Network::shared(list, device).weights;
        auto optimizer = std::make_shared<lawn::LAWN<Opt>>(
            Kind::make(weights), lawn::select(weights),
            lawn::LAWNOptions().zero_norm(lawn::ZeroNorm::kLeaveFree));
        optimizer->make_capturable();
        return [optimizer] { optimizer->step(); };
      },
      {Timing::kStep, Timing::kHot, Timing::kHost, Timing::kGraph});
}

/// LibTorch's own: the naive form is measured around these.
template <class Kind>
void add_naive(const std::string& name, const ShapeList& list, at::Device device) {
  add("aten/" + name, list, device, Kind::kBytes + kSphereBytes, [=] {
    const auto& weights = Network::shared(list, device).weights;
    auto optimizer = std::make_shared<typename Kind::Optimizer>(Kind::make(weights));
    return [optimizer, naive = NaiveLAWN(weights)]() mutable {
      naive.project();
      optimizer->step();
      naive.rescale();
    };
  });
}

void add_parts(const ShapeList& list, at::Device device) {
  const std::vector<Timing> all = {Timing::kStep, Timing::kHot, Timing::kHost, Timing::kGraph};
  add(
      "lawn/sphere", list, device, kSphereBytes,
      [=] {
        std::vector<lawn::sphere::Layer> layers;
        for (const auto& weight : Network::shared(list, device).weights) {
          layers.push_back({weight, weight.grad(), weight.detach().norm()});
        }
        return [layers] {
          lawn::sphere::project_to_tangent_(layers);
          lawn::sphere::rescale_(layers);
        };
      },
      all);
  add(
      "aten/sphere", list, device, kSphereBytes,
      [=] {
        return [naive = NaiveLAWN(Network::shared(list, device).weights)]() mutable {
          naive.project();
          naive.rescale();
        };
      },
      all);
  add("copy", list, device, kCopyBytes, [=] {
    const auto source = torch::ones(list.elements(), device);
    const auto target = torch::empty_like(source);
    return [=] {
      if (device.is_cpu()) {
        std::memcpy(target.data_ptr(), source.data_ptr(), source.nbytes());
        benchmark::ClobberMemory();
      } else {
        target.copy_(source);
      }
    };
  });
}

}  // namespace

int main(int argc, char** argv) {
  const at::Device device = bench::start(argc, argv, "step_bench");
  for (const ShapeList& list : bench::shape_lists()) {
    add_optimizer<SGD<torch::optim::SGD>>("SGD", list, device);
    add_naive<SGD<torch::optim::SGD>>("SGD", list, device);
    add_optimizer<SGD<lawn::FusedSGD>>("FusedSGD", list, device);
    add_captured<SGD<lawn::FusedSGD>>("FusedSGD", list, device);
    if (device.is_cpu()) add_loops(list);
    add_lawn<SGD<ApartSGD>>("apart/FusedSGD", list, device, SGD<ApartSGD>::kBytes + kSphereBytes,
                            0);
    add_optimizer<Adam<torch::optim::Adam>>("Adam", list, device);
    add_naive<Adam<torch::optim::Adam>>("Adam", list, device);
    add_optimizer<Adam<lawn::FusedAdam>>("FusedAdam", list, device);
    add_captured<Adam<lawn::FusedAdam>>("FusedAdam", list, device);
    add_lawn<Adam<ApartAdam>>("apart/FusedAdam", list, device,
                              Adam<ApartAdam>::kBytes + kSphereBytes, 0);
    add_parts(list, device);
    if (list.name == "ResNet-18") add_companions(list, device);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return EXIT_SUCCESS;
}
