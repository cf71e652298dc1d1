// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <memory>
#include <string>

#include "examples/apps/support/classifier.h"
#include "examples/apps/support/dataset.h"
#include "examples/apps/support/mlp.h"
#include "examples/apps/support/resnet.h"
#include "examples/apps/support/vgg.h"

namespace examples {

/// A new network for the images of `data`, its weights drawn from torch's default generator.
/// @param name  resnet20, resnet20-without-norm, resnet18, vgg, mlp or mlp-layer-norm
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
  TORCH_CHECK(name == "vgg", "unknown network '", name,
              "'; expected resnet20, resnet20-without-norm, resnet18, vgg, mlp or mlp-layer-norm");
  VGGOptions options;
  options.channels = data.channels();
  options.image_size = data.image_size();
  options.classes = data.classes;
  return VGG(options).ptr();
}

}  // namespace examples
