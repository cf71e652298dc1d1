// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A-FAN: trains on adversarial perturbations of features besides clean ones.

#include <lawn/companions/afan/afan_loss.h>
