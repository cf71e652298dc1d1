// SPDX-License-Identifier: Apache-2.0
#pragma once

// LAWN_ADDRESS_SANITIZER is defined under AddressSanitizer.
#if defined(__SANITIZE_ADDRESS__)
#define LAWN_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LAWN_ADDRESS_SANITIZER
#endif
#endif
