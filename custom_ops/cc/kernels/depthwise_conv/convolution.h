// A depthwise convolution with bias and activation, and the gradient with respect to its input, on plain arrays. Does
// not depend on TensorFlow, so that it can be tested alone under sanitizers.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_CONVOLUTION_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_CONVOLUTION_H_

#include <cstdint>
#include <vector>

#include "../instruction_set.h"
#include "shape.h"

namespace tf_fast_rcnn {

// Some of the results along one spatial axis: those at first + q * step, for q below `count`. Result q is the sum over
// taps t of the kernel at first_kernel + t * kernel_step times the source at q * stride + offset + t * offset_step, if
// that is inside.
struct AxisPart {
  int64_t first, step, count;
  int64_t taps, first_kernel, kernel_step;
  int64_t source, stride, offset, offset_step;

  int64_t At(int64_t q, int64_t tap) const { return q * stride + offset + tap * offset_step; }
  bool Inside(int64_t q, int64_t tap) const { return At(q, tap) >= 0 && At(q, tap) < source; }
};

// Output o of a convolution adds the input at o * stride - padding + k for tap k: one part.
std::vector<AxisPart> OutputParts(const ConvAxis& axis);

// The gradient of input i adds the gradients of the outputs (i + padding - k) / stride for all taps k for which this is
// a whole number. They are the same taps for every stride-th input: one part for each remainder.
std::vector<AxisPart> InputParts(const ConvAxis& axis);

// A sum of products: of images [images, source rows, source columns, channels] and a kernel [kernel rows, kernel
// columns, channels], to results [images, result rows, result columns, channels].
struct DepthwiseSums {
  int64_t channels, kernel_columns;
  int64_t source_rows, source_columns, result_rows, result_columns;
  std::vector<AxisPart> rows, columns;
  const float *source, *kernel;
  const float* bias;      // [channels], or null for none
  float lowest, highest;  // results outside are replaced by these
  float* results;
};

// Computes rows [first, end) of the results, numbered across all images. A NaN stays a NaN. Instruction sets with fused
// multiplication and addition round less often than others.
void ComputeRows(InstructionSet instruction_set, const DepthwiseSums& sums, int64_t first, int64_t end);

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_CONVOLUTION_H_
