// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ostream>
#include <string>
#include <utility>

#include "examples/apps/support/table.h"

namespace examples {

/// A duration as "42 s", "3:07" or "1:02:03".
inline std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 60) return std::to_string(whole) + " s";
  const auto two = [](int64_t n) { return (n < 10 ? "0" : "") + std::to_string(n); };
  const std::string minutes_and_seconds = two(whole / 60 % 60) + ":" + two(whole % 60);
  if (whole >= 3600) return std::to_string(whole / 3600) + ":" + minutes_and_seconds;
  return std::to_string(whole / 60) + ":" + two(whole % 60);
}

/// Progress of a run: on a terminal one line that is drawn over itself, elsewhere (a file, a pipe,
/// CI) a plain line every few seconds.
class Progress {
 public:
  using Clock = std::chrono::steady_clock;

  /// @param title     stands at the head of the line
  /// @param total     samples that the run will process in all
  /// @param done      samples already processed before an interruption
  /// @param terminal  whether to draw a bar
  /// @param unit      what samples are called
  Progress(std::ostream& out, std::string title, int64_t total, int64_t done, bool terminal,
           std::string unit)
      : out_(out),
        title_(std::move(title)),
        total_(total),
        at_start_(done),
        terminal_(terminal),
        unit_(std::move(unit)),
        interval_(terminal ? std::chrono::milliseconds(200) : std::chrono::milliseconds(5000)),
        start_(Clock::now()),
        shown_(start_) {}

  /// Whether enough time has passed since the last line. Ask before computing the loss, which may
  /// wait for the device.
  bool due() const { return Clock::now() - shown_ >= interval_; }

  /// Shows where the run is.
  /// @param done  samples processed, those before an interruption included
  void show(int64_t done, double loss) {
    shown_ = Clock::now();
    if (terminal_) {
      out_ << '\r' << line(done, loss, elapsed()) << "\033[K" << std::flush;
    } else {
      out_ << line(done, loss, elapsed()) << std::endl;
    }
  }

  /// Prints a whole line between the lines of progress.
  void print(const std::string& text) {
    if (terminal_) out_ << "\r\033[K";
    out_ << text << std::endl;
  }

  /// The text of a line `seconds` after the start.
  std::string line(int64_t done, double loss, double seconds) const {
    const double rate = seconds > 0 ? static_cast<double>(done - at_start_) / seconds : 0;
    const double share = total_ > 0 ? static_cast<double>(done) / static_cast<double>(total_) : 1;
    std::string text = title_ + "  ";
    if (terminal_) text += bar(share) + " ";
    text += fixed(100 * share, 0) + " %  " + fixed(rate, 0) + " " + unit_ + "/s  loss " +
            fixed(loss, 4);
    if (rate > 0) text += "  " + duration(static_cast<double>(total_ - done) / rate) + " left";
    return text;
  }

 private:
  static std::string bar(double share) {
    constexpr size_t kWidth = 30;
    const auto filled = std::min(kWidth, static_cast<size_t>(share * kWidth));
    return "[" + std::string(filled, '=') + std::string(kWidth - filled, ' ') + "]";
  }

  double elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  std::ostream& out_;
  std::string title_;
  int64_t total_;
  int64_t at_start_;
  bool terminal_;
  std::string unit_;
  Clock::duration interval_;
  Clock::time_point start_;
  Clock::time_point shown_;
};

}  // namespace examples
