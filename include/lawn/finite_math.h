// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Refuses a compiler that takes every number for finite, as one does with -Ofast and -ffast-math.
/// Such a compiler folds std::isfinite(x) to true and may give any result for a comparison with
/// NaN, so that the checks of this library would accept what they are there to refuse. Each header
/// with floating-point numbers includes this one, directly or through others; device code can
/// include it too, since it needs nothing of torch.

// clang-format off
#if defined(_M_FP_FAST)
#error "lawn: /fp:fast drops checks for NaN and infinity; compile the files that include lawn with /fp:precise"
#elif defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0
#error "lawn: -Ofast, -ffast-math and -ffinite-math-only drop checks for NaN and infinity; compile the files that include lawn with -fno-finite-math-only after it"
#endif
// clang-format on
