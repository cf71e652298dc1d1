# SPDX-License-Identifier: Apache-2.0
#
# lawn_find_torch() looks for a LibTorch in
#   1. Torch_DIR;
#   2. wherever find_package(Torch) looks: Torch_ROOT, CMAKE_PREFIX_PATH, the environment's Torch_DIR and CMAKE_PREFIX_PATH, the
#      system's folders, in this order;
#   3. the torch of python3 (a `pip install torch` there is a LibTorch, too);
#   4. the per-user cache, which only lawn's own top-level build fills (InstallLibTorch.cmake).
# It sets Torch_DIR in CMake's cache, as find_package does, and LAWN_TORCH_REASON to where that comes from. Torch_DIR or Torch_ROOT
# that names a folder without a LibTorch is an error, where find_package would take another one without a word.

include_guard()
cmake_policy(PUSH)
cmake_policy(VERSION 3.25) # a project's older policies, with which find_package ignores Torch_ROOT, do not count here

# Sets `result` to the folder of the TorchConfig.cmake that find_package(Torch) takes, or to nothing. The arguments behind are the
# parts of its search to use, by their names in find_package's options NO_<part>.
function(lawn_search_torch result)
  set(left_out PACKAGE_ROOT_PATH CMAKE_PATH CMAKE_ENVIRONMENT_PATH SYSTEM_ENVIRONMENT_PATH CMAKE_PACKAGE_REGISTRY
               CMAKE_SYSTEM_PATH CMAKE_SYSTEM_PACKAGE_REGISTRY)
  list(REMOVE_ITEM left_out ${ARGN})
  list(TRANSFORM left_out PREPEND NO_)
  # The CMake files of a LibTorch may stop with an error, and they enable CUDA: they must not be loaded before their place is known.
  # No LibTorch has this version, so that find_package lists those that it would take, and loads none.
  set(CMAKE_REQUIRE_FIND_PACKAGE_Torch OFF)
  set(kept "${Torch_DIR}")
  unset(Torch_DIR)
  unset(Torch_DIR CACHE)
  find_package(Torch 9999 QUIET CONFIG ${left_out})
  unset(Torch_DIR CACHE)
  if(kept)
    set(Torch_DIR "${kept}" CACHE PATH "Folder of TorchConfig.cmake")
  endif()
  set(folder "")
  if(Torch_CONSIDERED_CONFIGS)
    list(GET Torch_CONSIDERED_CONFIGS 0 folder)
    get_filename_component(folder "${folder}" DIRECTORY)
  endif()
  set(${result} "${folder}" PARENT_SCOPE)
endfunction()

# Sets `folder` to the LibTorch that a user has asked for otherwise than by Torch_DIR, or to nothing, and `reason` to how.
function(lawn_search_asked_torch folder reason)
  set(from Torch_ROOT)
  lawn_search_torch(found PACKAGE_ROOT_PATH)
  set(asked ${Torch_ROOT} $ENV{Torch_ROOT})
  if(asked AND NOT found)
    message(FATAL_ERROR "lawn: expected a LibTorch in Torch_ROOT, got ${asked}, where there is none; correct it, or unset it "
                        "to search elsewhere")
  endif()
  if(NOT found)
    set(from CMAKE_PREFIX_PATH)
    lawn_search_torch(found CMAKE_PATH)
  endif()
  if(NOT found AND NOT "$ENV{Torch_DIR}" STREQUAL "")
    set(from "the environment's Torch_DIR")
    set(kept "$ENV{CMAKE_PREFIX_PATH}")
    set(ENV{CMAKE_PREFIX_PATH} "") # comes after it
    lawn_search_torch(found CMAKE_ENVIRONMENT_PATH)
    set(ENV{CMAKE_PREFIX_PATH} "${kept}")
    if(NOT found)
      message(FATAL_ERROR "lawn: expected a LibTorch in the environment's Torch_DIR, got $ENV{Torch_DIR}, where there is none; "
                          "correct it, or unset it to search elsewhere")
    endif()
  endif()
  if(NOT found)
    set(from "the environment's CMAKE_PREFIX_PATH")
    lawn_search_torch(found CMAKE_ENVIRONMENT_PATH)
  endif()
  set(${folder} "${found}" PARENT_SCOPE)
  set(${reason} "${from}" PARENT_SCOPE)
endfunction()

# Sets `result` to the folder of the TorchConfig.cmake in the per-user cache, installed there if that is asked for.
function(lawn_cached_torch result)
  if(NOT LAWN_LIBTORCH_VERSION)
    set(LAWN_LIBTORCH_VERSION 2.11.0)
  endif()
  set(cache "$ENV{XDG_CACHE_HOME}")
  if(cache STREQUAL "")
    set(cache "$ENV{HOME}/.cache")
  endif()
  string(APPEND cache "/lawn/libtorch-${LAWN_LIBTORCH_VERSION}")
  set(folder "${cache}/torch/share/cmake/Torch")
  if(LAWN_INSTALL_LIBTORCH AND NOT EXISTS "${folder}/TorchConfig.cmake")
    lawn_install_libtorch("${cache}" ${LAWN_LIBTORCH_VERSION})
  endif()
  if(NOT EXISTS "${folder}/TorchConfig.cmake")
    if(CMAKE_FIND_PACKAGE_NAME STREQUAL "lawn" AND NOT lawn_FIND_REQUIRED)
      set(${result} "" PARENT_SCOPE)
      return() # the project can do without lawn: lawnConfig.cmake tells it so
    endif()
    message(
      FATAL_ERROR
        "lawn: no LibTorch was found in Torch_DIR, Torch_ROOT, CMAKE_PREFIX_PATH, the system's folders, the torch of python3 or "
        "${cache}. Install it (python3 -m pip install torch==${LAWN_LIBTORCH_VERSION}) or unpack it from pytorch.org, and "
        "pass -DCMAKE_PREFIX_PATH=/path/to/libtorch")
  endif()
  set(${result} "${folder}" PARENT_SCOPE)
endfunction()

# Refuses a Torch_DIR without a LibTorch.
function(lawn_check_torch_dir)
  get_filename_component(folder "${Torch_DIR}" ABSOLUTE)
  if(EXISTS "${folder}/TorchConfig.cmake")
    return()
  endif()
  set(remedy "pass the folder of TorchConfig.cmake (share/cmake/Torch in a LibTorch), or -UTorch_DIR to search elsewhere")
  foreach(inner share/cmake/Torch torch/share/cmake/Torch)
    if(EXISTS "${folder}/${inner}/TorchConfig.cmake")
      set(remedy "pass -DTorch_DIR=${folder}/${inner}")
    endif()
  endforeach()
  message(FATAL_ERROR "lawn: expected TorchConfig.cmake in Torch_DIR, got ${Torch_DIR}, where there is none; ${remedy}")
endfunction()

function(lawn_find_torch)
  if(Torch_DIR)
    lawn_check_torch_dir()
    if(NOT Torch_DIR STREQUAL "${LAWN_TORCH_FOUND}")
      set(LAWN_TORCH_REASON Torch_DIR PARENT_SCOPE)
      return()
    endif()
    # Found by an earlier configuration of this build folder, whose cache has more of it than Torch_DIR: it stays.
    lawn_search_asked_torch(found reason)
    if(found AND NOT found STREQUAL Torch_DIR)
      message(WARNING "lawn: keeps the LibTorch in ${Torch_DIR}, which this build folder was first configured with, although "
                      "${reason} now leads to ${found}; to change, configure with --fresh or in another build folder")
    endif()
    set(LAWN_TORCH_REASON "${LAWN_TORCH_FOUND_FROM}" PARENT_SCOPE)
    return()
  endif()

  lawn_search_asked_torch(found reason)
  if(NOT found)
    set(reason "the system's folders")
    lawn_search_torch(found SYSTEM_ENVIRONMENT_PATH CMAKE_PACKAGE_REGISTRY CMAKE_SYSTEM_PATH CMAKE_SYSTEM_PACKAGE_REGISTRY)
    if(NOT found)
      set(reason "the torch of python3")
      execute_process(
        COMMAND python3 -c "import torch; print(torch.utils.cmake_prefix_path)"
        OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      if(EXISTS "${prefix}/Torch/TorchConfig.cmake")
        set(found "${prefix}/Torch")
      else()
        set(reason "the per-user cache")
        lawn_cached_torch(found)
        if(NOT found)
          return()
        endif()
      endif()
    endif()
    if(CMAKE_PREFIX_PATH OR NOT "$ENV{CMAKE_PREFIX_PATH}" STREQUAL "")
      string(APPEND reason ", since CMAKE_PREFIX_PATH has none")
    endif()
  endif()
  set(Torch_DIR "${found}" CACHE PATH "Folder of TorchConfig.cmake" FORCE)
  set(LAWN_TORCH_FOUND "${found}" CACHE INTERNAL "Torch_DIR, where lawn has found it")
  set(LAWN_TORCH_FOUND_FROM "${reason}" CACHE INTERNAL "Where the LibTorch in LAWN_TORCH_FOUND comes from")
  set(LAWN_TORCH_REASON "${reason}" PARENT_SCOPE)
endfunction()

cmake_policy(POP)
