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

// Sums of products of a source [images, source rows, source columns, channels] and a kernel [kernel rows, kernel
// columns, channels]: results [images, result rows, result columns, channels].
struct DepthwiseSums {
  int64_t images, channels, kernel_columns;
  int64_t source_rows, source_columns, result_rows, result_columns;
  std::vector<AxisPart> rows, columns;
  const float *source, *kernel;
  const float* bias;      // [channels], or null for none
  float lowest, highest;  // results outside are replaced by these
  float* results;

  int64_t row_count() const { return images * result_rows; }
  // Most results add this many products.
  int64_t taps() const { return rows[0].taps * columns[0].taps; }
};

// The output of a convolution of `images` [N, H, W, C], with a bias [C], or null for none, and limits for the results.
DepthwiseSums OutputSums(const DepthwiseConvShape& shape, const float* images, const float* kernel, const float* bias,
                         float lowest, float highest, float* output);

// The gradient with respect to the images, from that with respect to the output [N, OH, OW, C].
DepthwiseSums ImagesGradientSums(const DepthwiseConvShape& shape, const float* gradients, const float* kernel,
                                 float* images_gradient);

// Computes rows [first, end) of the results, numbered across all images. A NaN stays a NaN. Instruction sets with fused
// multiplication and addition round less often than others.
void ComputeRows(InstructionSet instruction_set, const DepthwiseSums& sums, int64_t first, int64_t end);

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_CONVOLUTION_H_
