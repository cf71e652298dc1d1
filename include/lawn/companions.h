// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The companions of LAWN, from the same line of research. lawn.h does not include them, which
/// keeps its compile time short: they need more of LibTorch. Each can be included alone.

#include <lawn/companions/afan.h>
#include <lawn/companions/eman.h>
#include <lawn/companions/mimicnorm.h>
#include <lawn/companions/pruning.h>
#include <lawn/companions/unification.h>
