// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <lawn/companions/eman/ema_teacher.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::cosine_decay;
using lawn::EmaBuffers;
using lawn::EmaOptions;
using lawn::EmaTeacher;
using lawn::testing::close;
using lawn::testing::expect_refusal;
using lawn::testing::tolerance;

/// Convolution, batch norm, dropout, classifier.
struct NetImpl : torch::nn::Cloneable<NetImpl> {
  explicit NetImpl(int64_t width = 4) : width_(width) { reset(); }

  void reset() override {
    conv = register_module("conv", torch::nn::Conv2d(3, width_, 3));
    norm = register_module("norm", torch::nn::BatchNorm2d(width_));
    dropout = register_module("dropout", torch::nn::Dropout(0.5));
    head = register_module("head", torch::nn::Linear(width_, 2));
  }

  torch::Tensor forward(const torch::Tensor& x) {
    return head(dropout(torch::relu(norm(conv(x)))).mean({2, 3}));
  }

  int64_t width_;
  torch::nn::Conv2d conv{nullptr};
  torch::nn::BatchNorm2d norm{nullptr};
  torch::nn::Dropout dropout{nullptr};
  torch::nn::Linear head{nullptr};
};
TORCH_MODULE(Net);

/// Every parameter and buffer, as copies.
std::vector<torch::Tensor> values(const torch::nn::Module& module) {
  std::vector<torch::Tensor> all;
  for (const auto& t : module.parameters()) all.push_back(t.detach().clone());
  for (const auto& t : module.buffers()) all.push_back(t.clone());
  return all;
}

void expect_equal(const torch::nn::Module& module, const std::vector<torch::Tensor>& expected,
                  const std::string& what) {
  const auto actual = values(module);
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_TRUE(torch::equal(actual[i], expected[i])) << what << ", tensor " << i;
  }
}

class Ema : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(7);
    student_ = Net();
    x_ = torch::randn({6, 3, 8, 8});
  }

  /// Moves everything that a step of training moves.
  void disturb() {
    student_->train();
    student_->forward(torch::randn_like(x_));
    const torch::NoGradGuard no_grad;
    for (auto& p : student_->parameters()) p.add_(torch::randn_like(p), 0.1);
  }

  Net student_{nullptr};
  torch::Tensor x_;
};

TEST_F(Ema, IsTheClosedFormAfterManySteps) {
  constexpr double kDecay = 0.99;
  constexpr int64_t kSteps = 200;
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    student_ = Net();
    student_->to(dtype);
    x_ = x_.to(dtype);
    EmaTeacher teacher(*student_, EmaOptions().decay(kDecay));
    // m^n t_0 + (1 - m) sum of m^(n - k) s_k
    std::vector<torch::Tensor> expected;
    for (const auto& value : values(*student_)) {
      expected.push_back(value.to(torch::kDouble) * std::pow(kDecay, kSteps));
    }
    std::vector<torch::Tensor> of_student;
    for (int64_t k = 1; k <= kSteps; ++k) {
      disturb();
      teacher.update(*student_);
      of_student = values(*student_);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        expected[i] +=
            (1 - kDecay) * std::pow(kDecay, kSteps - k) * of_student[i].to(torch::kDouble);
      }
    }
    EXPECT_EQ(teacher.steps(), kSteps);
    const auto actual = values(*teacher.module());
    for (std::size_t i = 0; i < actual.size(); ++i) {
      EXPECT_EQ(actual[i].scalar_type(), of_student[i].scalar_type());
      if (!actual[i].is_floating_point()) {
        EXPECT_EQ(actual[i].item<int64_t>(), kSteps) << "counts of batches are copied";
        continue;
      }
      const double error = (actual[i].to(torch::kDouble) - expected[i]).abs().max().item<double>();
      const double size = expected[i].abs().max().item<double>();
      // float32: rounded in each of the 200 steps. bfloat16: once.
      EXPECT_LE(error,
                size * lawn::testing::tolerance(dtype).norm * (dtype == torch::kFloat ? 10 : 1))
          << c10::toString(dtype) << ", tensor " << i;
    }
  }
}

TEST_F(Ema, CopiesWithDecayZeroAndKeepsWithDecayOneToTheBit) {
  EmaTeacher copies(*student_, EmaOptions().decay(0));
  EmaTeacher keeps(*student_, EmaOptions().decay(1));
  const auto start = values(*student_);
  for (int64_t k = 0; k < 3; ++k) {
    disturb();
    copies.update(*student_);
    keeps.update(*student_);
    expect_equal(*copies.module(), values(*student_), "copy");
  }
  auto kept = values(*keeps.module());
  kept.back() = start.back();  // the count of batches, which is copied all the same
  for (std::size_t i = 0; i + 1 < kept.size(); ++i) EXPECT_TRUE(torch::equal(kept[i], start[i]));
  {
    const torch::NoGradGuard no_grad;
    student_->head->bias.fill_(std::numeric_limits<double>::infinity());
  }
  keeps.update(*student_);
  EXPECT_TRUE(keeps.module()->head->bias.isfinite().all().item<bool>());
}

TEST_F(Ema, KeepsInfinitiesOfABuffer) {
  const auto mask =
      torch::full({3, 3}, -std::numeric_limits<float>::infinity()).triu(1) + torch::ones({3, 3});
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    student_ = Net();
    student_->register_buffer("mask", mask.clone());
    student_->to(dtype);
    auto built = Net();  // a clone has no buffer that reset() does not register
    built->register_buffer("mask", torch::zeros({3, 3}));
    built->to(dtype);
    EmaTeacher<NetImpl> teacher(*student_, built.ptr(), EmaOptions().decay(0.9));
    for (int64_t step = 0; step < 30; ++step) teacher.update(*student_);
    EXPECT_TRUE(torch::equal(built->named_buffers()["mask"], mask.to(dtype)));
  }
}

TEST_F(Ema, KeepsInfinitiesOfAParameterThatIsNotTrained) {
  const auto mask =
      torch::full({3, 3}, -std::numeric_limits<float>::infinity()).triu(1) + torch::ones({3, 3});
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    student_ = Net();
    student_->register_parameter("mask", mask.clone(), /*requires_grad=*/false);
    student_->to(dtype);
    auto built = Net();
    built->register_parameter("mask", torch::zeros({3, 3}));
    built->to(dtype);
    EmaTeacher<NetImpl> teacher(*student_, built.ptr(), EmaOptions().decay(0.9));
    for (int64_t step = 0; step < 30; ++step) teacher.update(*student_);
    EXPECT_TRUE(torch::equal(built->named_parameters()["mask"], mask.to(dtype)));
  }
}

TEST_F(Ema, AveragesCopiesOrLeavesTheBuffers) {
  EmaTeacher average(*student_, EmaOptions().decay(0.5));
  EmaTeacher copy(*student_, EmaOptions().decay(0.5).buffers(EmaBuffers::kCopy));
  EmaTeacher leave(*student_, EmaOptions().decay(0.5).buffers(EmaBuffers::kLeave));
  const auto start = student_->norm->running_mean.clone();
  disturb();
  const auto now = student_->norm->running_mean;
  for (auto* teacher : {&average, &copy, &leave}) {
    teacher->update(*student_);
    EXPECT_FALSE(torch::equal(teacher->module()->conv->weight, student_->conv->weight));
  }
  EXPECT_TRUE(torch::allclose(average.module()->norm->running_mean, 0.5 * start + 0.5 * now));
  EXPECT_TRUE(torch::equal(copy.module()->norm->running_mean, now));
  EXPECT_TRUE(torch::equal(leave.module()->norm->running_mean, start));
  EXPECT_EQ(average.module()->norm->num_batches_tracked.item<int64_t>(), 1);
  EXPECT_EQ(copy.module()->norm->num_batches_tracked.item<int64_t>(), 1);
  EXPECT_EQ(leave.module()->norm->num_batches_tracked.item<int64_t>(), 0);
}

TEST_F(Ema, GivesAnOutputThatDoesNotDependOnTheOtherImages) {
  for (int64_t k = 0; k < 3; ++k) disturb();
  EmaTeacher teacher(*student_);
  struct Holder : torch::nn::Module {};
  Holder holder;
  const auto shared = std::make_shared<EmaTeacher<NetImpl>>(*student_);
  holder.register_module("teacher", shared);
  const auto expect_alone = [&](EmaTeacher<NetImpl>& some, const char* when) {
    const auto together = some.forward(x_);
    for (int64_t i = 0; i < x_.size(0); ++i) {
      EXPECT_TRUE(close(some.forward(x_.slice(0, i, i + 1))[0], together[i]))
          << when << ", image " << i;
    }
    EXPECT_FALSE(together.requires_grad());
    EXPECT_FALSE(some.is_training());
    EXPECT_FALSE(some.module()->norm->is_training()) << when;
  };
  const auto statistics = values(*teacher.module());
  expect_alone(teacher, "new");
  teacher.train();
  expect_alone(teacher, "train()");
  teacher.module()->train();
  expect_alone(teacher, "train() of the module itself");
  holder.train();
  expect_alone(*shared, "train() of a module that holds it");
  expect_equal(*teacher.module(), statistics, "forward changes nothing");
  // Not so a network in training: the test can fail.
  student_->train();
  student_->dropout->eval();
  EXPECT_FALSE(torch::allclose(student_->forward(x_.slice(0, 0, 2))[0], student_->forward(x_)[0],
                               1e-3, 1e-3));
}

TEST_F(Ema, FollowsAScheduleOfTheDecay) {
  const auto schedule = cosine_decay(0.9, 100);
  EXPECT_DOUBLE_EQ(schedule(0), 0.9);
  EXPECT_NEAR(schedule(50), 0.95, tolerance(torch::kDouble).step);
  EXPECT_NEAR(schedule(25), 1 - 0.1 * (std::sqrt(0.5) + 1) / 2, tolerance(torch::kDouble).step);
  EXPECT_DOUBLE_EQ(schedule(100), 1);
  EXPECT_DOUBLE_EQ(schedule(1000), 1);

  std::vector<int64_t> asked;
  EmaTeacher teacher(*student_, EmaOptions().decay(0.7).schedule([&](int64_t k) {
    asked.push_back(k);
    return k == 0 ? 1.0 : 0.0;
  }));
  asked.clear();
  const auto start = values(*student_);
  disturb();
  teacher.update(*student_);
  EXPECT_TRUE(torch::equal(teacher.module()->head->weight, start[4])) << "decay 1";
  teacher.update(*student_);
  EXPECT_TRUE(torch::equal(teacher.module()->head->weight, student_->head->weight)) << "decay 0";
  EXPECT_EQ(asked, (std::vector<int64_t>{0, 1}));
}

TEST_F(Ema, SavedLoadedAndContinuedEqualsUninterruptedBitForBit) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    student_ = Net();
    student_->to(dtype);
    x_ = x_.to(dtype);
    EmaTeacher whole(*student_, EmaOptions().decay(0.9));
    for (int64_t k = 0; k < 5; ++k) {
      disturb();
      whole.update(*student_);
    }
    std::stringstream file;
    torch::save(whole, file);
    Net other;
    other->to(dtype);
    EmaTeacher loaded(*other, EmaOptions().decay(0.9));
    torch::load(loaded, file);
    EXPECT_EQ(loaded.steps(), 5);
    expect_equal(*loaded.module(), values(*whole.module()), "loaded");
    for (int64_t k = 0; k < 5; ++k) {
      disturb();
      whole.update(*student_);
      loaded.update(*student_);
    }
    expect_equal(*loaded.module(), values(*whole.module()), c10::toString(dtype));
  }
}

TEST_F(Ema, IsTheClosedFormAlsoAfterAConversion) {
  constexpr double kDecay = 0.999;
  constexpr int64_t kSteps = 200;
  using Types = std::pair<torch::ScalarType, torch::ScalarType>;
  for (const auto& [from, to] :
       {Types{torch::kFloat, torch::kBFloat16}, Types{torch::kFloat, torch::kHalf},
        Types{torch::kBFloat16, torch::kHalf}, Types{torch::kBFloat16, torch::kFloat},
        Types{torch::kBFloat16, torch::kDouble}}) {
    student_ = Net();
    student_->to(from);
    EmaTeacher teacher(*student_, EmaOptions().decay(kDecay));
    student_->to(to);
    teacher.to(to);
    const auto start = student_->head->weight.detach().to(torch::kDouble).clone();
    {
      const torch::NoGradGuard no_grad;
      student_->head->weight.add_(1);  // once: a step towards it is a thousandth
    }
    for (int64_t k = 0; k < kSteps; ++k) teacher.update(*student_);
    const auto now = student_->head->weight.detach().to(torch::kDouble);
    const auto expected = now + (start - now) * std::pow(kDecay, kSteps);
    const auto& actual = teacher.module()->head->weight;
    EXPECT_EQ(actual.scalar_type(), to);
    EXPECT_LE(
        (actual.to(torch::kDouble) - expected).abs().max().item<double>(),
        expected.abs().max().item<double>() * tolerance(to).norm * (to == torch::kFloat ? 10 : 1))
        << c10::toString(from) << " to " << c10::toString(to);
  }
}

TEST_F(Ema, GoesOnFromTheExactAveragesAfterAConversionToAWiderType) {
  for (const auto dtype : {torch::kFloat, torch::kDouble}) {
    student_ = Net();
    student_->to(torch::kBFloat16);
    EmaTeacher teacher(*student_, EmaOptions().decay(0.9));
    {
      const torch::NoGradGuard no_grad;
      student_->head->weight.add_(0.1);
    }
    teacher.update(*student_);
    const auto saved_head = [&] {
      std::stringstream file;
      torch::save(teacher, file);
      torch::serialize::InputArchive archive;
      archive.load_from(file);
      torch::Tensor head;
      archive.read("tensor/4", head, /*is_buffer=*/true);
      return head;
    };
    const auto exact = saved_head();
    student_->to(dtype);
    teacher.to(dtype);
    EXPECT_EQ(saved_head().scalar_type(), dtype);
    EXPECT_TRUE(torch::equal(saved_head().to(torch::kFloat), exact));
    teacher.update(*student_);
    const auto expected = torch::lerp(exact.to(dtype), student_->head->weight.detach(), 1 - 0.9);
    EXPECT_TRUE(close(teacher.module()->head->weight, expected)) << c10::toString(dtype);
  }
}

TEST_F(Ema, SavedAfterAConversionAndContinuedEqualsUninterruptedBitForBit) {
  for (const int64_t updates : {0, 3}) {
    student_ = Net();
    EmaTeacher whole(*student_, EmaOptions().decay(0.9));
    student_->to(torch::kBFloat16);
    whole.to(torch::kBFloat16);
    x_ = x_.to(torch::kBFloat16);
    for (int64_t k = 0; k < updates; ++k) {
      disturb();
      whole.update(*student_);
    }
    std::stringstream file;
    torch::save(whole, file);
    Net other;
    other->to(torch::kBFloat16);
    EmaTeacher loaded(*other, EmaOptions().decay(0.9));
    torch::load(loaded, file);
    for (int64_t k = 0; k < 5; ++k) {
      disturb();
      whole.update(*student_);
      loaded.update(*student_);
    }
    expect_equal(*loaded.module(), values(*whole.module()), std::to_string(updates));
  }
}

TEST_F(Ema, LeavesStudentAndRandomNumbersAsTheyAre) {
  disturb();
  student_->conv->weight.set_requires_grad(false);
  student_->train();
  const auto before = values(*student_);
  torch::manual_seed(5);
  const auto expected = torch::rand({3});
  torch::manual_seed(5);
  EmaTeacher teacher(*student_);
  EXPECT_TRUE(torch::equal(torch::rand({3}), expected)) << "clone() draws";
  teacher.update(*student_);
  teacher.forward(x_);
  expect_equal(*student_, before, "student");
  EXPECT_TRUE(student_->is_training() && student_->norm->is_training());
  EXPECT_TRUE(student_->head->weight.requires_grad());
  EXPECT_FALSE(student_->conv->weight.requires_grad());
  EXPECT_EQ(student_->parameters().size(), 6U);
  for (const auto& p : teacher.module()->parameters()) EXPECT_FALSE(p.requires_grad());
}

/// One layer, which TorchScript has, too.
struct LayerImpl : torch::nn::Cloneable<LayerImpl> {
  LayerImpl() { reset(); }

  void reset() override {
    weight = register_parameter("weight", torch::randn({2, 3}));
    offset = register_buffer("offset", torch::randn({2}));
  }

  torch::Tensor forward(const torch::Tensor& x) { return torch::linear(x, weight) + offset; }

  torch::Tensor weight, offset;
};
TORCH_MODULE(Layer);

torch::jit::Module script_of(const LayerImpl& layer) {
  torch::jit::Module script("__torch__.Layer");
  script.register_parameter("weight", layer.weight.detach().clone().requires_grad_(), false);
  script.register_buffer("offset", layer.offset.clone());
  script.define("def forward(self, x):\n  return torch.linear(x, self.weight) + self.offset\n");
  return script;
}

TEST_F(Ema, OfATorchScriptStudentEqualsThatOfItsTwinBitForBit) {
  const Layer student;
  auto script = script_of(*student);
  EmaTeacher teacher(*student, EmaOptions().decay(0.9));
  EmaTeacher of_script(script, EmaOptions().decay(0.9));
  const auto x = torch::randn({4, 3});
  const auto start = teacher.forward(x);
  for (int64_t k = 0; k < 5; ++k) {
    {
      const torch::NoGradGuard no_grad;
      student->weight.add_(torch::randn({2, 3}));
      student->offset.add_(torch::randn({2}));
      script.attr("weight").toTensor().copy_(student->weight);
      script.attr("offset").toTensor().copy_(student->offset);
    }
    teacher.update(*student);
    of_script.update(script);
  }
  EXPECT_TRUE(torch::equal(script.attr("weight").toTensor(), student->weight)) << "the student";
  const auto output = of_script.forward(x).toTensor();
  EXPECT_TRUE(torch::equal(output, teacher.forward(x)));
  EXPECT_FALSE(torch::equal(output, start));
  EXPECT_FALSE(of_script.module()->attr("weight").toTensor().requires_grad());
  EXPECT_TRUE(script.attr("weight").toTensor().requires_grad());

  std::stringstream file;
  torch::save(of_script, file);
  EmaTeacher loaded(script_of(*Layer()), EmaOptions().decay(0.9));
  torch::load(loaded, file);
  EXPECT_EQ(loaded.steps(), 5);
  EXPECT_TRUE(torch::equal(loaded.forward(x).toTensor(), output));
  torch::jit::Module other("__torch__.Other");
  other.register_buffer("offset", torch::zeros({2}));
  expect_refusal([&] { of_script.update(other); }, "of another architecture");
}

TEST_F(Ema, TakesASequentialWhoseCloneLosesItsNames) {
  torch::nn::Sequential student(
      {{"first", torch::nn::Linear(3, 4).ptr()}, {"norm", torch::nn::BatchNorm1d(4).ptr()}});
  EmaTeacher teacher(*student, EmaOptions().decay(0));
  {
    const torch::NoGradGuard no_grad;
    for (auto& p : student->parameters()) p.add_(1);
  }
  teacher.update(*student);
  student->eval();
  const auto x = torch::randn({5, 3});
  EXPECT_TRUE(torch::equal(teacher.forward(x), student->forward(x)));
}

/// The head's weight is the embedding's.
struct TiedImpl : torch::nn::Cloneable<TiedImpl> {
  explicit TiedImpl(bool tied = true) : tied_(tied) { reset(); }
  void reset() override {
    tokens = register_module("tokens", torch::nn::Embedding(5, 4));
    head = register_parameter("head", tied_ ? tokens->weight : torch::randn({5, 4}));
  }
  torch::Tensor forward(const torch::Tensor& x) { return torch::matmul(tokens(x), head.t()); }
  bool tied_;
  torch::nn::Embedding tokens{nullptr};
  torch::Tensor head;
};
TORCH_MODULE(Tied);

TEST_F(Ema, MovesTiedTensorsOnce) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    Tied student;
    student->to(dtype);
    const auto before = student->head.detach().to(torch::kFloat).clone();
    const auto built = std::make_shared<TiedImpl>();
    built->to(dtype);
    EmaTeacher cloned(*student, EmaOptions().decay(0.5));
    EmaTeacher given(*student, built, EmaOptions().decay(0.5));
    {
      const torch::NoGradGuard no_grad;
      student->head.add_(1);
    }
    for (auto* teacher : {&cloned, &given}) {
      teacher->update(*student);
      const auto expected = (0.5 * before + 0.5 * student->head.to(torch::kFloat)).to(dtype);
      EXPECT_TRUE(close(teacher->module()->head, expected));
      EXPECT_TRUE(torch::equal(teacher->module()->tokens->weight, teacher->module()->head));
      std::stringstream file;
      torch::save(*teacher, file);
      teacher->update(*student);
      torch::load(*teacher, file);
      EXPECT_TRUE(close(teacher->module()->head, expected));
    }
    EXPECT_TRUE(given.module()->head.is_same(given.module()->tokens->weight));
    EXPECT_EQ(given.steps(), 1);
  }
}

/// Without a clone() of its own.
struct PlainImpl : torch::nn::Module {
  explicit PlainImpl(int64_t width = 3) { fc = register_module("fc", torch::nn::Linear(width, 2)); }
  torch::Tensor forward(const torch::Tensor& x) { return fc(x); }
  torch::nn::Linear fc{nullptr};
};

TEST_F(Ema, TakesATeacherThatTheCallerHasBuilt) {
  const PlainImpl student;
  expect_refusal([&] { EmaTeacher<PlainImpl>{student}; },
                 "lawn::EmaTeacher: expected a student that can be cloned, got one that says "
                 "'clone() has not been implemented");
  const auto built = std::make_shared<PlainImpl>();
  EmaTeacher teacher(student, built, EmaOptions().decay(0.5));
  expect_equal(*built, values(student), "it becomes a copy of the student");
  EXPECT_EQ(teacher.module(), built);
  EXPECT_FALSE(built->is_training());
  EXPECT_FALSE(built->fc->weight.requires_grad());
}

TEST_F(Ema, TakesBuffersWhoseElementsShareMemory) {
  for (const auto policy : {EmaBuffers::kAverage, EmaBuffers::kCopy, EmaBuffers::kLeave}) {
    for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
      const auto with_buffers = [&] {
        auto net = std::make_shared<PlainImpl>();
        net->to(dtype);  // which gives every element a place
        net->register_buffer("position_ids", torch::arange(5).expand({3, 5}));
        net->register_buffer("scale", torch::ones({4, 1}, dtype).expand({4, 2}));
        return net;
      };
      const auto student = with_buffers();
      const auto built = with_buffers();
      EmaTeacher<PlainImpl> teacher(*student, built, EmaOptions().decay(0.5).buffers(policy));
      student->named_buffers()["position_ids"].select(0, 0).add_(7);
      student->named_buffers()["scale"].select(1, 0).add_(1);
      teacher.update(*student);
      std::stringstream file;
      torch::save(teacher, file);
      teacher.update(*student);
      torch::load(teacher, file);
      const bool left = policy == EmaBuffers::kLeave;
      const double scale = left ? 1 : policy == EmaBuffers::kCopy ? 2 : 1.5;
      const auto buffers = built->named_buffers();
      EXPECT_TRUE(
          torch::equal(buffers["position_ids"], torch::arange(5).add(left ? 0 : 7).expand({3, 5})));
      EXPECT_TRUE(torch::equal(buffers["scale"], torch::full({4, 2}, scale, dtype)));
      EXPECT_EQ(buffers["scale"].stride(1), 0);
    }
  }
}

TEST_F(Ema, RefusesATeacherOfAnotherArchitectureOrDtypeBeforeAnythingIsChanged) {
  const PlainImpl student;
  const auto refuse = [&](const std::shared_ptr<PlainImpl>& teacher, const std::string& part) {
    const auto before = values(*teacher);
    expect_refusal([&] { EmaTeacher<PlainImpl>(student, teacher); }, part);
    expect_equal(*teacher, before, part);
    EXPECT_TRUE(teacher->fc->weight.requires_grad());
    EXPECT_TRUE(teacher->is_training());
  };
  refuse(std::make_shared<PlainImpl>(4),
         "expected a student with 'weight Float [2, 4]' in the place of the teacher's fc.weight, "
         "got 'weight Float [2, 3]'");
  auto wide = std::make_shared<PlainImpl>();
  wide->to(torch::kDouble);
  refuse(wide, "got 'weight Float [2, 3]': it is of another architecture or dtype");
  auto more = std::make_shared<PlainImpl>();
  more->register_buffer("count", torch::zeros({1}));
  refuse(more, "with 3 parameters and buffers, as the teacher has, got one with 2");
  auto renamed = std::make_shared<PlainImpl>();
  PlainImpl other;
  other.register_buffer("mean", torch::zeros({1}));
  renamed->register_buffer("count", torch::zeros({1}));
  expect_refusal([&] { EmaTeacher<PlainImpl>(other, renamed); }, "got 'mean Float [1]'");
  expect_refusal([&] { EmaTeacher<PlainImpl>(student, nullptr); }, "got a null pointer");

  const auto itself = std::make_shared<PlainImpl>();
  expect_refusal([&] { EmaTeacher<PlainImpl>(*itself, itself); },
                 "expected a teacher with memory of its own, got one that shares fc.weight");
  const Tied apart(false);
  expect_refusal([&] { EmaTeacher<TiedImpl>(*apart, std::make_shared<TiedImpl>()); },
                 "expected tokens.weight to be tied to another tensor in the student");
}

TEST_F(Ema, RefusesAnotherStudentBeforeAnythingIsChanged) {
  EmaTeacher teacher(*student_, EmaOptions().decay(0.5));
  disturb();
  const auto before = values(*teacher.module());
  const Net wider(5);
  expect_refusal([&] { teacher.update(*wider); },
                 "lawn::EmaTeacher: expected a student with 'weight Float [4, 3, 3, 3]' in the "
                 "place of the teacher's conv.weight, got 'weight Float [5, 3, 3, 3]'");
  student_->to(torch::kDouble);
  expect_refusal([&] { teacher.update(*student_); }, "of another architecture or dtype");
  expect_equal(*teacher.module(), before, "refused");
  EXPECT_EQ(teacher.steps(), 0);
}

TEST_F(Ema, RefusesADecayOutsideItsRange) {
  for (const double bad : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    expect_refusal([&] { EmaTeacher<NetImpl>(*student_, EmaOptions().decay(bad)); },
                   "lawn::EmaTeacher: decay must be in [0, 1], got ");
    expect_refusal([&] { cosine_decay(bad, 10); }, "decay must be in [0, 1], got ");
  }
  expect_refusal([&] { cosine_decay(0.9, 0); }, "lawn::cosine_decay: steps must be >= 1, got 0");
  EmaTeacher teacher(*student_, EmaOptions().schedule([](int64_t k) { return k < 1 ? 0.5 : 2.0; }));
  disturb();
  teacher.update(*student_);
  const auto before = values(*teacher.module());
  disturb();
  expect_refusal([&] { teacher.update(*student_); }, "decay must be in [0, 1], got 2 for update 1");
  expect_equal(*teacher.module(), before, "refused");
  EXPECT_EQ(teacher.steps(), 1);
}

TEST_F(Ema, RefusesACheckpointOfAnotherTeacherBeforeAnythingIsChanged) {
  EmaTeacher teacher(*student_);
  const auto before = values(*teacher.module());
  std::stringstream other_width;
  torch::save(EmaTeacher<NetImpl>(*Net(5)), other_width);
  expect_refusal([&] { torch::load(teacher, other_width); },
                 "lawn::EmaTeacher: expected a checkpoint with 'weight Float [4, 3, 3, 3]'");
  std::stringstream module;
  torch::save(student_, module);
  expect_refusal([&] { torch::load(teacher, module); },
                 "lawn::EmaTeacher: expected a checkpoint of an EmaTeacher, got one of something");
  expect_equal(*teacher.module(), before, "refused");
}

}  // namespace
