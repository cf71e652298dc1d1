// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace lawn::detail::subnetwork {

/// Operators of one kind. Names are those of LibTorch's autograd nodes without "Backward<n>"; where
/// the overloads of an operator differ, the full node name is listed beside it and wins.
struct OperatorGroup {
  std::string_view names;  ///< separated by single spaces
  std::string_view edges;  ///< a letter per edge, see `parse_edges`; the last one repeats
  std::string_view reason{};
  bool layout = false;
};

// An operator whose constant is not visible in the graph is listed as homogeneous where its usual
// constant is (padding with zeros, masking with zero or infinity, filling a buffer of zeros), and
// as a boundary where it is not (clamp, threshold, pow). `check_homogeneity` measures what is
// assumed.
inline constexpr OperatorGroup kOperatorGroups[] = {
    // Products with a weight.
    {"Mm Bmm Mv Dot Vdot GroupedMm SparseSparseMatmul Matmul", "lr"},
    {"Addmm Addmv Addbmm Baddbmm SparseAddmm", "tlr"},
    {"Addr Addcmul", "tff"},
    {"Linear MkldnnLinear", "ffb"},
    {"Convolution ConvolutionOverrideable MkldnnConvolution CudnnConvolution MiopenConvolution "
     "MiopenDepthwiseConvolution MpsConvolution ConvDepthwise2D ConvDepthwise3D ConvTbc "
     "NnpackSpatialConvolution SlowConv2D SlowConv3D SlowConvDilated2D SlowConvDilated3D "
     "SlowConvTranspose2D SlowConvTranspose3D CudnnConvolutionTranspose "
     "MiopenConvolutionTranspose MpsConvolutionTranspose",
     "ffb"},
    {"Embedding EmbeddingBag", "ef"},
    {"Index UnsafeIndex IndexSelect Gather Take MaskedSelect", "e"},
    {"Mul Trilinear LinalgCross", "f"},

    // Element by element, and reductions.
    {"Relu LeakyRelu RreluWithNoise RreluWithNoiseFunctional Abs Neg NanToNum Conj ConjPhysical",
     "f"},
    {"NativeDropout FusedDropout", "f"},
    {"Sum Nansum Mean Amax Amin Max Min Median Nanmedian Kthvalue Mode Sort Topk Cummax Cummin "
     "Cumsum Trace Aminmax",
     "f"},
    {"MaxPool2D MaxPool2DWithIndices MaxPool3DWithIndices MkldnnMaxPool2D MkldnnMaxPool3D "
     "FractionalMaxPool2D FractionalMaxPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D AvgPool2D "
     "AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D MkldnnAdaptiveAvgPool2D MaxUnpool2D "
     "MaxUnpool3D",
     "f"},
    {"UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D "
     "UpsampleNearestExact2D UpsampleNearestExact3D UpsampleLinear1D UpsampleBilinear2D "
     "UpsampleBilinear2DAa UpsampleBicubic2D UpsampleBicubic2DAa UpsampleTrilinear3D",
     "f"},
    {"ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D "
     "ReplicationPad3D ConstantPadNd MaskedFillBackward0 Tril Triu Im2Col Col2Im FftC2C "
     "FftC2R FftR2C Deg2Rad Rad2Deg",
     "f"},

    // Sums, and what joins or compares branches.
    {"Add Sub Rsub", "tt"},
    {"ScatterAdd IndexAdd", "bt"},
    {"Lerp", "tt.", "the weight of an interpolation, in which it is not homogeneous"},
    {"Cat Stack BlockDiag", "j"},
    {"Maximum Minimum Fmax Fmin Where MaskedFill", "jj"},
    {"MaskedScatter IndexPut IndexPutImpl UnsafeIndexPut IndexCopy IndexFill Scatter SelectScatter "
     "SliceScatter DiagonalScatter AsStridedScatter",
     "bj"},
    {"Copy", "uf"},
    {"Zero", "u"},

    // Layout.
    {"View UnsafeView ReshapeAlias ReshapeCopy MkldnnReshape Reshape Alias Clone LazyClone ToCopy "
     "ToDense ToMkldnn Contiguous Lift LiftFresh PinMemory AsStrided T Transpose Permute Expand "
     "Squeeze Unsqueeze Slice Select Narrow Split SplitWithSizes UnsafeSplit UnsafeSplitWithSizes "
     "Chunk Unbind Unfold Diagonal DiagEmbed Flip Roll Rot90 Repeat NegView ViewAsReal "
     "ViewAsComplex PixelShuffle PixelUnshuffle ChannelShuffle PackPaddedSequence",
     "f", "", true},

    // Homogeneous in some inputs only.
    {"Div", "f.", "division by something that depends on weights"},
    {"Addcdiv", "tf.", "division by something that depends on weights"},
    {"PreluKernel", "f.", "the slope of a PReLU, in which it is not homogeneous"},
    {"GridSampler2D GridSampler3D CudnnGridSampler GridSampler2DCpuFallback", "f.",
     "sampling positions do not scale"},
    {"ScaledDotProductFlashAttention ScaledDotProductFlashAttentionForCpu "
     "ScaledDotProductEfficientAttention ScaledDotProductCudnnAttention "
     "ScaledDotProductFusedAttentionOverrideable FlashAttention EfficientAttention "
     "CudnnAttention",
     "..f.", "softmax of queries and keys: attention weights do not scale"},

    // Boundaries.
    {"NativeBatchNorm NativeBatchNormLegit NativeBatchNormLegitNoTraining BatchNormWithUpdate "
     "BatchNormNoUpdate CudnnBatchNorm MiopenBatchNorm",
     ".", "batch norm does not scale with its input"},
    {"NativeLayerNorm", ".", "layer norm does not scale with its input"},
    {"NativeGroupNorm", ".", "group norm does not scale with its input"},
    {"FusedRmsNorm", ".", "RMS norm does not scale with its input"},
    {"WeightNormInterface", ".", "weight norm does not scale with the direction"},
    {"Norm LinalgVectorNorm Std StdMean Var VarMean", ".",
     "a norm or a variance: its degree is not visible in the graph"},
    {"Softmax SafeSoftmax MaskedSoftmax SparseSoftmax", ".",
     "softmax does not scale with its input"},
    {"LogSoftmax SparseLogSoftmax Logsumexp Logcumsumexp Logaddexp Logaddexp2", ".",
     "logarithm of a sum of exponentials"},
    {"Sigmoid LogSigmoid Tanh Hardtanh Hardsigmoid Hardswish Gelu Silu Mish Glu Elu Celu Softplus "
     "Softshrink Hardshrink",
     ".", "an activation that is not positively homogeneous"},
    {"Clamp ClampMin ClampMax Threshold Renorm", ".", "a bound that does not scale"},
    {"Exp Exp2 Expm1 Log Log2 Log10 Log1P Erf Erfc Erfinv Sin Cos Tan Asin Acos Atan Sinh Cosh "
     "Asinh Acosh Atanh Atan2 Logit Xlogy Lgamma Digamma Sinc",
     ".", "a function that is not homogeneous"},
    {"Pow Sqrt Rsqrt Reciprocal Prod Cumprod", ".", "a power: its degree is not one"},
    {"DivBackward2 DivBackward3 Round Floor Ceil Trunc Frac Sign Sgn Fmod Remainder", ".",
     "rounding and sign do not scale with their input"},
    {"MkldnnRnnLayer CudnnRnn MiopenRnn LstmMps ThnnFusedLstmCell ThnnFusedGruCell", ".",
     "fused recurrent cell with sigmoid and tanh gates"},
    {"DifferentiableGraph", ".",
     "TorchScript's executor hides operators here, as it does from the second forward on: call "
     "final_homogeneous_subnetwork(module, {inputs}) of lawn/subnetwork/torchscript.h, or compute "
     "the logits of module.clone(/*inplace=*/true) under "
     "torch::jit::GraphOptimizerEnabledGuard(false)"},
    {"NllLoss NllLoss2D MseLoss BinaryCrossEntropy BinaryCrossEntropyWithLogits SmoothL1Loss "
     "HuberLoss SoftMarginLoss MultiMarginLoss MultilabelMarginLoss CtcLoss CudnnCtcLoss "
     "MiopenCtcLoss",
     ".", "a loss"},
};

}  // namespace lawn::detail::subnetwork
