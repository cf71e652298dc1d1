// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

namespace lawn::testing {

/// The message of the c10::Error that `action` throws; a failed test and "" if it throws none.
template <class Action>
std::string refusal(const Action& action) {
  try {
    action();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  ADD_FAILURE() << "expected a refusal, but nothing was thrown";
  return "";
}

/// Expects `action` to throw a c10::Error whose message has `part` in it.
template <class Action>
void expect_refusal(const Action& action, const std::string& part) {
  const std::string message = refusal(action);
  EXPECT_NE(message.find(part), std::string::npos) << "got: " << message;
}

}  // namespace lawn::testing
