// The error that TensorFlow kernels report for inputs that do not fit.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_INVALID_ARGUMENT_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_INVALID_ARGUMENT_H_

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tf_fast_rcnn {

template <typename... Parts>
absl::Status InvalidArgument(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_INVALID_ARGUMENT_H_
