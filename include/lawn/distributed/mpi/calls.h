// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <mpi.h>
#include <torch/csrc/distributed/c10d/Types.hpp>

namespace lawn::detail::mpi {

/// MPI's text for an error code.
inline std::string mpi_error(int code) {
  std::string text(MPI_MAX_ERROR_STRING, '\0');
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) return std::to_string(code);
  text.resize(static_cast<std::size_t>(length));
  return text;
}

/// Throws MPI's text for an error code other than success.
inline void check_mpi(int code, const char* what) {
  TORCH_CHECK(code == MPI_SUCCESS, "lawn::MpiGroup: ", what, " failed: ", mpi_error(code));
}

/// Whether MPI is finalized. Almost any call of MPI then ends the whole job, without naming the
/// culprit.
inline bool mpi_finalized() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  return finalized != 0;
}

/// The dtype in which tensors of `dtype` are added: MPI has no half precision, and no sum of bools.
inline at::ScalarType mpi_sum_dtype(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf:
    case at::kBFloat16:
      return at::kFloat;
    case at::kBool:
      return at::kByte;
    default:
      return dtype;
  }
}

inline MPI_Datatype mpi_datatype(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kByte:
      return MPI_UINT8_T;
    case at::kChar:
      return MPI_INT8_T;
    case at::kShort:
      return MPI_INT16_T;
    case at::kInt:
      return MPI_INT32_T;
    case at::kLong:
      return MPI_INT64_T;
    default:
      TORCH_CHECK(false, "lawn::MpiGroup: expected a dtype that MPI adds (float, double, half, ",
                  "bfloat16, integers), got ", dtype, "; convert the tensor first");
  }
}

inline MPI_Op mpi_op(const c10d::ReduceOp& op) {
  switch (op) {
    case c10d::ReduceOp::SUM:
      return MPI_SUM;
    case c10d::ReduceOp::MIN:
      return MPI_MIN;
    case c10d::ReduceOp::MAX:
      return MPI_MAX;
    default:
      TORCH_CHECK(false, "lawn::MpiGroup: expected the reduction SUM, MIN or MAX, got number ",
                  static_cast<int>(op.op_));
  }
}

}  // namespace lawn::detail::mpi
