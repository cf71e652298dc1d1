// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <c10/core/Device.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/checkpoint/entry.h>
#include <lawn/finite_math.h>

namespace lawn::detail::checkpoint {

/// How a type of number, text, tensor or list is written: `kName` names it in messages, `pack`
/// gives what an archive holds, and `unpack` says whether an archive's value is one, and sets it.
template <class T, class = void>
struct Packing;

template <class T>
struct Packing<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>>> {
  static constexpr const char* kName = "integer";
  static c10::IValue pack(T value) { return static_cast<std::int64_t>(value); }
  static bool unpack(const c10::IValue& packed, T& value) {
    if (!packed.isInt()) return false;
    const std::int64_t number = packed.toInt();
    value = static_cast<T>(number);
    return static_cast<std::int64_t>(value) == number;
  }
};

template <class T>
struct Packing<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static constexpr const char* kName = "number";
  static c10::IValue pack(T value) { return static_cast<double>(value); }
  static bool unpack(const c10::IValue& packed, T& value) {
    if (packed.isDouble()) value = static_cast<T>(packed.toDouble());
    return packed.isDouble();
  }
};

/// For types that IValue converts to and from by itself.
/// @tparam kIs  whether a value holds one
template <class T, bool (c10::IValue::*kIs)() const>
struct PackedAsIs {
  static c10::IValue pack(const T& value) { return value; }
  static bool unpack(const c10::IValue& packed, T& value) {
    if (!(packed.*kIs)()) return false;
    value = packed.to<T>();
    return true;
  }
};

template <>
struct Packing<bool> : PackedAsIs<bool, &c10::IValue::isBool> {
  static constexpr const char* kName = "bool";
};

template <>
struct Packing<std::string> : PackedAsIs<std::string, &c10::IValue::isString> {
  static constexpr const char* kName = "text";
};

template <>
struct Packing<std::vector<std::int64_t>>
    : PackedAsIs<std::vector<std::int64_t>, &c10::IValue::isIntList> {
  static constexpr const char* kName = "list of integers";
};

template <>
struct Packing<std::vector<double>> : PackedAsIs<std::vector<double>, &c10::IValue::isDoubleList> {
  static constexpr const char* kName = "list of numbers";
};

template <>
struct Packing<std::vector<std::string>> {
  static constexpr const char* kName = "list of texts";
  static c10::IValue pack(const std::vector<std::string>& value) { return value; }
  static bool unpack(const c10::IValue& packed, std::vector<std::string>& value) {
    if (!packed.isList()) return false;
    std::vector<std::string> texts;
    for (const c10::IValue& text : packed.toListRef()) {
      if (!text.isString()) return false;
      texts.push_back(text.toStringRef());
    }
    value = std::move(texts);
    return true;
  }
};

template <>
struct Packing<at::Tensor> {
  static constexpr const char* kName = "tensor";
  static c10::IValue pack(const at::Tensor& value) {
    if (!value.defined()) return {};
    const at::Tensor tensor = value.detach();
    // An archive holds whole storages, of which a view may show little.
    const bool whole =
        tensor.layout() != at::kStrided || tensor.storage().nbytes() == tensor.nbytes();
    return whole ? tensor : tensor.clone();
  }
  static bool unpack(const c10::IValue& packed, at::Tensor& value) {
    if (packed.isNone()) value = at::Tensor();
    if (packed.isTensor()) value = packed.toTensor();
    return packed.isNone() || packed.isTensor();
  }
};

template <class T, class = void>
constexpr bool kPacks = false;
template <class T>
constexpr bool kPacks<T, std::void_t<decltype(Packing<T>::kName)>> = true;

/// A variable of the program.
template <class T>
class ValueEntry : public Entry {
 public:
  ValueEntry(std::string name, T& value) : Entry(std::move(name)), value_(value) {}

  std::string kind() const override { return Packing<T>::kName; }

  std::optional<at::Device> device() const override {
    if constexpr (std::is_same_v<T, at::Tensor>) {
      if (value_.defined()) return value_.device();
    }
    return at::Device(at::kCPU);
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    archive.write("value", Packing<T>::pack(value_));
  }

  void read(torch::serialize::InputArchive& archive, Differences& differences) override {
    c10::IValue packed;
    if (!archive.try_read("value", packed) || !Packing<T>::unpack(packed, saved_)) {
      differences.push_back(name() + " does not fit into this program's " + kind());
    }
    if constexpr (std::is_same_v<T, at::Tensor>) {
      if (is_trained() && (!saved_.defined() || saved_.sizes() != value_.sizes())) {
        differences.push_back(name() + " is trained here, and has another shape");
      }
    }
  }

  void take() override {
    if constexpr (std::is_same_v<T, at::Tensor>) {
      if (is_trained()) {  // its optimizer holds it
        const at::NoGradGuard no_grad;
        value_.copy_(saved_);
        return;
      }
    }
    value_ = std::move(saved_);
  }

  void forget() override { saved_ = T{}; }

 private:
  bool is_trained() const { return value_.defined() && value_.requires_grad() && value_.is_leaf(); }

  T& value_;
  T saved_{};
};

}  // namespace lawn::detail::checkpoint
