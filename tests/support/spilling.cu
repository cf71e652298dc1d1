// SPDX-License-Identifier: Apache-2.0
//
// A kernel that wants far more than the 32 registers that its launch bounds leave it, and one that
// does not: scripts/cuda_resources.py must tell them apart.

__global__ void __launch_bounds__(1024, 2) spilling(float* x) {
  constexpr int kLive = 128;
  float live[kLive];
#pragma unroll
  for (int i = 0; i < kLive; ++i) live[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kLive; ++i) x[(kLive - 1 - i) * 1024 + threadIdx.x] = live[i] + live[i / 2];
}

__global__ void modest(float* x) { x[threadIdx.x] += 1; }
