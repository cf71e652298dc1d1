// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <optional>
#include <ostream>
#include <string>

#include "examples/apps/support/flags.h"
#include "examples/apps/support/generated_text.h"
#include "examples/apps/support/language_modelling.h"
#include "examples/apps/support/run_options.h"
#include "examples/apps/support/text.h"
#include "examples/apps/support/transformer.h"

/// What the command line of language says.
struct Options : examples::RunOptions {
  std::string text;
  int64_t layers = 4;
  int64_t width = 128;
  int64_t heads = 4;
  int64_t context = 64;
  int64_t windows = 1920;
  bool validation = false;
  int64_t probe_size = 500;

  Options() {
    select = "blocks";
    optimizer = "fused-adamw";
    betas = "0.9,0.95";
    weight_decay = 0.1;
    decay_vectors = false;
    max_gradient_norm = 1;
    epochs = 10;
    batch_size = 24;
    final_factor = 0.1;
  }

  /// Reads a command line. If only --help was asked for, prints the help and returns nothing.
  static std::optional<Options> parse(int argc, char** argv) {
    Options o;
    examples::Flags flags("language",
                          "trains a transformer to continue a text, byte by byte, with and "
                          "without LAWN.");
    flags
        .add("text", &o.text,
             "file to train on, plain or gzipped, whose last tenth is tested on; none: a generated "
             "text")
        .incidental();  // the run depends on the file's contents: see run_training()
    flags.add("layers", &o.layers, "of the transformer").range(1, 100);
    flags.add("width", &o.width, "width of each layer").range(1, 1e5);
    flags.add("heads", &o.heads, "of each layer's attention; they divide the width").range(1, 1e3);
    flags.add("context", &o.context, "characters that are seen at once").range(1, 1e5);
    flags.add("windows", &o.windows, "pieces of text, each of a context, that make an epoch")
        .range(1, 1e9);
    o.add_optimization(flags, examples::kAdaptiveOptimizers);
    flags
        .add("clip", &o.max_gradient_norm,
             "norm to which all gradients, as one vector, are clipped; 0 leaves them as they are")
        .range(0, 1e6);
    o.add_lawn(flags,
               "every weight matrix of the layers, the head that the walk finds, or all weights, "
               "embeddings among them",
               {"blocks", "walk", "all"});
    flags.add("validation", &o.validation,
              "test on the second last tenth, and do not use the last, so that settings "
              "can be chosen without the test text");
    flags
        .add("probe-size", &o.probe_size,
             "windows of each part of the text that every epoch is measured on")
        .range(1, 1e9);
    o.add_running(flags);
    if (!static_cast<examples::RunOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
    TORCH_CHECK(o.width % o.heads == 0, "--heads: expected a divisor of --width ", o.width,
                "; got ", o.heads);
    return o;
  }

  examples::TransformerOptions shape(const examples::Text& train) const {
    return {train.vocabulary(), context, layers, width, heads};
  }
};

/// The text of a run, in host memory.
inline examples::TextSplit load_split(const Options& options) {
  const examples::Text text =
      options.text.empty() ? examples::generate_text({}) : examples::load_text(options.text);
  return examples::hold_out_end(text, options.validation, options.context);
}

/// One line on what is going to happen.
inline void print_job(std::ostream& out, const Options& options, const examples::TextSplit& text,
                      at::Device device) {
  out << options.layers << " layers of width " << options.width << " on " << text.train.size()
      << " characters of " << text.train.name << ", " << text.train.vocabulary() << " different ("
      << text.test.size() << (options.validation ? " held out" : "") << " to test), "
      << options.summary() << " windows of " << options.context << ","
      << examples::device_text(device) << "\n\n";
}
