// SPDX-License-Identifier: Apache-2.0
//
// A residual network on CIFAR-10, trained on the CPU by LAWN around Adam: a loop to be copied.
//
//   image_classifier                              on 2,000 generated images
//   image_classifier cifar-10-batches-bin 20      on CIFAR-10's first binary file, 10,000 images
//   image_classifier "" 20 run.pt                 saves each epoch, and goes on from run.pt

#include <lawn/checkpoint.h>
#include <lawn/lawn.h>
#include <torch/torch.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

namespace {

struct Images {
  torch::Tensor pixels;  // [N, 3, 32, 32], float
  torch::Tensor labels;  // [N], in [0, 10)
};

/// A file of CIFAR-10: records of one byte of label and 3 x 32 x 32 bytes of image.
Images read_cifar10(const std::string& path) {
  TORCH_CHECK(std::filesystem::is_regular_file(path), path,
              ": no such file; expected FOLDER to hold the binary version of CIFAR-10");
  constexpr int64_t kRecord = 1 + 3 * 32 * 32;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
  TORCH_CHECK(size > 0 && size % kRecord == 0, path, ": expected records of ", kRecord,
              " bytes, got ", size, " bytes");
  const auto records = torch::from_file(path, false, size, torch::kByte).view({-1, kRecord});
  const auto labels = records.select(1, 0).to(torch::kLong);
  const auto wrong = labels.argmax().item<int64_t>(), label = labels[wrong].item<int64_t>();
  TORCH_CHECK(label < 10, path, ": expected labels from 0 to 9, got ", label, " of image ", wrong);
  return {records.slice(1, 1).reshape({-1, 3, 32, 32}).to(torch::kFloat).div_(127.5) - 1, labels};
}

/// Images of ten smooth patterns, under noise.
Images generate(int64_t count, const torch::Tensor& patterns) {
  const auto labels = torch::randint(10, {count}, torch::kLong);
  return {patterns.index_select(0, labels) + torch::randn({count, 3, 32, 32}), labels};
}

torch::nn::Conv2d conv(int64_t in, int64_t out, int64_t stride) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in, out, 3).stride(stride).padding(1).bias(false));
}

/// relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)); the shortcut takes every second pixel and
/// appends channels of zeros where the block halves the image.
struct BlockImpl : torch::nn::Module {
  BlockImpl(int64_t in, int64_t out)
      : stride_(in == out ? 1 : 2),
        added_(out - in),
        body_(register_module(
            "body", torch::nn::Sequential(conv(in, out, stride_), torch::nn::BatchNorm2d(out),
                                          torch::nn::ReLU(), conv(out, out, 1),
                                          torch::nn::BatchNorm2d(out)))) {}

  torch::Tensor forward(const torch::Tensor& x) {
    const auto thinned = x.slice(2, 0, {}, stride_).slice(3, 0, {}, stride_);
    return torch::relu(body_->forward(x) +
                       torch::constant_pad_nd(thinned, {0, 0, 0, 0, 0, added_}));
  }

  int64_t stride_, added_;
  torch::nn::Sequential body_;
};
TORCH_MODULE(Block);

/// ResNet-20 (He et al. 2015, section 4.2).
torch::nn::Sequential resnet20() {
  torch::nn::Sequential network(conv(3, 16, 1), torch::nn::BatchNorm2d(16), torch::nn::ReLU());
  int64_t in = 16;
  for (const int64_t out : {16, 16, 16, 32, 32, 32, 64, 64, 64}) {
    network->push_back(Block(in, out));
    in = out;
  }
  network->push_back(torch::nn::AdaptiveAvgPool2d(1));
  network->push_back(torch::nn::Flatten());
  network->push_back(torch::nn::Linear(64, 10));
  return network;
}

double accuracy(torch::nn::Sequential& model, const Images& images) {
  const torch::NoGradGuard no_grad;
  model->eval();
  std::vector<torch::Tensor> told;
  for (const auto& x : images.pixels.split(500)) told.push_back(model->forward(x).argmax(1));
  return torch::cat(told).eq(images.labels).to(torch::kDouble).mean().item<double>();
}

}  // namespace

int main(int argc, char** argv) try {
  torch::manual_seed(0);
  const auto patterns = torch::upsample_bilinear2d(torch::randn({10, 3, 4, 4}), {32, 32}, false);
  const std::string folder = argc > 1 ? argv[1] : "", count = argc > 2 ? argv[2] : "3";
  const int64_t epochs = std::strtoll(count.c_str(), nullptr, 10);
  TORCH_CHECK(epochs > 0 && epochs <= 1000000 && count == std::to_string(epochs),
              "EPOCHS: expected a whole number from 1 to 1000000, got '", count, "'");
  const auto images = [&](const std::string& file, int64_t generated) {
    return folder.empty() ? generate(generated, patterns) : read_cifar10(folder + "/" + file);
  };
  const auto train = images("data_batch_1.bin", 2000), test = images("test_batch.bin", 1000);
  constexpr int64_t kBatch = 64;
  const int64_t steps = epochs * ((train.labels.size(0) + kBatch - 1) / kBatch);

  auto model = resnet20();
  model->eval();  // the walk needs a graph, not new statistics in the batch norms
  const auto sub =
      lawn::final_homogeneous_subnetwork(model->forward(train.pixels.slice(0, 0, 2)), *model);
  std::cout << sub << '\n';
  lawn::LAWN optimizer(lawn::FusedAdam(model->parameters(), 1e-3), sub,
                       lawn::LAWNOptions().free_steps(steps / 5));
  lawn::LAWNSchedule schedule(optimizer, lawn::LAWNScheduleOptions()
                                             .total_steps(steps)
                                             .second_warmup_steps(steps / 50)
                                             .decay(lawn::Decay::kCosine));
  int64_t epoch = 0;
  lawn::Checkpoint checkpoint;
  checkpoint.add("model", model).add("optimizer", optimizer).add("schedule", schedule);
  checkpoint.add("epoch", epoch).add_random_state().require("epochs", epochs);
  const std::string file = argc > 3 ? argv[3] : "";
  if (std::filesystem::exists(file)) checkpoint.load(file);
  while (epoch < epochs) {
    model->train();
    for (const auto& batch : torch::randperm(train.labels.size(0)).split(kBatch)) {
      optimizer.zero_grad();
      const auto logits = model->forward(train.pixels.index_select(0, batch));
      torch::cross_entropy_loss(logits, train.labels.index_select(0, batch)).backward();
      optimizer.step();
      schedule.step();
    }
    ++epoch;
    if (!file.empty()) checkpoint.save(file);
    std::cout << "epoch " << epoch << "  " << optimizer.phase() << "  test accuracy "
              << accuracy(model, test) << std::endl;
  }
  std::cout << '\n' << optimizer.report();
} catch (const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  std::cerr << (of_torch ? of_torch->what_without_backtrace() : error.what())
            << "\nusage: image_classifier [FOLDER [EPOCHS [CHECKPOINT]]]\n";
  return 1;
}
