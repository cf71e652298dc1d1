# SPDX-License-Identifier: Apache-2.0
#
# What the pages show is compiled and run: one program of all snippets, since reading LibTorch takes longer than they do. As programs
# of their own they are only compiled, by the target snippets_alone: a reader's program has only what the snippet includes, which is
# torch/torch.h in any case.

file(GLOB pages CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/README.md" "${PROJECT_SOURCE_DIR}/docs/guide/*.md")
set(script "${PROJECT_SOURCE_DIR}/scripts/snippets.py")
set(folder "${PROJECT_BINARY_DIR}/snippets")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${pages} "${script}")
execute_process(COMMAND "${Python3_EXECUTABLE}" "${script}" "${folder}" ${pages} OUTPUT_VARIABLE snippets
                COMMAND_ERROR_IS_FATAL ANY)

add_executable(snippets "${folder}/snippets.cpp")
target_link_libraries(snippets PRIVATE lawn::lawn)
lawn_precompile_torch(snippets)
foreach(snippet IN LISTS snippets)
  add_test(NAME snippet_${snippet} COMMAND snippets ${snippet} WORKING_DIRECTORY "${folder}")
endforeach()

list(TRANSFORM snippets REPLACE "(.+)" "${folder}/\\1.cpp" OUTPUT_VARIABLE programs)
add_library(snippets_alone OBJECT EXCLUDE_FROM_ALL ${programs})
target_link_libraries(snippets_alone PRIVATE lawn::lawn)
lawn_precompile_torch(snippets_alone)
