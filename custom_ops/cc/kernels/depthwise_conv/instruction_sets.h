// Declares the kernels of each instruction set (see filter_gradient-inl.h and convolution-inl.h). Callers use the
// functions of filter_gradient.h and convolution.h.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_INSTRUCTION_SETS_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_INSTRUCTION_SETS_H_

// Everything these files use must be included here, before an instruction set is selected.
#include <algorithm>
#include <cstdint>

#include "convolution.h"
#include "filter_gradient.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define TF_FAST_RCNN_DECLARE_DEPTHWISE_CONV(instruction_set)                                      \
  namespace instruction_set {                                                                     \
  void SumUnit(const DepthwiseConvShape& shape, const WorkUnits::Unit& unit, const float* images, \
               const float* gradients, float* sums);                                              \
  void ComputeRows(const DepthwiseSums& sums, int64_t first, int64_t end);                        \
  }

namespace tf_fast_rcnn {

TF_FAST_RCNN_DECLARE_DEPTHWISE_CONV(baseline)
TF_FAST_RCNN_DECLARE_DEPTHWISE_CONV(avx2)
TF_FAST_RCNN_DECLARE_DEPTHWISE_CONV(avx512)

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_INSTRUCTION_SETS_H_
