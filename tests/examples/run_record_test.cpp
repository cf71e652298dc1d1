// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/run_record.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <fstream>
#include <iterator>
#include <limits>
#include <string>

#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"

namespace {

examples::RunRecord record() {
  examples::RunRecord made;
  made.program = "cifar10";
  made.name = "lawn-adam";
  made.settings = {{"network", "mlp"}, {"root", "a \"folder\"\\\n"}};
  made.device = "cpu";
  made.ranks = 2;
  made.seconds = 1.5;
  made.figures = {{"test_loss", 1.0 / 3.0}, {"scale", std::numeric_limits<double>::infinity()}};
  return made;
}

examples::History history() {
  examples::History rows({"epoch", "loss"});
  rows.add({1, 0.5});
  rows.add({2, std::numeric_limits<double>::quiet_NaN()});
  return rows;
}

TEST(RunRecord, IsJsonWithAllThatARepetitionNeeds) {
  EXPECT_EQ(record().json(history()), std::string("{\n"
                                                  "  \"program\": \"cifar10\",\n"
                                                  "  \"run\": \"lawn-adam\",\n"
                                                  "  \"settings\": {\n"
                                                  "    \"network\": \"mlp\",\n"
                                                  "    \"root\": \"a \\\"folder\\\"\\\\\\u000a\"\n"
                                                  "  },\n"
                                                  "  \"lawn\": \"" LAWN_VERSION "\",\n"
                                                  "  \"torch\": \"" TORCH_VERSION "\",\n"
                                                  "  \"device\": \"cpu\",\n"
                                                  "  \"ranks\": 2,\n"
                                                  "  \"threads\": ") +
                                          std::to_string(at::get_num_threads()) +
                                          ",\n"
                                          "  \"seconds\": 1.5,\n"
                                          "  \"figures\": {\n"
                                          "    \"test_loss\": 0.33333333333333331,\n"
                                          "    \"scale\": null\n"
                                          "  },\n"
                                          "  \"history\": {\n"
                                          "    \"epoch\": [1, 2],\n"
                                          "    \"loss\": [0.5, null]\n"
                                          "  }\n"
                                          "}\n");
}

TEST(RunRecord, HoldsNumbersThatReadBackTheSame) {
  for (const double value : {0.1, 1.0 / 3.0, 1e-300, -2.5e17}) {
    EXPECT_EQ(std::stod(examples::json_number(value)), value);
  }
}

TEST(RunRecord, IsWrittenUnderTheNameOfTheRun) {
  const TemporaryFolder folder;
  record().write(folder.path(), history());
  std::ifstream file(folder.path() / "lawn-adam.json");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(text, record().json(history()));
  EXPECT_EQ(folder.entries(), 1U);
}

TEST(RunRecord, RefusesAFolderThatDoesNotExist) {
  const TemporaryFolder folder;
  lawn::testing::expect_refusal([&] { record().write(folder.path() / "no", history()); },
                                "lawn-adam.json: ");
}

}  // namespace
