// RoI max pooling and its gradient on a CUDA device. Knows nothing of TensorFlow, and needs no CUDA header: a program
// for any C++ compiler may call it, and so may a test that runs the kernels on the CPU.
//
// All pointers are to device memory, of any alignment that their type allows; 16 bytes, and channels in whole 16 bytes,
// make it fast. Each function queues its work on `stream` and returns null, or the message of the CUDA error.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CUDA_ROI_POOL_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CUDA_ROI_POOL_H_

#include <cstdint>

#include "../geometry.h"

typedef struct CUstream_st* cudaStream_t;  // as CUDA's headers have it

namespace tf_fast_rcnn {
namespace cuda {

struct Half {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};

// Gradients of 16 bits are summed in 32: hundreds of overlapping RoIs meet in one cell.
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

// In all of these T is float, double, Half or Bfloat16.

// `argmax` may be null; with it, the first in row-major order among equal maxima is taken. Values are those of the
// CPU's kernels, but for the sign of a zero where both zeros are maxima.
template <typename T>
const char* RoiPool(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois, T* pooled,
                    int32_t* argmax, cudaStream_t stream);

// The gradient by atomic additions, whose order changes from run to run. An argmax that is no cell of the map is passed
// over. `sums` has the size of `features_gradient`, and is the same array where the types are the same.
template <typename T>
const char* RoiPoolGradient(const RoiPoolShape& shape, const T* pooled_gradient, const int32_t* argmax,
                            typename SumOf<T>::Type* sums, T* features_gradient, cudaStream_t stream);

// The gradient with the terms of every sum in one order, that of the RoIs and of their bins: always the same bits.
// Slower, and without further memory. Only the RoI's bins that hold a cell are searched for it, so an argmax outside
// its bin may or may not count.
template <typename T>
const char* RoiPoolGradientInOrder(const RoiPoolShape& shape, float spatial_scale, const T* pooled_gradient,
                                   const int32_t* argmax, const float* rois, T* features_gradient, cudaStream_t stream);

// As CUDA numbers them: 12050 is 12.5. The driver's is the latest version that it supports, 0 where there is none.
int RuntimeVersion();
int DriverVersion();

}  // namespace cuda
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CUDA_ROI_POOL_H_
