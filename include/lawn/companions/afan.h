// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A-FAN: adversarial perturbations of features, mixed into a loss.

#include <lawn/companions/afan/afan_loss.h>
