// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <c10/util/Type.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/checkpoint/archive_file.h>
#include <lawn/checkpoint/entry.h>

namespace lawn::detail::checkpoint {

/// Whether a class has `save(OutputArchive&) const` and `load(InputArchive&)`.
template <class T, class = void>
constexpr bool kSavesItself = false;
template <class T>
constexpr bool kSavesItself<T, std::void_t<decltype(std::declval<const T&>().save(
                                               std::declval<torch::serialize::OutputArchive&>())),
                                           decltype(std::declval<T&>().load(
                                               std::declval<torch::serialize::InputArchive&>()))>> =
    true;

/// Whether a class has `<<` to an OutputArchive and `>>` from an InputArchive, as `torch::save` and
/// `torch::load` ask for.
template <class T, class = void>
constexpr bool kStreams = false;
template <class T>
constexpr bool kStreams<
    T, std::void_t<
           decltype(std::declval<torch::serialize::OutputArchive&>() << std::declval<const T&>()),
           decltype(std::declval<torch::serialize::InputArchive&>() >> std::declval<T&>())>> = true;

template <class T>
void save_object(const T& object, torch::serialize::OutputArchive& archive) {
  if constexpr (kSavesItself<T>) {
    object.save(archive);
  } else {
    archive << object;
  }
}

template <class T>
void load_object(T& object, torch::serialize::InputArchive& archive) {
  if constexpr (kSavesItself<T>) {
    object.load(archive);
  } else {
    archive >> object;
  }
}

/// What an object writes of itself, as bytes from which it can be restored.
template <class T>
std::string saved_bytes(const T& object) {
  torch::serialize::OutputArchive archive;
  save_object(object, archive);
  return bytes_of(archive);
}

/// Restores an object from `saved_bytes`.
template <class T>
void load_bytes(T& object, const std::string& bytes) {
  torch::serialize::InputArchive archive;
  read_bytes(bytes, std::nullopt, archive);
  load_object(object, archive);
}

/// An object that reads and writes itself: a schedule of this library, a GradScaler, one of the
/// user's.
template <class T>
class ObjectEntry : public Entry {
 public:
  ObjectEntry(std::string name, T& object) : Entry(std::move(name)), object_(object) {}

  std::string kind() const override { return c10::demangle(typeid(object_).name()); }

  void save(torch::serialize::OutputArchive& archive) const override {
    save_object(object_, archive);
  }

  void read(torch::serialize::InputArchive& archive, Differences& /*differences*/) override {
    archive_ = std::move(archive);
  }

  /// An object that cannot be saved now (a GradScaler within an iteration, one that is made by its
  /// first use) is loaded nevertheless, without a way back.
  void load() override {
    try {
      before_ = saved_bytes(object_);
    } catch (const c10::Error&) {
      before_.clear();
    }
    try {
      load_object(object_, archive_);
    } catch (...) {
      undo();  // since not every load() leaves the object as it was
      throw;
    }
  }

  void undo() override {
    if (!before_.empty()) load_bytes(object_, before_);
  }

  void forget() override {
    archive_ = {};
    before_.clear();
  }

 private:
  T& object_;
  torch::serialize::InputArchive archive_;
  std::string before_;
};

}  // namespace lawn::detail::checkpoint
