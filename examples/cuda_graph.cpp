// SPDX-License-Identifier: Apache-2.0
//
// A training step of LAWN around FusedAdam as one CUDA graph: captured once, replayed through LAWN's
// switch, with a learning rate that changes. Needs a GPU and a build with nvcc.

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <lawn/lawn.h>
#include <torch/torch.h>

#include <iostream>

namespace {

void train() {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(2, 256), torch::nn::ReLU(),
                              torch::nn::Linear(256, 3));
  model->to(torch::kCUDA);
  const auto points = torch::empty({512, 2}, torch::kCUDA);  // filled in place before each replay
  const auto labels = torch::empty({512}, torch::dtype(torch::kLong).device(torch::kCUDA));
  const auto next_batch = [&] {
    labels.random_(3);
    points.normal_().add_(torch::one_hot(labels, 3).narrow(1, 0, 2), 2);
  };
  next_batch();

  // A captured step cannot throw: a zero norm at the switch leaves its sphere free.
  lawn::LAWN optimizer(lawn::FusedAdam(model->parameters(), 1e-2),
                       lawn::final_homogeneous_subnetwork(model->forward(points), *model),
                       lawn::LAWNOptions().free_steps(200).zero_norm(lawn::ZeroNorm::kLeaveFree));
  optimizer.make_capturable();
  lawn::LAWNSchedule schedule(optimizer, lawn::LAWNScheduleOptions().total_steps(1000));

  torch::cuda::synchronize();  // the next stream must not read what this one is still writing
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());  // of all that follows

  torch::Tensor loss;
  const auto step = [&] {
    loss = torch::cross_entropy_loss(model->forward(points), labels);
    loss.backward();
    optimizer.step();
  };
  constexpr int kWarmUp = 3;  // makes the optimizer's state, loads kernels and libraries
  for (int i = 0; i < kWarmUp; ++i) {
    optimizer.zero_grad();
    next_batch();
    step();
    schedule.step();
  }

  optimizer.zero_grad();  // the captured backward pass makes gradients in memory of the graph
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  step();
  graph.capture_end();

  for (int i = kWarmUp + 1; i <= 1000; ++i) {
    next_batch();
    optimizer.upload_learning_rates();  // what the schedule has made of them
    graph.replay();
    schedule.step();
    if (i % 100 == 0) {
      std::cout << "step " << i << "  " << optimizer.phase() << "  loss " << loss.item<float>()
                << '\n';
    }
  }
  std::cout << '\n' << optimizer.report();
}

}  // namespace

int main() {
  if (!lawn::has_cuda_kernels()) {
    std::cout << "There is no GPU here for which this program has kernels.\n";
    return 0;
  }
  train();
}
