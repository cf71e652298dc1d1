// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/distributed/process_group.h>

/// A step on every rank; the sum of the weights after it.
double train(lawn::ProcessGroup& ranks);
