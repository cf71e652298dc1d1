// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Pruning: masks by magnitude, and optimizers that keep pruned weights at zero.

#include <lawn/companions/pruning/magnitude_masks.h>
#include <lawn/companions/pruning/masked.h>
#include <lawn/companions/pruning/pruning_schedule.h>
#include <lawn/companions/pruning/snapshot.h>
#include <lawn/companions/pruning/weight_overlap.h>
