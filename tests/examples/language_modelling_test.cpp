// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/language_modelling.h"

#include <gtest/gtest.h>
#include <lawn/lawn.h>
#include <lawn/subnetwork/select_by_name.h>
#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "examples/apps/support/generated_text.h"
#include "examples/apps/support/trainer.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"

namespace {

constexpr int64_t kContext = 16;

examples::TextSplit small_text(int64_t characters = 4000) {
  examples::GeneratedTextOptions options;
  options.characters = characters;
  options.words = 20;
  options.followers = 2;
  return examples::hold_out_end(examples::generate_text(options), false, kContext);
}

examples::Transformer small_network(const examples::Text& text) {
  torch::manual_seed(3);
  examples::TransformerOptions options;
  options.vocabulary = text.vocabulary();
  options.context = kContext;
  options.layers = 2;
  options.width = 32;
  options.heads = 2;
  return examples::Transformer(options);
}

TEST(Transformer, HasAboutAMillionParametersByDefault) {
  examples::TransformerOptions options;
  options.vocabulary = 80;
  int64_t count = 0;
  for (const at::Tensor& parameter : examples::Transformer(options)->parameters()) {
    count += parameter.numel();
  }
  EXPECT_EQ(count, 822'096);
}

TEST(Transformer, SeesNoTokenThatIsStillToCome) {
  const auto text = small_text().train;
  auto network = small_network(text);
  const at::Tensor tokens = text.tokens.slice(0, 0, 2 * kContext).view({2, kContext});
  const at::Tensor logits = network(tokens);
  EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{2, kContext, text.vocabulary()}));
  at::Tensor changed = tokens.clone();
  changed.slice(1, 9).copy_((changed.slice(1, 9) + 1) % text.vocabulary());
  const at::Tensor others = network(changed);
  EXPECT_TRUE(torch::allclose(others.slice(1, 0, 9), logits.slice(1, 0, 9), 0, 1e-6));
  EXPECT_GT((others - logits).select(1, 9).abs().max().item<double>(), 1e-3);
}

TEST(Transformer, AttendsAsAPlainTwinDoes) {
  torch::manual_seed(3);
  examples::TransformerOptions options;
  options.width = 8;
  options.heads = 2;
  examples::TransformerBlock block(options);
  const at::Tensor x = torch::randn({1, 5, 8});
  const auto weights = block->named_parameters();
  const auto apply = [&](const std::string& name, const at::Tensor& input) {
    return torch::linear(input, weights[name + ".weight"], weights[name + ".bias"]);
  };
  const at::Tensor qkv = apply("qkv", torch::layer_norm(x, {8}))[0];
  at::Tensor attended = torch::zeros({5, 8});
  for (int64_t head = 0; head < 2; ++head) {
    for (int64_t place = 0; place < 5; ++place) {
      const auto part = [&](int64_t which, int64_t end) {
        return qkv.slice(0, 0, end).slice(1, 8 * which + 4 * head, 8 * which + 4 * head + 4);
      };
      const at::Tensor query = part(0, place + 1)[place];
      const at::Tensor shares = (part(1, place + 1).mv(query) / 2).softmax(0);  // root of 4
      attended[place].slice(0, 4 * head, 4 * head + 4).copy_(shares.matmul(part(2, place + 1)));
    }
  }
  const at::Tensor middle = x + apply("out", attended.unsqueeze(0));
  const at::Tensor expected =
      middle + apply("down", torch::gelu(apply("up", torch::layer_norm(middle, {8}))));
  EXPECT_TRUE(torch::allclose(block(x), expected, 1e-5, 1e-6));
}

TEST(Transformer, HasFourMatricesALayerToHoldAndTheHeadForTheWalk) {
  const auto text = small_text().train;
  auto network = small_network(text);
  const std::vector<std::string> blocks = {
      "block1.qkv.weight", "block1.out.weight", "block1.up.weight", "block1.down.weight",
      "block2.qkv.weight", "block2.out.weight", "block2.up.weight", "block2.down.weight"};
  EXPECT_EQ(lawn::select_by_name(*network, examples::kBlockWeights).names(), blocks);
  const at::Tensor logits = network(text.tokens.slice(0, 0, 4).unsqueeze(0));
  EXPECT_EQ(lawn::final_homogeneous_subnetwork(logits, *network).names(),
            (std::vector<std::string>{"head.weight"}));
}

TEST(Transformer, RefusesHeadsThatDoNotDivideTheWidthAndMoreTokensThanItsContext) {
  examples::TransformerOptions options;
  options.heads = 3;
  lawn::testing::expect_refusal([&] { examples::Transformer network(options); },
                                "expected heads that divide the width 128, got 3");
  auto network = small_network(small_text().train);
  lawn::testing::expect_refusal(
      [&] {
        network(torch::zeros({1, kContext + 1}, torch::kLong));
      },
      "expected at most 16 tokens at once, got 17");
}

TEST(LanguageModelling, DrawsWindowsWhoseTargetsAreTheNextCharacters) {
  const auto text = small_text();
  examples::LanguageModelling task(small_network(text.train), text, {kContext, 500, 10});
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  const at::Tensor state = generator.get_state();
  task.begin_epoch(generator);
  const auto windows = task.epoch_windows(0, 500);
  EXPECT_EQ(windows.inputs.sizes(), (std::vector<int64_t>{500, kContext}));
  EXPECT_EQ(windows.targets.sizes(), (std::vector<int64_t>{500, kContext}));
  EXPECT_TRUE(torch::equal(windows.inputs.slice(1, 1), windows.targets.slice(1, 0, kContext - 1)));
  const at::Tensor pieces = text.train.tokens.unfold(0, kContext + 1, 1);
  for (int64_t window = 0; window < 20; ++window) {
    const at::Tensor whole =
        torch::cat({windows.inputs[window], windows.targets[window].slice(0, kContext - 1)});
    EXPECT_TRUE(pieces.eq(whole).all(1).any().item<bool>()) << window;
  }
  generator.set_state(state);
  task.begin_epoch(generator);
  EXPECT_TRUE(torch::equal(task.epoch_windows(0, 500).inputs, windows.inputs));
  task.begin_epoch(generator);
  EXPECT_FALSE(torch::equal(task.epoch_windows(0, 500).inputs, windows.inputs));
}

TEST(LanguageModelling, ReachesTheFirstAndTheLastCharacterOfTheText) {
  const auto whole = small_text();
  const examples::TextSplit text = {whole.train.slice(0, kContext + 3), whole.test};
  examples::LanguageModelling task(small_network(text.train), text, {kContext, 200, 10});
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  task.begin_epoch(generator);
  std::set<std::string> seen;
  const auto windows = task.epoch_windows(0, 200);
  for (int64_t window = 0; window < 200; ++window) {
    std::ostringstream tokens;
    tokens << windows.targets[window];
    seen.insert(tokens.str());
  }
  EXPECT_EQ(seen.size(), 3U);
}

TEST(LanguageModelling, TrainsOnTheMeanCrossEntropyOfABatch) {
  const auto text = small_text();
  auto network = small_network(text.train);
  examples::LanguageModelling task(network, text, {kContext, 30, 10});
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  task.begin_epoch(generator);
  const auto batch = task.batch(10, 15, generator);
  const auto windows = task.epoch_windows(10, 15);
  const at::Tensor chances = network(windows.inputs).log_softmax(2);
  double expected = 0;
  for (int64_t window = 0; window < 5; ++window) {
    for (int64_t place = 0; place < kContext; ++place) {
      const auto target = windows.targets[window][place].item<int64_t>();
      expected -= chances[window][place][target].item<double>() / (5 * kContext);
    }
  }
  EXPECT_NEAR(batch.loss.item<double>(), expected, 1e-5);
  EXPECT_NEAR(batch.sums[0].item<double>(), 5 * expected, 1e-4);
  EXPECT_TRUE(batch.loss.requires_grad());
  EXPECT_FALSE(batch.sums.requires_grad());
}

TEST(LanguageModelling, MeasuresEachCharacterOfTheTestTextOnce) {
  const auto text = small_text();
  auto network = small_network(text.train);
  examples::LanguageModelling task(network, text, {kContext, 30, 7});
  const torch::NoGradGuard no_grad;
  const int64_t count = (text.test.size() - 1) / kContext;
  double loss = 0;
  for (int64_t window = 0; window < count; ++window) {
    const int64_t begin = window * kContext;
    const at::Tensor inputs = text.test.tokens.slice(0, begin, begin + kContext).unsqueeze(0);
    const at::Tensor targets = text.test.tokens.slice(0, begin + 1, begin + kContext + 1);
    loss += torch::nn::functional::cross_entropy(network(inputs)[0], targets).item<double>() /
            static_cast<double>(count);
  }
  EXPECT_NEAR(task.on_test_text().loss, loss, 1e-5);
  const auto measured = task.measure();
  EXPECT_EQ(measured.figures.size(), task.columns().size());
  EXPECT_TRUE(network->is_training());
  // A probe is spread over the text.
  examples::LanguageModelling whole(network, text, {kContext, 30, 1'000'000});
  EXPECT_NEAR(whole.measure().score, std::exp(-loss), 1e-6);
}

/// All objects of one run, new: as another process would make them.
struct Job {
  Job(const std::string& select, int64_t epochs, const std::filesystem::path& checkpoint = {},
      const examples::TextSplit& text = small_text()) {
    at::set_num_threads(1);
    network = small_network(text.train);
    const auto weights = lawn::select_by_name(*network, examples::kBlockWeights);
    task = std::make_unique<examples::LanguageModelling>(
        network, text, examples::LanguageModellingOptions{kContext, 96, 20});
    examples::TrainerOptions options;
    options.epochs = epochs;
    options.batch_size = 16;
    options.max_gradient_norm = 1;
    options.checkpoint = checkpoint;
    examples::StepperOptions stepping;
    stepping.optimizer = "fused-adamw";
    stepping.learning_rate = 0.01;
    stepping.weight_decay = 0.1;
    stepping.decay_vectors = false;
    stepping.betas = examples::Betas(0.9, 0.95);
    stepping.lawn = select == "blocks";
    stepping.free_steps = 9;
    stepping.warmup_steps = 2;
    stepping.total_steps =
        epochs * examples::Trainer::steps_per_epoch(task->size(), options.batch_size);
    stepper = examples::make_stepper(network->parameters(), weights, stepping);
    trainer = std::make_unique<examples::Trainer>(*task, *stepper, weights, options,
                                                  examples::Settings{{"select", select}});
  }

  bool train_to(int64_t steps) {
    examples::Progress progress(out, "run", 1, 0, false, "windows");
    return trainer->run(progress, [&] { return trainer->steps() >= steps; });
  }

  std::ostringstream out;
  examples::Transformer network = nullptr;
  std::unique_ptr<examples::LanguageModelling> task;
  std::unique_ptr<examples::Stepper> stepper;
  std::unique_ptr<examples::Trainer> trainer;
};

TEST(LanguageModelling, ResumesToTheSameBitsFromWithinAnEpochOnBothSidesOfTheSwitch) {
  const TemporaryFolder folder;
  const auto checkpoint = folder.path() / "run.pt";
  for (const std::string select : {"nothing", "blocks"}) {
    Job whole(select, 3);
    ASSERT_TRUE(whole.train_to(1000));
    ASSERT_EQ(whole.trainer->steps(), 18);
    for (const int64_t stop : {2, 6, 9, 10, 17}) {
      {
        Job first(select, 3, checkpoint);
        ASSERT_FALSE(first.train_to(stop));
      }
      Job second(select, 3, checkpoint);
      torch::manual_seed(12345);  // a process of its own would not be at the same place
      second.trainer->load(checkpoint);
      ASSERT_TRUE(second.train_to(1000));
      const auto expected = whole.network->named_parameters();
      for (const auto& item : second.network->named_parameters()) {
        EXPECT_TRUE(torch::equal(item.value(), expected[item.key()])) << stop << ' ' << item.key();
      }
      for (const std::string column : {"batch_loss", "train_loss", "test_loss"}) {
        EXPECT_EQ(second.trainer->history().last(column), whole.trainer->history().last(column))
            << stop << ' ' << column;
      }
    }
  }
}

TEST(LanguageModelling, LearnsAGeneratedTextFarBeyondHowOftenItsCharactersOccur) {
  const auto text = small_text(20'000);
  const at::Tensor share =
      text.train.tokens.bincount().to(torch::kDouble) / static_cast<double>(text.train.size());
  const double known_by_count = -(share * share.log()).sum().item<double>();
  std::vector<double> growth;
  for (const std::string select : {"nothing", "blocks"}) {
    Job job(select, 25, {}, text);
    const double before = job.task->on_test_text().loss;
    EXPECT_NEAR(before, std::log(static_cast<double>(text.train.vocabulary())), 0.2);
    ASSERT_TRUE(job.train_to(1000));
    EXPECT_LT(job.task->on_test_text().loss, 0.5 * known_by_count) << select;
    growth.push_back(job.trainer->norm_growth());
  }
  EXPECT_LT(growth[1], 0.8 * growth[0]);  // held
}

TEST(Trainer, ClipsAllGradientsToANormWhereItIsTold) {
  Job job("nothing", 1);
  ASSERT_FALSE(job.train_to(1));
  double squares = 0;
  for (const at::Tensor& parameter : job.network->parameters()) {
    squares += parameter.grad().square().sum().item<double>();
  }
  EXPECT_NEAR(std::sqrt(squares), 1, 1e-4);  // unclipped it is above
}

}  // namespace
