// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Generator.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/schedulers/lr_scheduler.h>
#include <torch/optim/schedulers/reduce_on_plateau_scheduler.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/checkpoint/archive_file.h>
#include <lawn/checkpoint/entry.h>
#include <lawn/checkpoint/module_entry.h>
#include <lawn/checkpoint/named_texts.h>
#include <lawn/checkpoint/object_entry.h>
#include <lawn/checkpoint/optimizer_entry.h>
#include <lawn/checkpoint/random_state_entry.h>
#include <lawn/checkpoint/scheduler_entry.h>
#include <lawn/checkpoint/script_entry.h>
#include <lawn/checkpoint/value_entry.h>
#include <lawn/write_atomically.h>

namespace lawn {

/// All that a run needs to go on in another process to the same bits, in one file.
///
///   int64_t epoch = 0;
///   lawn::Checkpoint checkpoint;
///   checkpoint.require("network", "resnet20")          // load() refuses a file with another value
///       .add("model", model)
///       .add("optimizer", optimizer)                   // decorated or not
///       .add("schedule", schedule)                     // LAWN's or LibTorch's
///       .add("epoch", epoch)
///       .add_random_state();
///   if (std::filesystem::exists("run.pt")) checkpoint.load("run.pt");
///   for (; epoch < 90;) {
///     ...
///     ++epoch;
///     checkpoint.save("run.pt");
///   }
///
/// The objects are referred to, not copied: they must live as long as the checkpoint.
///
/// A file is written as a whole or not at all, also if the machine stops. It ends with a checksum
/// of all its bytes. It is an archive as `torch::save` writes one, in which each entry has its
/// name, so that other programs can read it: `archive.read("model", part); model->load(part)`.
///
/// A file is loaded as a whole or not at all: everything is read and compared, before anything of
/// the program is changed, and the error names all that differs. Weights are overwritten in place;
/// an optimizer's state is replaced, so that a captured step must be captured anew. A run may be
/// resumed on other devices: a module or an optimizer is read onto its own device, and where it was
/// saved if it is on several; an object that loads itself gets tensors on the CPU.
///
/// On several ranks that hold the same, one rank saves, and every rank loads.
class Checkpoint {
 public:
  Checkpoint() = default;
  Checkpoint(Checkpoint&&) = default;
  Checkpoint& operator=(Checkpoint&&) = default;
  ~Checkpoint() = default;

  /// Adds an object that is saved and loaded under `name`:
  ///   - a module, its holder or a shared_ptr to it: parameters and buffers, and what modules with
  ///     a `save` and a `load` of their own write. Such a module is known by what its `save`
  ///     writes: keys, dtypes or shapes other than those of its tensors. A `load` of its own that
  ///     is to be called (to rebuild a cache, say) therefore needs a `save` that writes a key of
  ///     its own beside what `torch::nn::Module::save` writes
  ///   - a torch::jit::Module (TorchScript): parameters and buffers
  ///   - an optimizer, decorated or not: the state, the options of its groups, and what decorators
  ///     keep. One of your own needs a `save` and a `load`, since those of LibTorch's base class do
  ///     nothing
  ///   - a learning-rate schedule of this library, or a scheduler of LibTorch's, of which the
  ///     number of steps is saved
  ///   - a GradScaler, and any class with `save(OutputArchive&) const` and `load(InputArchive&)`,
  ///     or with `<<` and `>>` for these archives
  ///   - a number, a bool, a std::string, a tensor, a std::vector of int64_t, double or
  ///     std::string. A tensor variable becomes the saved tensor, whatever its shape, on the device
  ///     on which it was before
  ///   - an at::Generator
  /// @param name    of the entry in the file
  /// @param object  referred to
  /// @throws c10::Error for a name that is empty, taken, begins with "lawn/", or is one with which
  ///         LibTorch cannot read an archive back: a keyword of Python, or one with a quote, a
  ///         backslash or a line break
  template <class T>
  Checkpoint& add(const std::string& name, T& object) {
    using detail::checkpoint::kPacks;
    using detail::checkpoint::kSavesItself;
    using detail::checkpoint::kStreams;
    static_assert(!std::is_const_v<T>,
                  "lawn::Checkpoint: add() takes objects that load() can change, not const ones");
    static_assert(!std::is_base_of_v<torch::optim::ReduceLROnPlateauScheduler, T>,
                  "lawn::Checkpoint: LibTorch shows nothing of a ReduceLROnPlateauScheduler's "
                  "state, so that it cannot be saved");
    if constexpr (std::is_base_of_v<torch::nn::Module, T>) {
      return put<detail::checkpoint::ModuleEntry>(
          name, [&object]() -> torch::nn::Module& { return object; });
    } else if constexpr (std::is_base_of_v<torch::jit::Module, T>) {
      return put<detail::checkpoint::ScriptEntry>(name, object);
    } else if constexpr (detail::checkpoint::kHoldsModule<T>) {
      return put<detail::checkpoint::ModuleEntry>(
          name, [&object]() -> torch::nn::Module& { return *object; });
    } else if constexpr (std::is_base_of_v<torch::optim::Optimizer, T>) {
      return put<detail::checkpoint::OptimizerEntry>(name, object);
    } else if constexpr (std::is_same_v<at::Generator, T>) {
      return put<detail::checkpoint::GeneratorEntry>(name, object);
    } else if constexpr (kPacks<T>) {
      return put<detail::checkpoint::ValueEntry<T>>(name, object);
    } else if constexpr (kSavesItself<T> || kStreams<T>) {
      return put<detail::checkpoint::ObjectEntry<T>>(name, object);
    } else {
      static_assert(std::is_base_of_v<torch::optim::LRScheduler, T>,
                    "lawn::Checkpoint: add() takes modules, optimizers, schedules, numbers, "
                    "strings, tensors, generators, and classes with save(OutputArchive&) const and "
                    "load(InputArchive&)");
      return put<detail::checkpoint::SchedulerEntry>(name, object);
    }
  }

  /// Adds the states of LibTorch's default generators, the CPU's and those of all GPUs, under the
  /// name "random_state". If a run is resumed with other GPUs, a GPU whose state was not saved
  /// keeps its own.
  Checkpoint& add_random_state() {
    return put<detail::checkpoint::RandomStateEntry>("random_state");
  }

  /// Adds something that decides what the run is: a flag, the size of a batch. `load` refuses a
  /// file with another value under this name, or without one.
  /// @param name   of the requirement, apart from the names of entries
  /// @param value  of any type that can be printed; doubles are compared by all their digits
  /// @throws c10::Error for a name that was required before
  template <class T>
  Checkpoint& require(const std::string& name, const T& value) {
    for (const auto& [taken, text] : required_) {
      TORCH_CHECK(taken != name, kWho, ": expected every requirement once, got ", name, " again");
    }
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text.precision(std::numeric_limits<double>::max_digits10);
    text << std::boolalpha << value;
    required_.emplace_back(name, text.str());
    return *this;
  }

  /// Writes all entries and requirements into the file at `path`. Waits for the current stream of
  /// each device. LibTorch writes modules whose names it cannot read; the bytes are therefore read
  /// back, until that has succeeded once with all entries that were added.
  /// @throws c10::Error if the file cannot be written, or not be read back, naming the reason, and
  ///         for an optimizer with state that writes nothing; the file that was there is then
  ///         unchanged, and no other one is left
  void save(const std::filesystem::path& path) const {
    torch::serialize::OutputArchive archive;
    archive.write(kVersionKey, c10::IValue(kVersion));
    archive.write(kRequiredKey, c10::IValue(detail::checkpoint::flat(required_)));
    archive.write(kKindsKey, c10::IValue(detail::checkpoint::flat(kinds())));
    for (const auto& entry : entries_) {
      torch::serialize::OutputArchive part(archive.compilation_unit());
      entry->save(part);
      archive.write(entry->name(), part);
    }
    std::string bytes = detail::checkpoint::bytes_of(archive);
    if (!read_back_) detail::checkpoint::check_readable(bytes);
    read_back_ = true;
    detail::checkpoint::seal(bytes);
    write_atomically(path, bytes);
  }

  /// Takes everything over from the file at `path`. Waits for the devices.
  /// @param path    a file that save() wrote
  /// @param strict  true: the file must hold no entries and requirements except those that were
  ///                added; false, to take a model from a run's checkpoint, say
  /// @throws c10::Error if the file is missing, cut off or damaged, if it was written by a later
  ///         version, and if it does not fit, with all that differs by name. Nothing is changed
  ///         then, except after a file in which an object was refused by its own `load`: captured
  ///         steps must be captured anew, and an object that could not be saved then (a GradScaler
  ///         within an iteration) stays as it was loaded
  void load(const std::filesystem::path& path, bool strict = true) {
    detail::checkpoint::ArchiveFile file(path);
    const Forget forget{*this};
    detail::checkpoint::Differences differences;
    check_version(file);
    using detail::checkpoint::compare;
    using detail::checkpoint::read_texts;
    compare(read_texts(file, kRequiredKey), required_, "set", strict, differences);
    compare(read_texts(file, kKindsKey), kinds(), "added", strict, differences);
    refuse(path, differences);
    for (const auto& entry : entries_) {
      torch::serialize::InputArchive part;
      if (file.on(entry->device()).try_read(entry->name(), part)) {
        entry->read(part, differences);
      } else {
        differences.push_back("it lacks the contents of " + entry->name());
      }
    }
    refuse(path, differences);
    try {
      detail::checkpoint::load_all(entries_);
    } catch (const c10::Error& error) {
      TORCH_CHECK(false, kWho, ": ", path.string(), ": ", error.what_without_backtrace());
    }
    for (const auto& entry : entries_) entry->take();
  }

 private:
  using Texts = detail::checkpoint::NamedTexts;
  using Differences = detail::checkpoint::Differences;

  static constexpr const char* kWho = "lawn::Checkpoint";
  static constexpr std::int64_t kVersion = 1;
  static constexpr const char* kVersionKey = "lawn/checkpoint";
  static constexpr const char* kRequiredKey = "lawn/required";
  static constexpr const char* kKindsKey = "lawn/kinds";

  /// Forgets, in every case, what a file held.
  struct Forget {
    Checkpoint& checkpoint;
    ~Forget() {
      for (const auto& entry : checkpoint.entries_) entry->forget();
    }
  };

  template <class Entry, class... Arguments>
  Checkpoint& put(const std::string& name, Arguments&&... arguments) {
    TORCH_CHECK(!name.empty() && name.rfind("lawn/", 0) != 0, kWho,
                ": expected a name that is not empty and does not begin with lawn/, got '", name,
                "'");
    for (const auto& entry : entries_) {
      TORCH_CHECK(entry->name() != name, kWho, ": expected every name once, got ", name, " again");
    }
    torch::serialize::OutputArchive trial;
    trial.write(name, c10::IValue(true));
    detail::checkpoint::check_readable(detail::checkpoint::bytes_of(trial));
    entries_.push_back(std::make_unique<Entry>(name, std::forward<Arguments>(arguments)...));
    read_back_ = false;
    return *this;
  }

  Texts kinds() const {
    Texts kinds;
    for (const auto& entry : entries_) kinds.emplace_back(entry->name(), entry->kind());
    return kinds;
  }

  static void check_version(detail::checkpoint::ArchiveFile& file) {
    c10::IValue version;
    const bool known = file.on(at::kCPU).try_read(kVersionKey, version) && version.isInt();
    TORCH_CHECK(known && version.toInt() == kVersion, kWho, ": ", file.path().string(),
                ": expected a checkpoint of version ", kVersion, ", got ",
                known ? c10::str("one of version ", version.toInt(), "; use a later lawn")
                      : std::string("one without a version"),
                ". Nothing was changed");
  }

  static void refuse(const std::filesystem::path& path, const Differences& differences) {
    std::string text;
    for (const auto& difference : differences) text += (text.empty() ? "" : "; ") + difference;
    TORCH_CHECK(text.empty(), kWho, ": ", path.string(), ": a checkpoint of another run: ", text,
                "; nothing was changed");
  }

  std::vector<std::unique_ptr<detail::checkpoint::Entry>> entries_;
  Texts required_;
  mutable bool read_back_ = false;  ///< whether a file of these entries was readable
};

}  // namespace lawn
