// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/run.h"

#include <gtest/gtest.h>
#include <lawn/subnetwork/selection.h>
#include <torch/nn.h>

#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

namespace {

using examples::shell_word;

/// What a shell makes of the words behind `printf '%s\n'`.
std::string said_by_shell(const std::string& words) {
  std::string said;
  FILE* pipe = ::popen(("printf '%s\\n' " + words).c_str(), "r");
  for (int next = std::fgetc(pipe); next != EOF; next = std::fgetc(pipe)) {
    said += static_cast<char>(next);
  }
  ::pclose(pipe);
  return said;
}

TEST(ShellWord, IsOneWordToAShell) {
  for (const std::string text : {"out", "--lr=0.5", "a/b c", "it's", "$HOME", "`id`", "*", "", "~",
                                 "a\\b", "\"x\"", "a;b", "a\nb", "#"}) {
    EXPECT_EQ(said_by_shell(shell_word(text)), text + "\n") << shell_word(text);
  }
}

TEST(ShellWord, LeavesPlainTextAsItIs) {
  for (const std::string text : {"out/run_1.pt", "--lr=0.5", "0.9,0.95", "-3"}) {
    EXPECT_EQ(shell_word(text), text);
  }
}

TEST(HowToResume, IsACommandThatAShellReadsAsItWasGiven) {
  examples::RunOptions options;
  options.out = "my runs";
  options.command_line = {"./cifar10", "--resume", "old place/adam.pt", "--out", "my runs"};
  examples::RunResult result;
  result.name = "adam";
  result.checkpoint = "my runs/adam.pt";
  std::ostringstream one;
  examples::print_how_to_resume(one, options, result);
  EXPECT_NE(one.str().find("\n  ./cifar10 --out 'my runs' --resume 'my runs/adam.pt'\n"),
            std::string::npos)
      << one.str();
  options.compare = true;
  std::ostringstream both;
  examples::print_how_to_resume(both, options, result);
  EXPECT_NE(both.str().find("\n  ./cifar10 --out 'my runs' --resume 'my runs'\n"),
            std::string::npos)
      << both.str();
}

TEST(InitScale, MultipliesTheWeightsThatAreSelectedAndNoOthers) {
  torch::nn::Sequential network(torch::nn::Linear(3, 4), torch::nn::Linear(4, 2));
  std::vector<at::Tensor> before;
  for (const at::Tensor& p : network->parameters()) before.push_back(p.detach().clone());
  examples::scale_weights(lawn::select({network->parameters()[2]}), 2.5);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(network->parameters()[i].equal(before[i] * (i == 2 ? 2.5 : 1.0))) << i;
    EXPECT_TRUE(network->parameters()[i].requires_grad());
  }
}

}  // namespace
