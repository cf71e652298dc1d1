// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// The lists of weight shapes that the benchmarks step over: those of two or more dimensions of
/// real networks, which is what LAWN constrains with `select_all_weights`, and two extremes.
namespace bench {

using Shape = std::vector<int64_t>;

/// A list of shapes under the name that the benchmarks carry.
struct ShapeList {
  std::string name;
  std::vector<Shape> shapes;

  int64_t elements() const {
    int64_t total = 0;
    for (const Shape& shape : shapes) {
      int64_t product = 1;
      for (const int64_t size : shape) product *= size;
      total += product;
    }
    return total;
  }
};

/// The network for 32x32 images with 1x1 convolutions where the width changes: 22 tensors, 0.27 M.
/// @source He et al. 2015, arXiv 1512.03385, section 4.2, shortcut B
inline ShapeList resnet20() {
  std::vector<Shape> shapes = {{16, 3, 3, 3}};
  int64_t in = 16;
  for (const int64_t out : {16, 32, 64}) {
    for (int block = 0; block < 3; ++block) {
      shapes.push_back({out, in, 3, 3});
      shapes.push_back({out, out, 3, 3});
      if (in != out) shapes.push_back({out, in, 1, 1});
      in = out;
    }
  }
  shapes.push_back({10, 64});
  return {"ResNet-20", shapes};
}

/// The network for ImageNet, 1,000 classes: 21 tensors, 11.7 M.
/// @source He et al. 2015, arXiv 1512.03385, table 1
inline ShapeList resnet18() {
  std::vector<Shape> shapes = {{64, 3, 7, 7}};
  int64_t in = 64;
  for (const int64_t out : {64, 128, 256, 512}) {
    for (int block = 0; block < 2; ++block) {
      shapes.push_back({out, in, 3, 3});
      shapes.push_back({out, out, 3, 3});
      if (in != out) shapes.push_back({out, in, 1, 1});
      in = out;
    }
  }
  shapes.push_back({1000, 512});
  return {"ResNet-18", shapes};
}

/// The network for ImageNet, 1,000 classes, in blocks with a bottleneck: 54 tensors, 25.5 M.
/// @source He et al. 2015, arXiv 1512.03385, table 1
inline ShapeList resnet50() {
  constexpr int kBlocks[] = {3, 4, 6, 3};
  std::vector<Shape> shapes = {{64, 3, 7, 7}};
  int64_t in = 64;
  int64_t width = 64;
  for (const int blocks : kBlocks) {
    for (int block = 0; block < blocks; ++block) {
      shapes.push_back({width, in, 1, 1});
      shapes.push_back({width, width, 3, 3});
      shapes.push_back({4 * width, width, 1, 1});
      if (block == 0) shapes.push_back({4 * width, in, 1, 1});
      in = 4 * width;
    }
    width *= 2;
  }
  shapes.push_back({1000, 2048});
  return {"ResNet-50", shapes};
}

/// One tensor that no cache holds: memory alone counts.
inline ShapeList one_large() { return {"1x25M", {{5000, 5000}}}; }

/// Many tensors with next to nothing in each: calls and launches alone count.
inline ShapeList many_small() { return {"300x64", std::vector<Shape>(300, {8, 8})}; }

inline std::vector<ShapeList> shape_lists() {
  return {resnet20(), resnet18(), resnet50(), one_large(), many_small()};
}

}  // namespace bench
