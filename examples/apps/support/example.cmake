# SPDX-License-Identifier: Apache-2.0
#
# What the training programs' projects share.

if(NOT TARGET lawn::lawn)
  find_package(lawn REQUIRED OPTIONAL_COMPONENTS mpi)
endif()
include("${CMAKE_CURRENT_LIST_DIR}/library.cmake")

# The program `name` of main.cpp; inside lawn's own build also its test app_<name>_test, by a SCRIPT of tests/examples that
# takes the path of the program. Each further script is a test app_<name>_<script>.
function(lawn_add_example name script)
  add_executable(${name} main.cpp)
  target_link_libraries(${name} PRIVATE lawn_examples_support)
  if(TARGET lawn_test_main)
    lawn_precompile_torch(${name})
  endif()

  find_package(ZLIB QUIET)
  if(ZLIB_FOUND) # gzipped IDX files are read as they are
    target_link_libraries(${name} PRIVATE ZLIB::ZLIB)
    target_compile_definitions(${name} PRIVATE LAWN_EXAMPLES_ZLIB)
  endif()

  if(LAWN_BUILD_TESTS)
    find_package(Python3 REQUIRED COMPONENTS Interpreter)
    add_test(NAME app_${name}_test
             COMMAND "${Python3_EXECUTABLE}" -B "${PROJECT_SOURCE_DIR}/../../../tests/examples/${script}" $<TARGET_FILE:${name}>)
    set(tests app_${name}_test)
    foreach(more IN LISTS ARGN)
      get_filename_component(stem "${more}" NAME_WE)
      add_test(NAME app_${name}_${stem}
               COMMAND "${Python3_EXECUTABLE}" -B "${PROJECT_SOURCE_DIR}/../../../tests/examples/${more}" $<TARGET_FILE:${name}>)
      list(APPEND tests app_${name}_${stem})
    endforeach()
    set_tests_properties(${tests} PROPERTIES ENVIRONMENT "OMP_WAIT_POLICY=PASSIVE")
  endif()
endfunction()
