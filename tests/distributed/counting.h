// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/torch.h>

#include <lawn/distributed/collective.h>

namespace lawn::testing {

/// A collective that counts what goes through another.
class Counting : public Collective {
 public:
  explicit Counting(Collective& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  void sum_(const torch::Tensor& tensor) override {
    sums.push_back(tensor.numel());
    inner_.sum_(tensor);
  }
  void broadcast_(const torch::Tensor& tensor, int root) override {
    inner_.broadcast_(tensor, root);
  }
  std::vector<std::string> gather(const std::string& text) override {
    ++gathers;
    return inner_.gather(text);
  }
  void fail(const std::string& reason) noexcept override { inner_.fail(reason); }

  std::vector<int64_t> sums;  ///< numbers in each
  int gathers = 0;

 private:
  Collective& inner_;
};

}  // namespace lawn::testing
