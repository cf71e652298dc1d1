// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Pruning against fine-tuning: masks by magnitude, and optimizers that keep them.

#include <lawn/companions/pruning/magnitude_masks.h>
#include <lawn/companions/pruning/masked.h>
#include <lawn/companions/pruning/pruning_schedule.h>
#include <lawn/companions/pruning/snapshot.h>
#include <lawn/companions/pruning/weight_overlap.h>
