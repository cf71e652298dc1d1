# SPDX-License-Identifier: Apache-2.0
#
# cmake [-DFOLDER=data] [-DURL=...] -P cmake/DownloadCifar10.cmake
#
# Downloads CIFAR-10 in its binary layout (162 MB, from its authors' page) and unpacks it into FOLDER/cifar-10-batches-bin.
# URL may name a mirror or a file (file:///...): the contents are checked in any case.

cmake_minimum_required(VERSION 3.25)

if(NOT FOLDER)
  set(FOLDER data)
endif()
if(NOT URL)
  set(URL https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz)
endif()
if(NOT SHA256)
  set(SHA256 c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd)
endif()

get_filename_component(FOLDER "${FOLDER}" ABSOLUTE)
set(images "${FOLDER}/cifar-10-batches-bin")
set(archive "${FOLDER}/cifar-10-binary.tar.gz")
set(unfinished "${FOLDER}/unfinished")

if(EXISTS "${images}/test_batch.bin")
  message(STATUS "CIFAR-10 is already in ${images}")
  return()
endif()

file(MAKE_DIRECTORY "${FOLDER}")
message(STATUS "Downloading ${URL}")
file(DOWNLOAD "${URL}" "${archive}" STATUS status SHOW_PROGRESS TLS_VERIFY ON INACTIVITY_TIMEOUT 60)
list(GET status 0 code)
list(GET status 1 reason)
if(NOT code EQUAL 0)
  file(REMOVE "${archive}")
  message(FATAL_ERROR "CIFAR-10 could not be downloaded from ${URL}: ${reason}. Without a network, bring "
                      "cifar-10-binary.tar.gz yourself and pass -DLAWN_CIFAR10_URL=file:///path/to/it")
endif()

file(SHA256 "${archive}" actual)
if(NOT actual STREQUAL SHA256)
  file(REMOVE "${archive}")
  message(FATAL_ERROR "${URL} is not CIFAR-10's binary archive: its SHA-256 is ${actual}, expected ${SHA256}")
endif()

# Unpacked beside its place and renamed at the end: an interrupted run leaves nothing that looks complete.
file(REMOVE_RECURSE "${unfinished}")
file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${unfinished}")
file(REMOVE_RECURSE "${images}")
file(RENAME "${unfinished}/cifar-10-batches-bin" "${images}")
file(REMOVE_RECURSE "${unfinished}" "${archive}")
message(STATUS "CIFAR-10 is in ${images}")
