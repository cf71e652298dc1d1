// SPDX-License-Identifier: Apache-2.0
//
// Everything that lawn loads is given files that are damaged: bits turned over, bytes overwritten,
// cut off, pieces copied over others, and numbers and names changed in the pickles within. A load
// ends in an exception or in an object that can go on. After an exception the object is as it was,
// bit for bit. A new kind of object is one struct here, and its name in `Kinds`.
//
// LAWN_FUZZ_MUTATIONS is the number of files for each kind, LAWN_FUZZ_FIRST the number of the
// first; the target fuzz_loads runs many.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <utility>

#include <sys/resource.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/checkpoint.h>
#include <lawn/companions/eman.h>
#include <lawn/companions/pruning/snapshot.h>
#include <lawn/lawn.h>

#include "tests/support/address_sanitizer.h"
#include "tests/support/contents.h"
#include "tests/support/decorator_rows.h"
#include "tests/support/rows.h"
#include "tests/support/saved.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/warnings.h"

namespace {

using namespace lawn::testing;

/// An optimizer some steps on.
/// @tparam Make  Make::of(problem) makes it
template <class Make>
struct Stepped {
  Stepped() {
    for (int64_t step = 0; step < 3; ++step) go_on();
  }
  std::string save() { return saved(optimizer); }
  void load(const std::string& bytes) { lawn::testing::load(optimizer, bytes); }
  std::string state() { return saved(optimizer) + outcome(); }
  std::string outcome() { return saved(problem.model); }
  void go_on() {
    optimizer.step([this] { return problem.backward(steps); });
    ++steps;
  }

  Problem problem;
  decltype(Make::of(std::declval<Problem&>())) optimizer = Make::of(problem);
  int64_t steps = 0;
};

template <class Row>
struct MakePlain {
  static auto of(Problem& problem) { return Row::make(problem.groups()); }
};
template <class Row>
using Plain = Stepped<MakePlain<Row>>;

template <class Row>
struct MakeDecorated {
  static auto of(Problem& problem) { return Row::make(problem.groups(), problem.weights()); }
};
template <class Row>
using Decorated = Stepped<MakeDecorated<Row>>;

struct Schedule {
  std::string save() { return saved(schedule); }
  void load(const std::string& bytes) { lawn::testing::load(schedule, bytes); }
  std::string state() { return outcome() + saved(optimizer); }
  std::string outcome() { return saved(schedule); }
  void go_on() {
    optimizer.step();
    schedule.step();
  }

  Problem problem;
  torch::optim::SGD optimizer{problem.model->parameters(), 0.1};
  lawn::WarmupDecay schedule{optimizer, lawn::WarmupDecayOptions().total_steps(9).warmup_steps(3)};
};

struct Scaler {
  Scaler() { go_on(); }
  std::string save() { return saved(scaler); }
  void load(const std::string& bytes) { lawn::testing::load(scaler, bytes); }
  std::string state() { return outcome(); }
  std::string outcome() { return saved(scaler); }
  void go_on() {
    scaler.scale(problem.model->forward(problem.x).sum()).backward();
    scaler.step(optimizer);
    scaler.update();
  }

  Problem problem;
  torch::optim::SGD optimizer{problem.model->parameters(), 0.1};
  lawn::GradScaler scaler;
};

template <class Dtype>
struct Teacher {
  Teacher() { go_on(); }
  std::string save() { return saved(teacher); }
  void load(const std::string& bytes) { lawn::testing::load(teacher, bytes); }
  std::string state() { return outcome(); }
  std::string outcome() { return saved(teacher) + saved(teacher.module()); }
  void go_on() { teacher.update(*student); }

  torch::nn::Linear student = made();
  lawn::EmaTeacher<torch::nn::LinearImpl> teacher{*student};

 private:
  static torch::nn::Linear made() {
    torch::manual_seed(3);
    torch::nn::Linear student(8, 3);
    student->to(Dtype::kType);
    return student;
  }
};
struct Float {
  static constexpr auto kType = torch::kFloat;
};
struct BFloat16 {
  static constexpr auto kType = torch::kBFloat16;
};

struct HeldSnapshot {
  std::string save() { return saved(snapshot); }
  void load(const std::string& bytes) { lawn::testing::load(snapshot, bytes); }
  std::string state() { return outcome(); }
  std::string outcome() { return saved(snapshot); }
  void go_on() { snapshot.rewind(*problem.model); }

  Problem problem;
  lawn::Snapshot snapshot{*problem.model};
};

/// A run's checkpoint, as a file.
struct Run {
  Run() {
    checkpoint.add("model", run.problem.model)
        .add("optimizer", run.optimizer)
        .add("steps", run.steps)
        .add_random_state();
  }
  std::string save() {
    checkpoint.save(path);
    return contents(path);
  }
  void load(const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    checkpoint.load(path);
  }
  std::string state() { return run.state() + std::to_string(run.steps); }
  std::string outcome() { return run.outcome(); }
  void go_on() { run.go_on(); }

  TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "run.pt";
  Decorated<DecoratorRow<LAWNRow, FusedDecayedAdam>> run;
  lawn::Checkpoint checkpoint;
};

/// Damages a file in one of many ways.
class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::string operator()(std::string bytes) {
    switch (below(6)) {
      case 0:
        bytes[below(bytes.size())] ^= static_cast<char>(1 << below(8));
        break;
      case 1:
        for (std::size_t i = 0, at = below(bytes.size()); i < 8 && at + i < bytes.size(); ++i) {
          bytes[at + i] = byte();
        }
        break;
      case 2:
        bytes.resize(below(bytes.size()));
        break;
      case 3: {
        const std::size_t length = 1 + below(64);
        const std::string piece = bytes.substr(below(bytes.size()), length);
        bytes.replace(below(bytes.size()), piece.size(), piece);
        break;
      }
      default:
        change_pickle(bytes);
    }
    return bytes;
  }

 private:
  std::size_t below(std::size_t end) { return end == 0 ? 0 : random_() % end; }
  char byte() { return static_cast<char>(random_() & 0xFF); }

  /// Changes one to three bytes of the pickle that says what the tensors are.
  void change_pickle(std::string& bytes) {
    const std::size_t begin = bytes.find("data.pkl");
    const std::size_t end = bytes.find("PK\a\b", begin);
    if (begin == std::string::npos || end == std::string::npos) return;
    for (std::size_t times = 1 + below(3); times > 0; --times) {
      char& changed = bytes[begin + below(end - begin)];
      const char small[] = {0, 1, 2, 5, 100, -1};
      changed = below(2) == 0 ? byte() : small[below(sizeof small)];
    }
  }

  std::mt19937_64 random_;
};

/// While it lives, the process gets no more than a gibibyte of further memory: some damaged numbers
/// make LibTorch ask for as much as there is, and fill it. AddressSanitizer, which needs far more
/// address space, limits single requests, by options of the preset asan.
class MemoryLimit {
 public:
  MemoryLimit() {
    getrlimit(RLIMIT_AS, &before_);
#if !defined(LAWN_ADDRESS_SANITIZER)
    std::ifstream file("/proc/self/statm");
    rlim_t pages = 0;
    if (!(file >> pages)) return;
    const rlim_t most = pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + (rlim_t{1} << 30);
    const rlimit limit = {std::min(most, before_.rlim_max), before_.rlim_max};
    setrlimit(RLIMIT_AS, &limit);
#endif
  }
  ~MemoryLimit() { setrlimit(RLIMIT_AS, &before_); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  rlimit before_ = {};
};

/// The number that the environment gives a variable, or another.
int64_t asked(const char* variable, int64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoll(text);
}

template <class Kind>
class DamagedFiles : public testing::Test {};

using Kinds = testing::Types<
    Plain<FusedMomentumSGD>, Plain<FusedDecayedAdam>, Plain<FusedDecayedAdamW>,
    Plain<FusedDecayedAdagrad>, Plain<LAMB>, Plain<LARS>,
    Decorated<DecoratorRow<LAWNRow, MomentumSGD>>, Decorated<DecoratorRow<LAWNRow, LBFGS>>,
    Decorated<DecoratorRow<LAWNRow, FusedDecayedAdamW>>, Decorated<DecoratorRow<LAWNRow, Own>>,
    Decorated<DecoratorRow<MaskedRow, FusedDecayedAdam>>,
    Decorated<DecoratorRow<CenteredRow, MomentumSGD>>,
    Decorated<DecoratorRow<AdmmRow, FusedDecayedAdam>>, Schedule, Scaler, Teacher<Float>,
    Teacher<BFloat16>, HeldSnapshot, Run>;
TYPED_TEST_SUITE(DamagedFiles, Kinds);

TYPED_TEST(DamagedFiles, AreRefusedAsAWholeOrLeaveAnObjectThatGoesOn) {
  const int64_t first = asked("LAWN_FUZZ_FIRST", 0);
  const int64_t mutations = asked("LAWN_FUZZ_MUTATIONS", 150);
  const lawn::testing::CapturedWarnings warnings;
  const std::string whole = TypeParam().save();
  auto object = std::make_unique<TypeParam>();
  int64_t refused = 0;
  for (int64_t seed = first; seed < first + mutations; ++seed) {
    SCOPED_TRACE(seed);
    const std::string damaged = Mutator(static_cast<std::uint64_t>(seed))(whole);
    const std::string before = object->state();
    try {
      const MemoryLimit limit;
      object->load(damaged);
    } catch (const std::exception&) {
      ++refused;
      ASSERT_TRUE(object->state() == before) << "changed by a load that was refused";
      continue;
    }
    try {
      object->go_on();
    } catch (const std::exception&) {
      // Numbers that another program might have saved, with which a step cannot be made.
    }
    object = std::make_unique<TypeParam>();
  }
  EXPECT_GT(refused, mutations / 10);
}

TYPED_TEST(DamagedFiles, ThatWereRefusedLeaveTheNextStepsAsTheyWouldHaveBeen) {
  const std::string whole = TypeParam().save();
  TypeParam object;
  for (const std::size_t length : {whole.size() / 2, whole.size() - 30}) {
    EXPECT_ANY_THROW(object.load(whole.substr(0, length)));
  }
  std::string renamed = whole;
  renamed[renamed.find("data.pkl") + 90] ^= 1;
  try {
    object.load(renamed);
    return;  // what was renamed was nothing that is read
  } catch (const std::exception&) {
  }
  TypeParam twin;
  for (int step = 0; step < 3; ++step) {
    object.go_on();
    twin.go_on();
  }
  EXPECT_TRUE(object.outcome() == twin.outcome());
}

}  // namespace
