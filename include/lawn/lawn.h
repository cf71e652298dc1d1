// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The main header of lawn: Logit Attenuating Weight Normalization for LibTorch.

#include <lawn/torch_version.h>  // before any header that an unsupported LibTorch does not compile

#include <lawn/clip_grad_norm.h>
#include <lawn/cuda_kernels.h>
#include <lawn/decorator.h>
#include <lawn/grad_scaler.h>
#include <lawn/module_view.h>
#include <lawn/optim/fused_adagrad.h>
#include <lawn/optim/fused_adam.h>
#include <lawn/optim/fused_adamw.h>
#include <lawn/optim/fused_sgd.h>
#include <lawn/optimizer.h>
#include <lawn/options.h>
#include <lawn/report.h>
#include <lawn/reset_state.h>
#include <lawn/schedule/lawn_schedule.h>
#include <lawn/schedule/warmup_decay.h>
#include <lawn/subnetwork/graph_walk.h>
#include <lawn/subnetwork/homogeneity.h>
#include <lawn/subnetwork/operators.h>
#include <lawn/subnetwork/print.h>
#include <lawn/subnetwork/selection.h>
#include <lawn/subnetwork/subnetwork.h>
#include <lawn/unique_parameters.h>
#include <lawn/version.h>
