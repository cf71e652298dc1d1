// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The companions of LAWN, from the same line of research: MimicNorm, A-FAN, EMAN, pruning against
/// fine-tuning, weight unification. Apart from lawn.h for the sake of compile times: they need more
/// of LibTorch. Each header can be had alone.

#include <lawn/companions/admm.h>
#include <lawn/companions/afan_loss.h>
#include <lawn/companions/centered.h>
#include <lawn/companions/ema_teacher.h>
#include <lawn/companions/last_batch_norm.h>
#include <lawn/companions/magnitude_masks.h>
#include <lawn/companions/masked.h>
#include <lawn/companions/mimic_norm.h>
#include <lawn/companions/pruning_schedule.h>
#include <lawn/companions/residual_scale.h>
#include <lawn/companions/snapshot.h>
#include <lawn/companions/weight_overlap.h>
