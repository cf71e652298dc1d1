// SPDX-License-Identifier: Apache-2.0
//
// What a newcomer writes with an installed lawn: a TorchScript model that is fine-tuned; a recurrent
// network and a transformer; runs that are killed and resumed, with each kind of schedule; a GAN with
// two LAWNs, which accumulates gradients under a scaler. Each part says what it found.

#include <lawn/checkpoint.h>
#include <lawn/lawn.h>
#include <lawn/subnetwork/torchscript.h>
#include <sys/wait.h>
#include <torch/script.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;
using lawn::LAWN;
using lawn::LAWNOptions;

int failures = 0;

void check(bool good, const std::string& what) {
  std::cout << (good ? "  ok      " : "  FAILED  ") << what << std::endl;
  failures += !good;
}

/// The largest relative change of the selected norms over `steps` steps, and whether the loss fell.
template <class Opt, class Loss>
void check_training(const std::string& what, LAWN<Opt>& optimizer, const Loss& loss) {
  const double before = loss().template item<double>();
  std::vector<double> norms;
  double drift = 0;
  for (int step = 0; step < 60; ++step) {
    optimizer.zero_grad();
    loss().backward();
    optimizer.step();
    const auto layers = optimizer.report().layers;
    if (optimizer.phase() != lawn::Phase::kConstrained) continue;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (norms.size() <= i) norms.push_back(layers[i].norm);
      drift = std::max(drift, std::abs(layers[i].norm / norms[i] - 1));
    }
  }
  const double after = loss().template item<double>();
  check(!norms.empty() && drift < 1e-5, what + ": norms drift by " + std::to_string(drift));
  check(after < before, what + ": loss " + std::to_string(before) + " -> " + std::to_string(after));
}

void torchscript(const std::filesystem::path& folder) {
  std::cout << "TorchScript\n";
  torch::manual_seed(1);
  torch::jit::Module made("made");
  const auto add = [&](const char* name, std::vector<int64_t> sizes) {
    made.register_parameter(name, (0.3 * torch::randn(sizes)).requires_grad_(),
                            /*is_buffer=*/false);
  };
  add("hidden", {32, 6});
  add("hidden_bias", {32});
  add("head", {3, 32});
  made.define(
      "def forward(self, x):\n"
      "  return torch.linear(torch.relu(torch.linear(x, self.hidden, self.hidden_bias)), "
      "self.head)\n");
  made.save((folder / "made.pt").string());

  auto model = torch::jit::load((folder / "made.pt").string());
  const auto x = torch::randn({64, 6});
  const auto labels = torch::randint(3, {64});
  const auto logits = [&] { return model.forward({x}).toTensor(); };
  for (int warm_up = 0; warm_up < 3; ++warm_up)
    logits();  // from here on optimised code hides operators
  const auto sub = lawn::final_homogeneous_subnetwork(model, {x});
  check(sub.parameters().size() == 2,
        "the walk finds two weights: " + std::to_string(sub.parameters().size()));
  LAWN optimizer(lawn::FusedAdam(lawn::unique_parameters(model), 1e-2), sub,
                 LAWNOptions().free_steps(20));
  check_training("fine-tuning", optimizer, [&] { return F::cross_entropy(logits(), labels); });
}

void recurrent_and_attention() {
  std::cout << "Recurrent and attention\n";
  torch::manual_seed(2);
  const auto labels = torch::randint(4, {8});
  const auto x = torch::randn({5, 8, 16});
  nn::LSTM lstm(16, 24);
  nn::Linear head(24, 4);
  nn::Sequential holder(head);
  const auto of_lstm = [&] { return head(std::get<0>(lstm(x))[-1]); };
  auto parameters = lstm->parameters();
  for (const auto& parameter : head->parameters()) parameters.push_back(parameter);
  LAWN first(torch::optim::Adam(parameters, 1e-2),
             lawn::final_homogeneous_subnetwork(of_lstm(), *holder), LAWNOptions().free_steps(20));
  check_training("LSTM", first, [&] { return F::cross_entropy(of_lstm(), labels); });

  nn::TransformerEncoder encoder(
      nn::TransformerEncoderOptions(nn::TransformerEncoderLayerOptions(16, 2).dropout(0), 1));
  nn::Linear last(16, 4);
  nn::Sequential both;
  both->push_back("encoder", encoder);
  both->push_back("head", last);
  const auto of_encoder = [&] { return last(encoder(x)[-1]); };
  LAWN second(torch::optim::AdamW(both->parameters(), 1e-3), lawn::select_all_weights(*both),
              LAWNOptions().free_steps(20));
  check_training("transformer", second, [&] { return F::cross_entropy(of_encoder(), labels); });
}

/// A run of 12 steps that saves after each.
template <class MakeSchedule>
struct Run {
  Run(const MakeSchedule& make, std::filesystem::path file)
      : path(std::move(file)), schedule(make(optimizer)) {
    checkpoint.add("model", model)
        .add("optimizer", optimizer)
        .add("schedule", schedule)
        .add("step", step)
        .add_random_state();
  }

  void train(int64_t killed_at) {
    if (std::filesystem::exists(path)) checkpoint.load(path);
    while (step < 12) {
      optimizer.zero_grad();
      model->forward(torch::randn({16, 6})).square().mean().backward();
      optimizer.step();
      schedule.step();
      ++step;
      if (step == killed_at) raise(SIGKILL);
      checkpoint.save(path);
    }
  }

  std::filesystem::path path;
  nn::Sequential model = [] {
    torch::manual_seed(3);
    return nn::Sequential(nn::Linear(6, 16), nn::ReLU(), nn::Dropout(0.2), nn::Linear(16, 3));
  }();
  LAWN<lawn::FusedAdam> optimizer{lawn::FusedAdam(model->parameters(), 1e-2),
                                  lawn::select_all_weights(*model), LAWNOptions().free_steps(5)};
  decltype(std::declval<MakeSchedule>()(optimizer)) schedule;
  int64_t step = 0;
  lawn::Checkpoint checkpoint;
};

/// Calls `visit` with each kind of schedule.
template <class Visit>
void with_each_schedule(const Visit& visit) {
  using Optimizer = LAWN<lawn::FusedAdam>;
  visit("LAWNSchedule", [](Optimizer& optimizer) {
    return lawn::LAWNSchedule(optimizer,
                              lawn::LAWNScheduleOptions().total_steps(12).warmup_steps(2));
  });
  visit("WarmupDecay", [](Optimizer& optimizer) {
    return lawn::WarmupDecay(optimizer, lawn::WarmupDecayOptions().total_steps(12).warmup_steps(2));
  });
  visit("StepLR", [](Optimizer& optimizer) { return torch::optim::StepLR(optimizer, 3, 0.5); });
}

/// Starts this program again for one run, and returns how it ended.
int start(const std::string& name, const std::filesystem::path& path, int64_t killed_at) {
  const pid_t child = fork();
  if (child == 0) {
    execl("/proc/self/exe", "trial", name.c_str(), path.c_str(), std::to_string(killed_at).c_str(),
          nullptr);
    _exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

/// Whether two runs ended with the same weights and rates, bit for bit.
template <class MakeSchedule>
bool same(const MakeSchedule& make, const std::filesystem::path& one,
          const std::filesystem::path& other) {
  Run<MakeSchedule> a(make, one);
  Run<MakeSchedule> b(make, other);
  a.train(0);  // loads what is at its end
  b.train(0);
  bool equal = a.step == 12 && b.step == 12;
  for (std::size_t i = 0; i < a.model->parameters().size(); ++i) {
    equal = equal && torch::equal(a.model->parameters()[i], b.model->parameters()[i]);
  }
  const auto rate = [](auto& run) { return run.optimizer.param_groups()[0].options().get_lr(); };
  return equal && rate(a) == rate(b);
}

void killed_and_resumed(const std::filesystem::path& folder) {
  std::cout << "Killed and resumed\n";
  with_each_schedule([&](const std::string& name, const auto& make) {
    const auto whole = folder / (name + "-whole.pt");
    const auto killed = folder / (name + "-killed.pt");
    check(start(name, whole, 0) == 0, name + ", without a stop");
    for (const int64_t at : {3, 5, 9}) {  // before, at and after the switch
      const int status = start(name, killed, at);
      check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
            name + ", killed at " + std::to_string(at));
    }
    check(start(name, killed, 0) == 0, name + ", resumed");
    check(same(make, whole, killed), name + ", the same bits");
  });
}

void two_lawns() {
  std::cout << "Two LAWNs, accumulation, a scaler\n";
  torch::manual_seed(4);
  nn::Sequential generator(nn::Linear(4, 32), nn::ReLU(), nn::Linear(32, 2));
  nn::Sequential discriminator(nn::Linear(2, 32), nn::ReLU(), nn::Linear(32, 1));
  const auto lawn_of = [](nn::Sequential& net) {
    return LAWN(
        torch::optim::Adam(net->parameters(), torch::optim::AdamOptions(2e-3).betas({0.5, 0.9})),
        lawn::select_all_weights(*net), LAWNOptions().free_steps(10));
  };
  auto of_generator = lawn_of(generator);
  auto of_discriminator = lawn_of(discriminator);
  lawn::GradScaler scaler(lawn::GradScalerOptions().init_scale(1024));
  const auto loss = [&](const torch::Tensor& logits, double label) {
    return F::binary_cross_entropy_with_logits(logits, torch::full_like(logits, label));
  };
  for (int step = 0; step < 40; ++step) {
    of_discriminator.zero_grad();
    for (int part = 0; part < 2; ++part) {
      const auto real = torch::randn({32, 2}) + 2;
      const auto fake = generator->forward(torch::randn({32, 4})).detach();
      scaler
          .scale((loss(discriminator->forward(real), 1) + loss(discriminator->forward(fake), 0)) /
                 4)
          .backward();
    }
    scaler.step(of_discriminator);
    of_generator.zero_grad();
    for (int part = 0; part < 2; ++part) {
      scaler.scale(loss(discriminator->forward(generator->forward(torch::randn({32, 4}))), 1) / 2)
          .backward();
    }
    scaler.step(of_generator);
    scaler.update();
  }
  for (const auto* optimizer : {&of_generator, &of_discriminator}) {
    bool held = optimizer->phase() == lawn::Phase::kConstrained;
    for (const auto& layer : optimizer->report().layers) {
      held = held && std::abs(layer.norm / *layer.radius - 1) < 1e-5;
    }
    check(held, optimizer == &of_generator ? "the generator's norms" : "the discriminator's norms");
  }
  const auto mean = generator->forward(torch::randn({512, 4})).mean().item<double>();
  check(std::isfinite(mean), "mean of what is generated " + std::to_string(mean));
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 4) {
    with_each_schedule([&](const std::string& name, const auto& make) {
      using Made = Run<std::decay_t<decltype(make)>>;
      if (name == arguments[1]) Made(make, arguments[2]).train(std::stoll(arguments[3]));
    });
    return 0;
  }
  const auto folder =
      std::filesystem::temp_directory_path() / ("lawn_trial_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  torchscript(folder);
  recurrent_and_attention();
  killed_and_resumed(folder);
  two_lawns();
  // Not remove_all: LibTorch's wheel exports a std::filesystem of its own, whose remove_all jumps to 0.
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::filesystem::remove(entry.path());
  }
  std::filesystem::remove(folder);
  std::cout << (failures == 0 ? "all good\n" : "something FAILED\n");
  return failures == 0 ? 0 : 1;
}
