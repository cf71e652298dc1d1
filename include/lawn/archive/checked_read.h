// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#if defined(__GLIBC__) && defined(__x86_64__)
#include <malloc.h>
#endif

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/_validate_sparse_coo_tensor_args.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/ScalarType.h>
#include <c10/core/Storage.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/serialize/input-archive.h>

#include <lawn/finite_math.h>

/// Reads archives that may be damaged or of another program. LibTorch's own functions check neither
/// types nor, in a tensor, that its storage is as large as sizes and strides say.
/// @param who  begins the messages, which end with "nothing was changed": read everything before
///             you change anything
namespace lawn::detail::archive {

/// Whether the memory of a storage is as large as the storage says. An archive holds each storage's
/// size and, apart from it, the bytes, of which LibTorch's reader takes as many as are there. They
/// can be counted where LibTorch's allocator has them from glibc, as on x86 (on AArch64 from 2.10 on
/// it has them from mimalloc); elsewhere this function holds.
inline bool has_its_memory(const at::Storage& storage) {
#if defined(__GLIBC__) && defined(__x86_64__)
  const at::DataPtr& memory = storage.data_ptr();
  if (memory.get() != nullptr && memory.get_deleter() != nullptr &&
      memory.get_deleter() == c10::GetDefaultCPUAllocator()->raw_deleter()) {
    return ::malloc_usable_size(memory.get()) >= storage.nbytes();
  }
#endif
  return storage.device_type() != at::kCPU || storage.nbytes() == 0 || storage.data() != nullptr;
}

/// @throws c10::Error for a tensor that is undefined, not dense, or reaches beyond its storage
inline void check_storage(const char* who, const std::string& what, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.defined() && tensor.layout() == at::kStrided, who, ": expected ", what,
              " to be a dense tensor, got an undefined or sparse one; nothing was changed");
  bool whole = tensor.storage_offset() >= 0;
  for (const int64_t stride : tensor.strides()) whole = whole && stride >= 0;
  if (whole && tensor.numel() > 0) {
    const auto bytes =
        at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.itemsize(),
                                         static_cast<std::size_t>(tensor.storage_offset()));
    whole = bytes <= tensor.storage().nbytes() && has_its_memory(tensor.storage());
  }
  TORCH_CHECK(whole, who, ": expected ", what, " of shape ", tensor.sizes(), " and strides ",
              tensor.strides(), " to lie in its storage of ", tensor.storage().nbytes(),
              " bytes, got one that does not: the checkpoint is damaged; nothing was changed");
}

/// Checks a tensor, which may be sparse (COO), as the momentum of sparse gradients is.
inline void check_storages(const char* who, const std::string& what, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.layout() != at::kSparse) return check_storage(who, what, tensor);
  check_storage(who, "the indices of " + what, tensor._indices());
  check_storage(who, "the values of " + what, tensor._values());
  at::_validate_sparse_coo_tensor_args(tensor._indices(), tensor._values(), tensor.sizes());
}

/// Checks all tensors of an archive, and of the archives in it.
inline void check_storages(const char* who, torch::serialize::InputArchive& archive) {
  for (const std::string& key : archive.keys()) {
    c10::IValue value;
    if (!archive.try_read(key, value)) continue;
    if (value.isTensor() && value.toTensor().defined()) {
      check_storages(who, key, value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) check_storages(who, key, tensor);
    } else if (value.isModule()) {
      torch::serialize::InputArchive part;
      if (archive.try_read(key, part)) check_storages(who, part);
    }
  }
}

/// Reads a value of which `is` holds.
/// @param type  for the message: "an integer"
inline c10::IValue read_value(const char* who, torch::serialize::InputArchive& archive,
                              const std::string& key, bool (c10::IValue::*is)() const,
                              const char* type) {
  c10::IValue value;
  TORCH_CHECK(archive.try_read(key, value), who, ": expected a checkpoint with ", key,
              ", got one without; nothing was changed");
  TORCH_CHECK((value.*is)(), who, ": expected ", key, " to be ", type, ", got ", value.tagKind(),
              "; nothing was changed");
  return value;
}

/// Reads an integer from `least` to `most`.
inline int64_t read_int(const char* who, torch::serialize::InputArchive& archive,
                        const std::string& key, int64_t least = 0,
                        int64_t most = std::numeric_limits<int64_t>::max()) {
  const int64_t number = read_value(who, archive, key, &c10::IValue::isInt, "an integer").toInt();
  TORCH_CHECK(number >= least && number <= most, who, ": expected ", key, " in [", least, ", ",
              most, "], got ", number, "; nothing was changed");
  return number;
}

inline double read_double(const char* who, torch::serialize::InputArchive& archive,
                          const std::string& key) {
  return read_value(who, archive, key, &c10::IValue::isDouble, "a number").toDouble();
}

inline bool read_bool(const char* who, torch::serialize::InputArchive& archive,
                      const std::string& key) {
  return read_value(who, archive, key, &c10::IValue::isBool, "a bool").toBool();
}

inline std::string read_text(const char* who, torch::serialize::InputArchive& archive,
                             const std::string& key) {
  return read_value(who, archive, key, &c10::IValue::isString, "a text").toStringRef();
}

inline std::vector<int64_t> read_ints(const char* who, torch::serialize::InputArchive& archive,
                                      const std::string& key) {
  return read_value(who, archive, key, &c10::IValue::isIntList, "a list of integers").toIntVector();
}

inline std::vector<std::string> read_texts(const char* who, torch::serialize::InputArchive& archive,
                                           const std::string& key) {
  const c10::IValue list = read_value(who, archive, key, &c10::IValue::isList, "a list of texts");
  std::vector<std::string> texts;
  for (const c10::IValue& text : list.toListRef()) {
    TORCH_CHECK(text.isString(), who, ": expected ", key, " to be a list of texts, got ",
                text.tagKind(), " in it; nothing was changed");
    texts.push_back(text.toStringRef());
  }
  return texts;
}

/// Reads a dense tensor of this shape and dtype.
/// @param of  to what it belongs, for messages: " of 0.weight"
inline at::Tensor read_tensor(const char* who, torch::serialize::InputArchive& archive,
                              const std::string& key, const std::string& of, at::IntArrayRef shape,
                              at::ScalarType dtype) {
  at::Tensor tensor = read_value(who, archive, key, &c10::IValue::isTensor, "a tensor").toTensor();
  check_storage(who, key + of, tensor);
  TORCH_CHECK(tensor.sizes() == shape && tensor.scalar_type() == dtype, who, ": expected ", key, of,
              " to be ", dtype, " of shape ", shape, ", got ", tensor.scalar_type(), " of shape ",
              tensor.sizes(), "; nothing was changed");
  return tensor;
}

}  // namespace lawn::detail::archive
