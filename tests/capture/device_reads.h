// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include <ATen/record_function.h>

namespace lawn::testing {

/// How often `action` reads a number out of a tensor: on a GPU, each time would wait for the
/// device.
template <class Action>
int device_reads(const Action& action) {
  thread_local int reads = 0;
  reads = 0;
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback([](const at::RecordFunction& function)
                                     -> std::unique_ptr<at::ObserverContext> {
        if (std::string(function.name()) == "aten::_local_scalar_dense") ++reads;
        return nullptr;
      }).scopes({at::RecordScope::FUNCTION}));
  action();
  at::removeCallback(handle);
  return reads;
}

}  // namespace lawn::testing
