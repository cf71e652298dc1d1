// SPDX-License-Identifier: Apache-2.0
//
// A kernel that reads device memory past the nearest cache, and one that does not:
// scripts/cuda_resources.py must tell them apart.

__global__ void past_caches(float* x, const volatile float* factor) { x[threadIdx.x] *= *factor; }

__global__ void cached(float* x, const float* factor) { x[threadIdx.x] *= *factor; }
