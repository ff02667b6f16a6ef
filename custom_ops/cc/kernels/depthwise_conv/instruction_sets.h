// Declares the kernel of each instruction set (see filter_gradient-inl.h). Callers use the function of
// filter_gradient.h.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_INSTRUCTION_SETS_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_INSTRUCTION_SETS_H_

// Everything filter_gradient-inl.h uses must be included here, before an instruction set is selected.
#include <cstdint>

#include "filter_gradient.h"

#define TF_FAST_RCNN_DECLARE_SUM_UNIT(instruction_set)                                            \
  namespace instruction_set {                                                                     \
  void SumUnit(const DepthwiseConvShape& shape, const WorkUnits::Unit& unit, const float* images, \
               const float* gradients, float* sums);                                              \
  }

namespace tf_fast_rcnn {

TF_FAST_RCNN_DECLARE_SUM_UNIT(baseline)
TF_FAST_RCNN_DECLARE_SUM_UNIT(avx2)
TF_FAST_RCNN_DECLARE_SUM_UNIT(avx512)

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_INSTRUCTION_SETS_H_
