// The shape of a depthwise convolution, for all kernels of this folder.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_SHAPE_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_SHAPE_H_

#include <algorithm>
#include <cstdint>

namespace tf_fast_rcnn {

// One spatial axis of a convolution. Output o, tap k reads the input at o * stride + k - padding, if that is inside.
struct ConvAxis {
  int64_t input, output, kernel, stride, padding;

  // The most outputs whose windows all touch the input.
  int64_t MaxOutput() const { return input == 0 ? 0 : (input - 1 + padding) / stride + 1; }

  // The outputs [FirstOutput, EndOutput) whose tap k is inside; none if the first is not below the end.
  int64_t FirstOutput(int64_t k) const { return k >= padding ? 0 : (padding - k + stride - 1) / stride; }
  int64_t EndOutput(int64_t k) const {
    const int64_t last = input - 1 + padding - k;
    return last < 0 ? 0 : std::min(output, last / stride + 1);
  }
};

// Images are [images, rows.input, columns.input, channels], gradients [images, rows.output, columns.output, channels].
struct DepthwiseConvShape {
  int64_t images;
  ConvAxis rows, columns;
  int64_t channels;

  int64_t taps() const { return rows.kernel * columns.kernel; }
};

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_SHAPE_H_
