// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Refuses a compiler that takes every number for finite, as it does with -Ofast and -ffast-math.
/// It folds std::isfinite(x) to true, and a NaN compares in any way it likes. The checks of this
/// library would let through what they are there to refuse. Each header with floating-point numbers
/// includes this one, directly or through others; device code can, since it is free of torch.

// clang-format off
#if defined(_M_FP_FAST)
#error "lawn: /fp:fast drops checks for NaN and infinity; compile the files that include lawn with /fp:precise"
#elif defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0
#error "lawn: -Ofast, -ffast-math and -ffinite-math-only drop checks for NaN and infinity; compile the files that include lawn with -fno-finite-math-only after it"
#endif
// clang-format on
