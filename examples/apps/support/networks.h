// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <memory>
#include <string>
#include <vector>

#include "examples/apps/support/classifier.h"
#include "examples/apps/support/dataset.h"
#include "examples/apps/support/mlp.h"
#include "examples/apps/support/resnet.h"
#include "examples/apps/support/vgg.h"

namespace examples {

/// The networks that make_network() knows.
inline const std::vector<std::string> kNetworks = {
    "resnet20", "resnet20-without-norm", "resnet18", "vgg", "cnn", "mlp", "mlp-layer-norm"};

/// A new network for the images of `data`, its weights drawn from torch's default generator.
/// @param name  one of kNetworks
inline std::shared_ptr<Classifier> make_network(const std::string& name, const Dataset& data) {
  if (name == "resnet20") return resnet20(data.channels(), data.classes).ptr();
  if (name == "resnet20-without-norm") {
    return resnet20(data.channels(), data.classes, /*batch_norm=*/false).ptr();
  }
  if (name == "resnet18") return resnet18(data.channels(), data.classes).ptr();
  if (name == "mlp" || name == "mlp-layer-norm") {
    MLPOptions options;
    options.inputs = data.images[0].numel();
    options.classes = data.classes;
    options.layer_norm = name == "mlp-layer-norm";
    return MLP(options).ptr();
  }
  TORCH_CHECK(name == "vgg" || name == "cnn", "unknown network '", name, "'; expected one of ",
              kNetworks);
  VGGOptions options = name == "cnn" ? small_vgg() : VGGOptions();
  options.channels = data.channels();
  options.image_size = data.image_size();
  options.classes = data.classes;
  return VGG(options).ptr();
}

}  // namespace examples
