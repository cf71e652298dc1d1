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

#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace {

struct Images {
  torch::Tensor pixels;  // [N, 3, 32, 32], float
  torch::Tensor labels;  // [N], in [0, 10)
};

/// A file of CIFAR-10: records of one byte of label and 3 x 32 x 32 bytes of image.
Images read_cifar10(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  constexpr int64_t kRecord = 1 + 3 * 32 * 32;
  const auto size = static_cast<int64_t>(bytes.size());
  TORCH_CHECK(size > 0 && size % kRecord == 0, path, ": expected records of ", kRecord,
              " bytes, got ", size, " bytes");
  const auto records = torch::from_blob(bytes.data(), {size / kRecord, kRecord}, torch::kByte);
  const auto pixels = records.slice(1, 1).to(torch::kFloat).div_(127.5).sub_(1);
  return {pixels.reshape({-1, 3, 32, 32}), records.select(1, 0).to(torch::kLong)};
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

  int64_t stride_;
  int64_t added_;
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
  int64_t right = 0;
  const auto pixels = images.pixels.split(500), labels = images.labels.split(500);
  for (size_t i = 0; i < pixels.size(); ++i) {
    right += (model->forward(pixels[i]).argmax(1) == labels[i]).sum().item<int64_t>();
  }
  model->train();
  return static_cast<double>(right) / static_cast<double>(images.labels.size(0));
}

}  // namespace

int main(int argc, char** argv) try {
  torch::manual_seed(0);
  const auto patterns = torch::upsample_bilinear2d(torch::randn({10, 3, 4, 4}), {32, 32}, false);
  const std::string folder = argc > 1 ? argv[1] : "";
  const auto train =
      folder.empty() ? generate(2000, patterns) : read_cifar10(folder + "/data_batch_1.bin");
  const auto test =
      folder.empty() ? generate(1000, patterns) : read_cifar10(folder + "/test_batch.bin");
  const int64_t epochs = argc > 2 ? std::stoll(argv[2]) : 3;
  constexpr int64_t kBatch = 64;
  const int64_t steps = epochs * ((train.labels.size(0) + kBatch - 1) / kBatch);

  auto model = resnet20();
  const auto sub =
      lawn::final_homogeneous_subnetwork(model->forward(test.pixels.slice(0, 0, 2)), *model);
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
