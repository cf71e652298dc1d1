// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Weight unification: ADMM onto pruned and unified blocks of weights.

#include <lawn/companions/unification/admm.h>
