// The gradient of a depthwise convolution with respect to its kernel, on plain arrays. Does not depend on TensorFlow,
// so that it can be tested alone under sanitizers.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_FILTER_GRADIENT_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_FILTER_GRADIENT_H_

#include <cstdint>

#include "../instruction_set.h"
#include "shape.h"

namespace tf_fast_rcnn {

// How the work is divided into units that can run in parallel: the output rows of all images into parts, and each part
// into groups of channels. It depends on the shape alone, and so does the order in which terms are added: the result is
// the same for any number of threads.
class WorkUnits {
 public:
  explicit WorkUnits(const DepthwiseConvShape& shape);

  int64_t row_parts() const { return row_parts_; }
  int64_t count() const { return row_parts_ * channel_groups_; }

  struct Unit {
    int64_t row_part, first_row, end_row, first_channel, end_channel;
  };
  Unit operator[](int64_t index) const;

 private:
  int64_t rows_, channels_, rows_of_part_, row_parts_, channels_of_group_, channel_groups_;
};

// Computes the sums of one unit and stores them in its channels of `sums` [kernel rows, kernel columns, channels]. The
// gradient of the kernel is the sum over all row parts. The result is bitwise identical for every instruction set.
void SumUnit(InstructionSet instruction_set, const DepthwiseConvShape& shape, const WorkUnits::Unit& unit,
             const float* images, const float* gradients, float* sums);

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_DEPTHWISE_CONV_FILTER_GRADIENT_H_
