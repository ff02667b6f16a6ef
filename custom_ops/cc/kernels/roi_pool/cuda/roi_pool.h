// RoI max pooling and its gradient on a CUDA device. Depends neither on TensorFlow nor on CUDA's headers, so that any
// C++ compiler can compile the callers, and tests can run the kernels on the CPU.
//
// All pointers are to device memory with the alignment of their type. Pointers aligned to 16 bytes, and channels that
// fill whole 16-byte units, are fastest. Each function enqueues its work on `stream` and returns null, or the message
// of a CUDA error.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CUDA_ROI_POOL_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CUDA_ROI_POOL_H_

#include <cstdint>

#include "../geometry.h"

typedef struct CUstream_st* cudaStream_t;  // the same declaration as in CUDA's headers

namespace tf_fast_rcnn {
namespace cuda {

struct Half {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};

// 16-bit gradients are accumulated in float32, since hundreds of overlapping RoIs can add to one cell.
template <typename T>
struct SumOf {
  using Type = T;
};
template <>
struct SumOf<Half> {
  using Type = float;
};
template <>
struct SumOf<Bfloat16> {
  using Type = float;
};

// In all functions T is float, double, Half or Bfloat16.

// `argmax` may be null. If it is not, ties go to the first maximum in row-major order. Values equal those of the CPU
// kernels, except that without `argmax` the sign of a zero is unspecified if both 0 and -0 are maxima.
template <typename T>
const char* RoiPool(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois, T* pooled,
                    int32_t* argmax, cudaStream_t stream);

// The gradient by atomic additions, whose order varies between runs. Argmax values that are not cells of the map are
// ignored. `sums` is scratch memory with as many elements as `features_gradient`; if T is SumOf<T>::Type, it must be
// `features_gradient` itself.
template <typename T>
const char* RoiPoolGradient(const RoiPoolShape& shape, const T* pooled_gradient, const int32_t* argmax,
                            typename SumOf<T>::Type* sums, T* features_gradient, cudaStream_t stream);

// The gradient with a fixed order of additions, by RoI and then by bin: bitwise reproducible. Slower, but needs no
// scratch memory. For each RoI, a cell is looked up only in the bins that contain it, so an argmax outside its bin may
// or may not be counted.
template <typename T>
const char* DeterministicRoiPoolGradient(const RoiPoolShape& shape, float spatial_scale, const T* pooled_gradient,
                                         const int32_t* argmax, const float* rois, T* features_gradient,
                                         cudaStream_t stream);

// CUDA's numbering: 12050 is 12.5. DriverVersion is the latest version that the driver supports, or 0 without a driver.
int RuntimeVersion();
int DriverVersion();

}  // namespace cuda
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CUDA_ROI_POOL_H_
