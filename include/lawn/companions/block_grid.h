// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/ones.h>
#include <c10/util/Exception.h>

#include <lawn/finite_math.h>

namespace lawn {

/// The size of a block of a weight seen as a matrix [size of dimension 0, all the rest]; for a
/// convolution this is [Cout, Cin*kh*kw].
struct BlockShape {
  /// Of a block.
  int64_t rows = 4;
  /// Of a block.
  int64_t columns = 4;
};

namespace detail::companions {

/// A weight cut into blocks; those at the lower and right edges are smaller if its size is no
/// multiple of the block's. Every function takes tensors of the weight's shape, or of the grid's.
class BlockGrid {
 public:
  /// @throws c10::Error if a block has no size, or is larger than the matrix
  BlockGrid(const char* who, const std::string& name, const at::Tensor& weight, BlockShape block)
      : sizes_(weight.sizes().vec()),
        rows_(weight.dim() > 0 ? weight.size(0) : 1),
        columns_(rows_ > 0 ? weight.numel() / rows_ : 0),
        block_(block) {
    TORCH_CHECK(block.rows >= 1 && block.columns >= 1, who,
                ": expected blocks of at least one row and one column, got ", block.rows, "x",
                block.columns);
    TORCH_CHECK(block.rows <= rows_ && block.columns <= columns_, who,
                ": expected blocks that fit the matrix ", rows_, "x", columns_, " of ", name,
                ", got ", block.rows, "x", block.columns, "; take smaller ones, or leave it out");
    down_ = (rows_ + block.rows - 1) / block.rows;
    across_ = (columns_ + block.columns - 1) / block.columns;
  }

  int64_t blocks() const { return down_ * across_; }

  /// Of the grid.
  std::vector<int64_t> shape() const { return {down_, across_}; }

  /// `tensor` as [blocks down, rows, blocks across, columns], with `padding` beyond the edges.
  at::Tensor tiles(const at::Tensor& tensor, double padding) const {
    auto matrix = tensor.reshape({rows_, columns_});
    const auto below = down_ * block_.rows - rows_;
    const auto right = across_ * block_.columns - columns_;
    if (below > 0 || right > 0) {
      matrix = at::constant_pad_nd(matrix, {0, right, 0, below}, padding);
    }
    return matrix.view({down_, block_.rows, across_, block_.columns});
  }

  /// The sum of each block: [blocks down, blocks across].
  at::Tensor sums(const at::Tensor& tensor) const { return tiles(tensor, 0).sum({1, 3}); }

  /// The number of elements of each block, in float64.
  at::Tensor counts(const at::Tensor& tensor) const {
    return sums(at::ones(sizes_, tensor.options().dtype(at::kDouble)));
  }

  /// Spreads one number for each block over its elements; the result has the weight's shape.
  at::Tensor spread(const at::Tensor& of_blocks) const {
    return of_blocks.reshape({down_, 1, across_, 1})
        .expand({down_, block_.rows, across_, block_.columns})
        .reshape({down_ * block_.rows, across_ * block_.columns})
        .slice(0, 0, rows_)
        .slice(1, 0, columns_)
        .reshape(sizes_);
  }

 private:
  std::vector<int64_t> sizes_;
  int64_t rows_;
  int64_t columns_;
  BlockShape block_;
  int64_t down_ = 0;
  int64_t across_ = 0;
};

}  // namespace detail::companions
}  // namespace lawn
