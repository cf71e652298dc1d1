// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>
#include <lawn/write_atomically.h>
#include <torch/serialize/archive.h>

#include <algorithm>
#include <filesystem>
#include <locale>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace examples {

/// Figures of a run, one row an epoch: what goes into the CSV file and, so that the file of a
/// resumed run is whole, into checkpoints.
class History {
 public:
  explicit History(std::vector<std::string> columns) : columns_(std::move(columns)) {}

  void add(std::vector<double> row) {
    TORCH_CHECK(row.size() == columns_.size(), "History: ", columns_.size(),
                " columns, but a row of ", row.size());
    rows_.push_back(std::move(row));
  }

  const std::vector<std::string>& columns() const { return columns_; }
  const std::vector<std::vector<double>>& rows() const { return rows_; }
  size_t size() const { return rows_.size(); }

  /// A figure of the last row.
  double last(const std::string& column) const {
    TORCH_CHECK(!rows_.empty(), "History: no rows yet");
    const auto found = std::find(columns_.begin(), columns_.end(), column);
    TORCH_CHECK(found != columns_.end(), "History: no column '", column, "'");
    return rows_.back()[static_cast<size_t>(found - columns_.begin())];
  }

  /// Comma-separated values with a heading; each number reads back as the same double.
  std::string csv() const {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text.precision(17);
    for (size_t index = 0; index < columns_.size(); ++index) {
      text << (index == 0 ? "" : ",") << columns_[index];
    }
    text << '\n';
    for (const auto& row : rows_) {
      for (size_t index = 0; index < row.size(); ++index)
        text << (index == 0 ? "" : ",") << row[index];
      text << '\n';
    }
    return text.str();
  }

  /// Replaces the file at `path` as a whole.
  void write_csv(const std::filesystem::path& path) const { lawn::write_atomically(path, csv()); }

  /// All rows as float64 [rows, columns].
  at::Tensor to_tensor() const {
    at::Tensor tensor = at::empty(
        {static_cast<int64_t>(rows_.size()), static_cast<int64_t>(columns_.size())}, at::kDouble);
    double* next = tensor.mutable_data_ptr<double>();
    for (const auto& row : rows_) next = std::copy(row.begin(), row.end(), next);
    return tensor;
  }

  /// Takes the rows of a tensor that to_tensor() made.
  void from_tensor(const at::Tensor& tensor) {
    TORCH_CHECK(tensor.dim() == 2 && tensor.size(1) == static_cast<int64_t>(columns_.size()),
                "History: expected [rows, ", columns_.size(), "], got ", tensor.sizes());
    const at::Tensor host = tensor.to(at::kDouble).contiguous();
    rows_.clear();
    for (int64_t row = 0; row < host.size(0); ++row) {
      const double* begin = host.const_data_ptr<double>() + row * host.size(1);
      rows_.emplace_back(begin, begin + host.size(1));
    }
  }

  void save(torch::serialize::OutputArchive& archive) const {
    archive.write("rows", to_tensor(), /*is_buffer=*/true);
  }
  void load(torch::serialize::InputArchive& archive) {
    at::Tensor rows;
    archive.read("rows", rows, /*is_buffer=*/true);
    from_tensor(rows);
  }

 private:
  std::vector<std::string> columns_;
  std::vector<std::vector<double>> rows_;
};

}  // namespace examples
