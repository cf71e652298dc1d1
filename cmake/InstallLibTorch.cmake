# SPDX-License-Identifier: Apache-2.0
#
# Where no LibTorch is found and LAWN_INSTALL_LIBTORCH is on, installs the pinned wheel with pip into a per-user cache that
# all build folders share (LawnTorch.cmake names the folder). Never included by the installed package: a consumer downloads nothing.

include_guard()

# Installs LibTorch into `folder`: into a temporary folder beside it, renamed at the end, so that an interrupted install
# leaves nothing that looks complete; under a lock, so that two configurations at once install it once.
function(lawn_install_libtorch folder version)
  find_program(LAWN_PYTHON NAMES python3 python REQUIRED)
  get_filename_component(parent "${folder}" DIRECTORY)
  file(MAKE_DIRECTORY "${parent}")
  file(LOCK "${folder}.lock" GUARD FUNCTION RESULT_VARIABLE locked TIMEOUT 0)
  if(NOT locked STREQUAL "0")
    message(STATUS "lawn: waits for another configuration, which installs LibTorch into ${folder}")
    file(LOCK "${folder}.lock" GUARD FUNCTION RESULT_VARIABLE locked TIMEOUT 1800)
  endif()
  if(NOT locked STREQUAL "0")
    message(FATAL_ERROR "lawn: could not lock ${folder}.lock: ${locked}")
  endif()
  if(EXISTS "${folder}/torch/share/cmake/Torch/TorchConfig.cmake")
    return() # another configuration installed it while this one waited
  endif()

  message(STATUS "lawn: no LibTorch found; installing torch ${version} into ${folder} "
                 "(about 5 GB, once; -DLAWN_INSTALL_LIBTORCH=OFF refuses)")
  set(unfinished "${folder}.unfinished")
  file(REMOVE_RECURSE "${unfinished}" "${unfinished}.tmp")
  file(MAKE_DIRECTORY "${unfinished}.tmp") # pip unpacks there: /tmp is often too small
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env "TMPDIR=${unfinished}.tmp" PIP_USER=0 "${LAWN_PYTHON}" -m pip install --quiet --disable-pip-version-check
            --no-input --target "${unfinished}" "torch==${version}"
    RESULT_VARIABLE status)
  file(REMOVE_RECURSE "${unfinished}.tmp")
  if(NOT status EQUAL 0)
    file(REMOVE_RECURSE "${unfinished}")
    message(
      FATAL_ERROR
        "lawn: `${LAWN_PYTHON} -m pip install torch==${version}` failed (${status}); its reason stands above. "
        "It takes Python 3.10 or later with pip (of Debian the package python3-pip) and 10 GB in ${folder}; "
        "XDG_CACHE_HOME names another cache. Without a network, give a LibTorch of your own: -DCMAKE_PREFIX_PATH=/path/to/libtorch")
  endif()
  file(REMOVE_RECURSE "${folder}")
  file(RENAME "${unfinished}" "${folder}")
endfunction()
