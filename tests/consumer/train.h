// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Trains a small network past the switch and returns the largest relative change of a constrained
/// norm since then.
double largest_drift_of_a_norm();
