// SPDX-License-Identifier: Apache-2.0
//
// Trains a recommender on who took what, plain or with LAWN or both, and prints what came of it:
//
// clang-format off
//   recommender --compare                                     generated interactions, no files needed
//   recommender --compare --network gmf --factors 16 --data movielens --root DIR
//   recommender --help
// clang-format on

#include <filesystem>
#include <iostream>
#include <vector>

#include "examples/recommender/options.h"
#include "examples/recommender/run.h"
#include "examples/support/interrupt.h"

int main(int argc, char** argv) try {
  const auto options = Options::parse(argc, argv);
  if (!options) return 0;  // --help
  options->apply_to_torch();
  std::filesystem::create_directories(options->out);
  examples::catch_interrupts();

  const at::Device device = options->torch_device();
  const examples::RankingData data = load_data(*options).to(device);
  print_job(std::cout, *options, data, device);

  std::vector<Result> results;
  for (const bool with_lawn : options->runs()) {
    results.push_back(train(*options, data, device, with_lawn));
    if (!results.back().finished) {
      examples::print_how_to_resume(std::cout, *options, results.back());
      return 130;  // as a shell reports a program that Ctrl-C ended
    }
  }
  print_results(std::cout, results);
  return 0;
} catch (const c10::Error& error) {
  std::cerr << "recommender: " << error.what_without_backtrace() << '\n';
  return 1;
} catch (const std::exception& error) {
  std::cerr << "recommender: " << error.what() << '\n';
  return 1;
}
