// SPDX-License-Identifier: Apache-2.0
#include "lawn/version.h"

#include <gtest/gtest.h>

#include <string>

namespace {

TEST(Version, StringEqualsItsParts) {
  EXPECT_EQ(std::string(LAWN_VERSION), std::to_string(LAWN_VERSION_MAJOR) + "." +
                                           std::to_string(LAWN_VERSION_MINOR) + "." +
                                           std::to_string(LAWN_VERSION_PATCH));
}

TEST(Version, EqualsThatOfTheCMakeProject) { EXPECT_STREQ(LAWN_VERSION, LAWN_CMAKE_VERSION); }

}  // namespace
