# SPDX-License-Identifier: Apache-2.0
#
# What of the programs is compiled once for all of them, and for their tests: the target lawn_examples_support.

if(NOT TARGET lawn_examples_support)
  add_library(lawn_examples_support STATIC "${CMAKE_CURRENT_LIST_DIR}/optimizers.cpp")
  target_link_libraries(lawn_examples_support PUBLIC lawn::lawn)
  target_include_directories(lawn_examples_support PUBLIC "${CMAKE_CURRENT_LIST_DIR}/../../..") # examples/apps/support/...
  if(TARGET lawn_test_main) # spares half of a compile
    lawn_precompile_torch(lawn_examples_support)
  endif()
endif()
