// SPDX-License-Identifier: Apache-2.0
#pragma once

/// EMAN: a teacher that is an exponential moving average of a student, its normalisation included.

#include <lawn/companions/eman/ema_teacher.h>
