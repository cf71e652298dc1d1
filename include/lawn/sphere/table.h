// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceType.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <lawn/sphere/layer.h>

namespace lawn::sphere {

/// What a device offers for lists of layers. A fast implementation fills one of these and hands it
/// to `register_table`; layers that it does not take go through ATen.
struct Table {
  /// Whether the functions below accept this layer (its layout and dtypes).
  bool (*takes)(const Layer& layer);
  /// Norm of each sphere into `norms[i]`, preallocated as `Layer::radius` is.
  void (*norms)(c10::ArrayRef<Layer> layers, c10::ArrayRef<at::Tensor> norms);
  /// As `aten::project_to_tangent_`; a layer without a gradient is passed over.
  void (*project_to_tangent_)(c10::ArrayRef<Layer> layers);
  /// As `aten::rescale_`; every layer has a radius.
  void (*rescale_)(c10::ArrayRef<Layer> layers);
};

namespace detail {
inline std::array<const Table*, c10::COMPILE_TIME_MAX_DEVICE_TYPES>& tables() {
  static std::array<const Table*, c10::COMPILE_TIME_MAX_DEVICE_TYPES> all{};
  return all;
}
}  // namespace detail

/// Makes `table` the one that layers on `device` go to first; a null pointer takes it back.
/// @param table  must outlive every use; all its functions set
/// @note  not synchronised with steps that are running: call it at start-up
inline void register_table(c10::DeviceType device, const Table* table) {
  TORCH_CHECK(table == nullptr ||
                  (table->takes && table->norms && table->project_to_tangent_ && table->rescale_),
              "lawn::sphere::register_table: expected every function of the table to be set; got a "
              "null pointer among them for device ",
              device);
  detail::tables()[static_cast<std::size_t>(device)] = table;
}

/// The table of `device`, or null where ATen does the work.
inline const Table* table_of(c10::DeviceType device) {
  return detail::tables()[static_cast<std::size_t>(device)];
}

}  // namespace lawn::sphere
