// SPDX-License-Identifier: Apache-2.0
#pragma once

/// MimicNorm: weight centring and one last batch normalisation replace all other normalisations.

#include <lawn/companions/mimicnorm/centered.h>
#include <lawn/companions/mimicnorm/last_batch_norm.h>
#include <lawn/companions/mimicnorm/mimic_norm.h>
#include <lawn/companions/mimicnorm/residual_scale.h>
