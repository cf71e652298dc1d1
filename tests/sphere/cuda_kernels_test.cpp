// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <lawn/sphere/cuda/launchers.cu>
TEST(A,B){EXPECT_NE(lawn::sphere::cuda::launchers,nullptr);}
