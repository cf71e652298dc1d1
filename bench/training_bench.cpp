// SPDX-License-Identifier: Apache-2.0
//
// Time of one whole training step of a residual network on random images, with the optimizer's share
// in it:
//   forward_backward/<network>      forward and backward pass alone
//   base/<Optimizer>/<network>      with the optimizer
//   lawn/<Optimizer>/<network>      with LAWN in its constrained phase, every weight constrained
//   aten/<Optimizer>/<network>      the same written naively, one ATen call at a time
// On a GPU /hot after the name says that steps follow one another as in training, and /graph that the
// whole step was captured in a CUDA graph. --batch-size=N (128); --precision=float32, bfloat16 or
// float16 (under autocast; float16 also scales the loss, which cannot be captured).
// Run `bench/compare.py --run <this program>` for the ratios.

#include <benchmark/benchmark.h>
#include <torch/torch.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lawn/autocast.h>
#include <lawn/grad_scaler.h>
#include <lawn/lawn.h>

#include "examples/apps/support/resnet.h"
#include "naive_lawn.h"
#include "program.h"
#include "timing.h"

namespace {

using bench::Timing;

struct Job {
  at::Device device;
  int64_t batch_size;
  at::ScalarType precision;
};

/// A network with a batch for it; `forward_backward` leaves gradients.
class Training {
 public:
  Training(const std::string& network, const Job& job) : job_(job) {
    torch::manual_seed(7);
    auto made = network == "ResNet-18" ? examples::resnet18(3, 10) : examples::resnet20(3, 10);
    network_ = made.ptr();
    network_->to(job.device);
    for (auto& parameter : network_->parameters()) {  // as cifar10 does
      if (parameter.dim() == 4) {
        parameter.set_data(parameter.contiguous(at::MemoryFormat::ChannelsLast));
      }
    }
    images_ = torch::randn({job.batch_size, 3, 32, 32}, job.device)
                  .contiguous(at::MemoryFormat::ChannelsLast);
    labels_ = torch::randint(10, {job.batch_size}, at::TensorOptions(job.device).dtype(at::kLong));
  }

  examples::Classifier& network() { return *network_; }

  /// @param scaler  of the loss; may be null
  void forward_backward(lawn::GradScaler* scaler) {
    network_->zero_grad();
    at::Tensor loss;
    {
      const lawn::Autocast autocast(job_.device.type(), job_.precision,
                                    job_.precision != at::kFloat);
      loss = torch::nn::functional::cross_entropy(network_->forward(images_), labels_);
    }
    (scaler != nullptr ? scaler->scale(loss) : loss).backward();
  }

  std::vector<at::Tensor> weights() const {
    std::vector<at::Tensor> found;
    for (const auto& parameter : network_->parameters()) {
      if (parameter.dim() > 1) found.push_back(parameter);
    }
    return found;
  }

 private:
  Job job_;
  std::shared_ptr<examples::Classifier> network_;
  at::Tensor images_, labels_;
};

using After = std::function<void(lawn::GradScaler*)>;  // the scaler may be null

/// Registers `name` with the timings of whole training steps.
/// @param can_be_captured  whether to time it in a CUDA graph, too
/// @param make  of a Training, and whether it is to be captured: what follows the backward pass
void add(const std::string& name, const std::string& network, const Job& job, bool can_be_captured,
         const std::function<After(Training&, bool)>& make) {
  std::vector<Timing> timings = {Timing::kStep};
  if (!job.device.is_cpu()) {
    timings = {Timing::kHot};
    if (can_be_captured && job.precision != at::kHalf) timings.push_back(Timing::kGraph);
  }
  for (const Timing timing : timings) {
    const auto full_name = name + "/" + network + suffix(timing);
    auto* added = benchmark::RegisterBenchmark(full_name.c_str(), [=](benchmark::State& state) {
      const auto training = std::make_shared<Training>(network, job);
      const auto after = make(*training, timing == Timing::kGraph);
      std::shared_ptr<lawn::GradScaler> scaler;
      if (job.precision == at::kHalf) scaler = std::make_shared<lawn::GradScaler>();
      measure(state, job.device, timing, [=] {
        training->forward_backward(scaler.get());
        after(scaler.get());
      });
    });
    added->Unit(benchmark::kMicrosecond);
    if (job.device.is_cpu()) {
      added->UseRealTime();
    } else {
      added->UseManualTime()->Iterations(bench::iterations(timing));
    }
  }
}

/// A step, through the scaler where there is one.
template <class Opt>
After step_of(std::shared_ptr<Opt> optimizer) {
  return [optimizer](lawn::GradScaler* scaler) {
    if (scaler == nullptr) {
      optimizer->step();
      return;
    }
    scaler->step(*optimizer);
    scaler->update();
  };
}

template <class Opt>
Opt make(examples::Classifier& network) {
  constexpr double kRate = 1e-4;
  if constexpr (std::is_base_of_v<torch::optim::SGD, Opt>) {
    return Opt(network.parameters(), torch::optim::SGDOptions(kRate).momentum(0.9));
  } else {
    return Opt(network.parameters(), torch::optim::AdamOptions(kRate));
  }
}

template <class Opt>
constexpr bool kFused = std::is_same_v<Opt, lawn::FusedAdam> || std::is_same_v<Opt, lawn::FusedSGD>;

template <class Opt>
void add_optimizer(const std::string& name, const std::string& network, const Job& job) {
  add("base/" + name, network, job, kFused<Opt>,
      [](Training& training, [[maybe_unused]] bool captured) {
        auto optimizer = std::make_shared<Opt>(make<Opt>(training.network()));
        if constexpr (kFused<Opt>) {
          if (captured) optimizer->make_capturable();
        }
        return step_of(std::move(optimizer));
      });
  add("lawn/" + name, network, job, kFused<Opt>,
      [](Training& training, [[maybe_unused]] bool captured) {
        auto optimizer = std::make_shared<lawn::LAWN<Opt>>(
            make<Opt>(training.network()), lawn::select_all_weights(training.network()),
            lawn::LAWNOptions().zero_norm(lawn::ZeroNorm::kLeaveFree));
        if constexpr (kFused<Opt>) {
          if (captured) optimizer->make_capturable();
        }
        return step_of(std::move(optimizer));
      });
  if (kFused<Opt>) return;
  add("aten/" + name, network, job, false, [](Training& training, bool) -> After {
    auto optimizer = std::make_shared<Opt>(make<Opt>(training.network()));
    auto naive = std::make_shared<bench::NaiveLAWN>(training.weights());
    return [optimizer, naive](lawn::GradScaler* scaler) {
      if (scaler != nullptr) scaler->unscale_(*optimizer);
      naive->project();
      step_of(optimizer)(scaler);
      naive->rescale();
    };
  });
}

}  // namespace

int main(int argc, char** argv) {
  const std::string batch_size = bench::take_flag(argc, argv, "batch-size", "128");
  const std::string precision = bench::take_flag(argc, argv, "precision", "float32");
  const at::Device device = bench::start(argc, argv, "training_bench");
  Job job = {device, std::atol(batch_size.c_str()), at::kFloat};
  if (job.batch_size < 1) {
    bench::refuse("training_bench: expected --batch-size=N with N >= 1, got " + batch_size);
  }
  if (precision == "float16") {
    job.precision = at::kHalf;
  } else if (precision == "bfloat16") {
    job.precision = at::kBFloat16;
  } else if (precision != "float32") {
    bench::refuse("training_bench: expected --precision=float32, bfloat16 or float16, got " +
                  precision);
  }
  benchmark::AddCustomContext("precision", precision);
  for (const std::string network : {"ResNet-20", "ResNet-18"}) {
    add("forward_backward", network, job, true,
        [](Training&, bool) { return [](lawn::GradScaler*) {}; });
    add_optimizer<torch::optim::SGD>("SGD", network, job);
    add_optimizer<lawn::FusedSGD>("FusedSGD", network, job);
    add_optimizer<torch::optim::Adam>("Adam", network, job);
    add_optimizer<lawn::FusedAdam>("FusedAdam", network, job);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return EXIT_SUCCESS;
}
