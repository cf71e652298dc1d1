// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <c10/util/Exception.h>

namespace lawn::testing {

/// Keeps LibTorch's warnings while it lives, instead of printing them.
class CapturedWarnings {
 public:
  std::string text() const { return handler_.text; }

 private:
  struct Handler : c10::WarningHandler {
    void process(const c10::Warning& warning) override { text += warning.msg() + "\n"; }
    std::string text;
  };

  Handler handler_;
  c10::WarningUtils::WarningHandlerGuard guard_{&handler_};
  // Without it, a warning appears once per place in the code and process.
  c10::WarningUtils::WarnAlways always_{true};
};

}  // namespace lawn::testing
