// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace examples {

inline bool contains(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

inline std::string join(const std::vector<std::string>& parts, const std::string& between) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : between) + part;
  return text;
}

/// A number in as few digits as read back to the same double, and at least as many as streams have:
/// 0.001, 1e+06, 0.33333333333333331.
inline std::string number_text(double number) {
  std::string text;
  for (int digits = 6; digits <= std::numeric_limits<double>::max_digits10; ++digits) {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    out.precision(digits);
    out << number;
    text = out.str();
    if (std::strtod(text.c_str(), nullptr) == number) break;
  }
  return text;
}

/// Typed command-line flags: `--name value`, `--name=value`, and for switches also `--name` and
/// `--no-name`. Each flag writes into a variable of the caller, whose value before parse() is the
/// default that --help shows.
///
///     int64_t epochs = 20;
///     Flags flags("cifar10", "Trains a network on small images.");
///     flags.add("epochs", &epochs, "passes over the training set").range(1, 1e6);
///     if (!flags.parse(argc, argv)) { std::cout << flags.help(); return 0; }
class Flags {
 public:
  using Target = std::variant<bool*, int64_t*, double*, std::string*>;

  /// One flag; the chained calls narrow what it accepts.
  class Flag {
   public:
    Flag(std::string name, Target target, std::string help)
        : name_(std::move(name)), target_(target), help_(std::move(help)), default_(text()) {}

    /// Numbers outside [low, high] are refused.
    Flag& range(double low, double high) {
      low_ = low;
      high_ = high;
      return *this;
    }
    /// Only these texts are accepted.
    Flag& choices(std::vector<std::string> choices) {
      choices_ = std::move(choices);
      return *this;
    }
    /// The flag does not change what a run computes (a folder, how often to save): a checkpoint
    /// may be resumed with another value.
    Flag& incidental() {
      incidental_ = true;
      return *this;
    }

    const std::string& name() const { return name_; }
    bool is_incidental() const { return incidental_; }
    bool is_switch() const { return std::holds_alternative<bool*>(target_); }

    /// The present value, as it would be written on the command line.
    std::string text() const {
      if (is_switch()) return *std::get<bool*>(target_) ? "on" : "off";
      if (auto* const* text = std::get_if<std::string*>(&target_)) return **text;
      if (auto* const* integer = std::get_if<int64_t*>(&target_)) return std::to_string(**integer);
      return number_text(*std::get<double*>(target_));
    }

    void set(const std::string& text) {
      if (is_switch()) {
        *std::get<bool*>(target_) = parse_switch(text);
      } else if (auto** integer = std::get_if<int64_t*>(&target_)) {
        **integer = parse_number<int64_t>(text, "a whole number",
                                          [](const std::string& digits, size_t* used) {
                                            return int64_t{std::stoll(digits, used)};
                                          });
      } else if (auto** number = std::get_if<double*>(&target_)) {
        **number = parse_number<double>(
            text, "a number", [](const std::string& digits, size_t* used) {  // too small a one is 0
              char* end = nullptr;
              const double value = std::strtod(digits.c_str(), &end);
              *used = static_cast<size_t>(end - digits.c_str());
              return value;
            });
      } else {
        TORCH_CHECK(choices_.empty() || contains(choices_, text), "--", name_, ": expected one of ",
                    join(choices_, ", "), "; got '", text, "'");
        *std::get<std::string*>(target_) = text;
      }
    }

    std::string help() const {
      std::string left = "  --" + name_;
      if (!choices_.empty()) {
        left += " " + join(choices_, "|");
      } else if (is_switch()) {
        left += " | --no-" + name_;
      } else {
        left += std::holds_alternative<std::string*>(target_) ? " TEXT" : " N";
      }
      left += left.size() < kHelpColumn ? std::string(kHelpColumn - left.size(), ' ')
                                        : "\n" + std::string(kHelpColumn, ' ');
      return left + help_ + (default_.empty() ? "" : " [" + default_ + "]") + "\n";
    }

   private:
    static constexpr size_t kHelpColumn = 32;

    bool parse_switch(const std::string& text) const {
      if (text == "on" || text == "true") return true;
      TORCH_CHECK(text == "off" || text == "false", "--", name_, ": expected on or off; got '",
                  text, "'");
      return false;
    }

    template <class Number, class Convert>
    Number parse_number(const std::string& text, const char* kind, Convert convert) const {
      size_t used = 0;
      Number value = 0;
      bool in_range = true;
      try {
        value = convert(text, &used);
        const auto compared = static_cast<double>(value);
        in_range = compared >= low_ && compared <= high_;
      } catch (const std::out_of_range&) {  // of the type
        used = text.size();
        in_range = false;
      } catch (const std::exception&) {  // no digits at all
        used = 0;
      }
      TORCH_CHECK(used == text.size() && used > 0, "--", name_, ": expected ", kind, "; got '",
                  text, "'");
      TORCH_CHECK(in_range, "--", name_, ": expected ", kind, " from ", limit<Number>(low_), " to ",
                  limit<Number>(high_), "; got ", text);
      return value;
    }

    /// An end of the range, or of its type's where that is narrower.
    template <class Number>
    static std::string limit(double end) {
      using Limits = std::numeric_limits<Number>;
      if (end <= static_cast<double>(Limits::lowest())) return c10::str(Limits::lowest());
      if (end >= static_cast<double>(Limits::max())) return c10::str(Limits::max());
      return number_text(end);
    }

    std::string name_;
    Target target_;
    std::string help_;
    std::string default_;
    std::vector<std::string> choices_;
    double low_ = std::numeric_limits<double>::lowest();
    double high_ = std::numeric_limits<double>::max();
    bool incidental_ = false;
  };

  Flags(std::string program, std::string summary)
      : program_(std::move(program)), summary_(std::move(summary)) {}

  /// Declares a flag. The reference that is returned holds until the next add().
  Flag& add(const std::string& name, Target target, const std::string& help) {
    return flags_.emplace_back(name, target, help);
  }

  /// Reads the command line into the variables.
  /// @return false if --help was asked for (print help() and stop)
  /// @throws c10::Error for an unknown flag (names the nearest known one), a missing value, a value
  ///         of the wrong type or out of range
  bool parse(const std::vector<std::string>& arguments) {
    for (size_t index = 0; index < arguments.size(); ++index) {
      const std::string& argument = arguments[index];
      if (argument == "--help" || argument == "-h") return false;
      TORCH_CHECK(argument.size() > 2 && argument.compare(0, 2, "--") == 0, program_,
                  ": expected a flag such as --", flags_.empty() ? "help" : flags_.front().name(),
                  ", got '", argument, "'; --help lists all flags");
      const size_t equals = argument.find('=');
      const std::string name =
          argument.substr(2, equals == std::string::npos ? equals : equals - 2);
      if (Flag* flag = find(name)) {
        if (equals != std::string::npos) {
          flag->set(argument.substr(equals + 1));
        } else if (index + 1 < arguments.size() && takes(*flag, arguments[index + 1])) {
          flag->set(arguments[++index]);
        } else {
          TORCH_CHECK(flag->is_switch(), "--", name, ": a value is missing");
          flag->set("on");
        }
        continue;
      }
      Flag* negated = name.compare(0, 3, "no-") == 0 ? find(name.substr(3)) : nullptr;
      TORCH_CHECK(negated && negated->is_switch() && equals == std::string::npos, program_,
                  ": unknown flag --", name, nearest(name), "; --help lists all flags");
      negated->set("off");
    }
    return true;
  }

  bool parse(int argc, char** argv) {
    return parse(std::vector<std::string>(argv + 1, argv + argc));
  }

  /// One line for each flag with its choices and default.
  std::string help() const {
    std::string text = program_ + ": " + summary_ + "\n\n";
    for (const Flag& flag : flags_) text += flag.help();
    return text + "  --help" + std::string(24, ' ') + "print this and stop\n";
  }

  /// Name and value of every flag that changes what a run computes, in order of declaration.
  std::vector<std::pair<std::string, std::string>> essential_values() const {
    std::vector<std::pair<std::string, std::string>> values;
    for (const Flag& flag : flags_) {
      if (!flag.is_incidental()) values.emplace_back(flag.name(), flag.text());
    }
    return values;
  }

 private:
  /// A switch takes the next argument only if it reads as one; other flags take whatever is not a
  /// flag itself ("-3" is a number).
  static bool takes(const Flag& flag, const std::string& next) {
    if (flag.is_switch()) return contains({"on", "off", "true", "false"}, next);
    return next.compare(0, 2, "--") != 0;
  }

  Flag* find(const std::string& name) {
    for (Flag& flag : flags_) {
      if (flag.name() == name) return &flag;
    }
    return nullptr;
  }

  /// "; did you mean --epochs?" if a known flag is at most half its length away.
  std::string nearest(const std::string& name) const {
    std::string best;
    size_t best_distance = std::numeric_limits<size_t>::max();
    for (const Flag& flag : flags_) {
      const size_t distance = edit_distance(name, flag.name());
      if (distance < best_distance) {
        best_distance = distance;
        best = flag.name();
      }
    }
    return best_distance * 2 <= best.size() ? "; did you mean --" + best + "?" : "";
  }

  /// Levenshtein distance: single-character insertions, deletions and replacements from a to b.
  static size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
      size_t diagonal = std::exchange(row[0], i);
      for (size_t j = 1; j <= b.size(); ++j) {
        const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
        diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
      }
    }
    return row[b.size()];
  }

  std::string program_;
  std::string summary_;
  std::vector<Flag> flags_;
};

}  // namespace examples
