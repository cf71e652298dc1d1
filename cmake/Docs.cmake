# SPDX-License-Identifier: Apache-2.0
#
# The target docs makes the reference of the public names, with the guide's pages and the examples, in <build>/docs/html. A public
# name without a docstring is an error, and so is a docstring that does not fit its name.

find_package(Doxygen QUIET)
if(NOT DOXYGEN_FOUND)
  message(STATUS "lawn: no target docs, since there is no Doxygen")
  return()
endif()

set(DOXYGEN_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/docs")
set(DOXYGEN_PROJECT_BRIEF "${PROJECT_DESCRIPTION}")
set(DOXYGEN_FILE_PATTERNS *.h *.md *.cpp)
set(DOXYGEN_STRIP_FROM_PATH "${PROJECT_SOURCE_DIR}")
set(DOXYGEN_STRIP_FROM_INC_PATH "${PROJECT_SOURCE_DIR}/include")
set(DOXYGEN_USE_MDFILE_AS_MAINPAGE "${PROJECT_SOURCE_DIR}/README.md")
set(DOXYGEN_EXAMPLE_PATH "${PROJECT_SOURCE_DIR}/examples")
set(DOXYGEN_IMAGE_PATH "${PROJECT_SOURCE_DIR}/docs")
set(DOXYGEN_JAVADOC_AUTOBRIEF YES) # the first sentence
set(DOXYGEN_ALIASES [["source=\par Source^^"]])
set(DOXYGEN_FILTER_PATTERNS "*.h=\"${PROJECT_SOURCE_DIR}/scripts/doxygen_filter.py\"")
# Private names: what is in a namespace detail, and the loops and kernels of lawn::sphere.
set(DOXYGEN_EXCLUDE_SYMBOLS *detail* lawn::sphere::cpu* lawn::sphere::cuda* lawn::sphere::aten*)
set(DOXYGEN_HIDE_FRIEND_COMPOUNDS YES)
set(DOXYGEN_MACRO_EXPANSION YES)
set(DOXYGEN_EXPAND_ONLY_PREDEF YES)
set(DOXYGEN_PREDEFINED "TORCH_ARG(T,name)=T name" "TORCH_MODULE(Name)=using Name = torch::nn::ModuleHolder<Name ## Impl>")
set(DOXYGEN_GENERATE_TREEVIEW YES)
set(DOXYGEN_SOURCE_BROWSER YES) # the examples
set(DOXYGEN_HTML_EXTRA_STYLESHEET "${PROJECT_SOURCE_DIR}/docs/reference.css")
set(DOXYGEN_SORT_MEMBER_DOCS NO)
set(DOXYGEN_QUIET YES)
set(DOXYGEN_WARN_AS_ERROR FAIL_ON_WARNINGS)

file(GLOB pages CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/docs/*.md" "${PROJECT_SOURCE_DIR}/docs/guide/*.md")
file(GLOB programs CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/examples/*.cpp")
doxygen_add_docs(docs "${PROJECT_SOURCE_DIR}/include/lawn" "${PROJECT_SOURCE_DIR}/README.md" "${PROJECT_SOURCE_DIR}/examples/README.md"
                 "${PROJECT_SOURCE_DIR}/packaging/README.md" "${PROJECT_SOURCE_DIR}/CONTRIBUTING.md" ${pages} ${programs} COMMENT "The reference, in ${DOXYGEN_OUTPUT_DIRECTORY}/html")
