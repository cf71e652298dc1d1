// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <vector>

#include "examples/apps/support/binary_file.h"
#include "examples/apps/support/interactions.h"

namespace examples {

/// Cuts a file of lines into fields, each of which must be a number.
class RatingLines {
 public:
  /// @param separator  between the fields of a line
  RatingLines(std::filesystem::path path, std::string separator)
      : path_(std::move(path)), separator_(std::move(separator)), bytes_(read_file(path_)) {}

  /// Calls take(user, item, time) for each line `user item rating time`. Lines end as on Unix or as
  /// on Windows. A byte-order mark before the first line and blank lines after the last are passed
  /// over.
  /// @throws c10::Error that names file and line if a field is missing, too many or no number, if a
  ///         blank line has others after it, or if there is no line at all
  template <class Take>
  void each(const Take& take) {
    std::string_view rest = lines();
    TORCH_CHECK(!rest.empty(), path_.string(), ": the file is empty; expected lines of ", layout());
    for (line_ = 1; !rest.empty(); ++line_) {
      std::string_view text = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(text.size() + 1, rest.size()));
      if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
      const std::vector<std::string_view> fields = cut(text);
      number<double>(fields[2], "rating");  // any rating counts as one interaction
      take(number<int64_t>(fields[0], "user"), number<int64_t>(fields[1], "item"),
           number<int64_t>(fields[3], "time"));
    }
  }

 private:
  /// The text from the first line to the last that is not blank.
  std::string_view lines() const {
    std::string_view text(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
    if (text.substr(0, kByteOrderMark.size()) == kByteOrderMark) {
      text.remove_prefix(kByteOrderMark.size());
    }
    const size_t last = text.find_last_not_of(" \t\r\n");
    if (last == std::string_view::npos) return {};
    return text.substr(0, text.find('\n', last));
  }

  std::string layout() const {
    const std::string shown = separator_ == "\t" ? "<tab>" : separator_;
    return "user" + shown + "item" + shown + "rating" + shown + "time";
  }

  std::vector<std::string_view> cut(std::string_view text) const {
    std::vector<std::string_view> fields;
    for (size_t begin = 0;;) {
      const size_t length = text.substr(begin).find(separator_);
      fields.push_back(text.substr(begin, length));
      if (length == std::string_view::npos) break;
      begin += length + separator_.size();
    }
    TORCH_CHECK(fields.size() == 4, path_.string(), ":", line_, ": expected ", layout(), ", got ",
                fields.size(), fields.size() == 1 ? " field" : " fields", " in '", text, "'");
    return fields;
  }

  template <class Number>
  Number number(std::string_view text, const char* what) const {
    Number value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    TORCH_CHECK(error == std::errc() && stop == text.data() + text.size(), path_.string(), ":",
                line_, ": expected a number as ", what, ", got '", text, "'");
    return value;
  }

  std::filesystem::path path_;
  std::string separator_;
  std::vector<uint8_t> bytes_;
  int64_t line_ = 1;
};

/// Reads one of MovieLens's files: each rating, of whatever height, is an interaction. Users and
/// items are numbered anew, without gaps, in the order of their numbers in the file, by which
/// messages name them.
/// @param path       u.data of MovieLens-100K or ratings.dat of MovieLens-1M
/// @param separator  "\t" or "::"
/// @throws c10::Error as RatingLines::each() and check_interactions() do
inline Interactions read_ratings(const std::filesystem::path& path, const std::string& separator,
                                 const std::string& name) {
  std::vector<int64_t> users;
  std::vector<int64_t> items;
  std::vector<int64_t> times;
  RatingLines(path, separator).each([&](int64_t user, int64_t item, int64_t time) {
    users.push_back(user);
    items.push_back(item);
    times.push_back(time);
  });
  const auto [user_numbers, user_places, user_counts] =
      at::_unique2(at::tensor(users), /*sorted=*/true, /*return_inverse=*/true);
  const auto [item_numbers, item_places, item_counts] =
      at::_unique2(at::tensor(items), /*sorted=*/true, /*return_inverse=*/true);
  Interactions data{path.string(),        user_places,          item_places,  at::tensor(times),
                    user_numbers.size(0), item_numbers.size(0), user_numbers, item_numbers};
  check_interactions(data);
  data.name = name;
  return data;
}

/// MovieLens-100K (943 users, 1,682 films, 100,000 ratings) or 1M (6,040, 3,706, 1,000,209): the
/// first of u.data, ratings.dat, ml-100k/u.data and ml-1m/ratings.dat that is in `root`.
/// @throws c10::Error that says where it looked, and as read_ratings() does
/// @source Harper and Konstan 2015, "The MovieLens datasets: history and context"
inline Interactions load_movielens(const std::filesystem::path& root) {
  using std::filesystem::is_regular_file;
  for (const auto& folder : {root, root / "ml-100k", root / "ml-1m"}) {
    if (is_regular_file(folder / "u.data")) {
      return read_ratings(folder / "u.data", "\t", "MovieLens-100K");
    }
    if (is_regular_file(folder / "ratings.dat")) {
      return read_ratings(folder / "ratings.dat", "::", "MovieLens-1M");
    }
  }
  TORCH_CHECK(false, "MovieLens: neither u.data nor ratings.dat in ", root.string(), ", ",
              (root / "ml-100k").string(), " or ", (root / "ml-1m").string(),
              "; unpack ml-100k.zip or ml-1m.zip from https://grouplens.org/datasets/movielens "
              "and let --root name the folder");
}

}  // namespace examples
