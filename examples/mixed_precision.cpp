// SPDX-License-Identifier: Apache-2.0
//
// Mixed precision: lawn::Autocast, a loss that lawn::GradScaler scales, clipped gradients, LAWN
// around Adam. It runs in float16 on a GPU, and on a CPU in bfloat16, whose range needs no scale.

#include <lawn/autocast.h>
#include <lawn/lawn.h>
#include <torch/torch.h>

#include <iostream>

int main() {
  torch::manual_seed(0);
  const bool has_gpu = torch::cuda::is_available();
  const auto device = has_gpu ? torch::kCUDA : torch::kCPU;
  const auto dtype = has_gpu ? torch::kHalf : torch::kBFloat16;

  const auto labels = torch::randint(3, {512}, torch::kLong).to(device);
  const auto points =
      torch::randn({512, 2}, device) + 2 * torch::one_hot(labels, 3).narrow(1, 0, 2);
  torch::nn::Sequential model(torch::nn::Linear(2, 64), torch::nn::ReLU(),
                              torch::nn::Linear(64, 3));
  model->to(device);

  lawn::LAWN optimizer(lawn::FusedAdam(model->parameters(), 1e-2),
                       lawn::final_homogeneous_subnetwork(model->forward(points), *model),
                       lawn::LAWNOptions().free_steps(100));
  lawn::LAWNSchedule schedule(optimizer, lawn::LAWNScheduleOptions().total_steps(500));
  lawn::GradScaler scaler(lawn::GradScalerOptions().enabled(has_gpu));

  for (int step = 1; step <= 500; ++step) {
    optimizer.zero_grad();
    torch::Tensor loss;
    {
      const lawn::Autocast autocast(device, dtype);  // around the forward pass alone
      loss = torch::cross_entropy_loss(model->forward(points), labels);
    }
    scaler.scale(loss).backward();
    scaler.unscale_(optimizer);  // so that the norm below is that of the gradients themselves
    lawn::clip_grad_norm_(model->parameters(), 1.0);
    if (scaler.step(optimizer)) schedule.step();  // false: a gradient overflowed, nothing moved
    scaler.update();
    if (step % 100 == 0) {
      std::cout << "step " << step << "  " << optimizer.phase() << "  loss " << loss.item<float>()
                << "  scale " << scaler.get_scale() << '\n';
    }
  }
}
