// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>

#include <c10/core/DeviceType.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <lawn/sphere/layer.h>

namespace lawn::sphere {

/// The functions that a device offers for lists of layers. A fast implementation fills a table and
/// passes it to `register_table`; layers that it does not take go through ATen.
struct Table {
  /// Whether the functions below accept this layer (its layout and dtypes).
  bool (*takes)(const Layer& layer);
  /// Writes the norm of each sphere into `radius`.
  void (*norms)(c10::ArrayRef<Layer> layers);
  /// Does what `aten::project_to_tangent_` does; skips a layer without a gradient.
  void (*project_to_tangent_)(c10::ArrayRef<Layer> layers);
  /// Does what `aten::rescale_` does; every layer has a radius.
  void (*rescale_)(c10::ArrayRef<Layer> layers);
};

namespace detail {
inline std::array<const Table*, c10::COMPILE_TIME_MAX_DEVICE_TYPES>& registered_tables() {
  static std::array<const Table*, c10::COMPILE_TIME_MAX_DEVICE_TYPES> all{};
  return all;
}
}  // namespace detail

/// Makes layers on `device` go to `table` instead of lawn's own; a null pointer restores lawn's
/// own.
/// @param device  a kind of devices: CPU, CUDA, ...
/// @param table   must outlive every use, and have all functions set
/// @note  not synchronised with steps that are running: call it at start-up
inline void register_table(c10::DeviceType device, const Table* table) {
  TORCH_CHECK(table == nullptr ||
                  (table->takes && table->norms && table->project_to_tangent_ && table->rescale_),
              "lawn::sphere::register_table: expected every function of the table to be set; got a "
              "null pointer among them for device ",
              device);
  detail::registered_tables()[static_cast<std::size_t>(device)] = table;
}

}  // namespace lawn::sphere
