// RoI max pooling as compiled for each level of instructions; see roi_pool_simd.h. Callers take RoiPool of roi_pool.h.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_LEVELS_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_LEVELS_H_

// All that the code of a level uses, read before the level is set.
#include <cstdint>
#include <type_traits>
#include <vector>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "roi_pool.h"

#define TF_FAST_RCNN_DECLARE_ROI_POOL(level)                                                                     \
  namespace level {                                                                                              \
  template <typename T>                                                                                          \
  void RoiPool(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois, int64_t first, \
               int64_t last, bool stream, T* pooled, int32_t* argmax);                                           \
  }

#define TF_FAST_RCNN_INSTANTIATE_ROI_POOL(T)                                                                    \
  template void RoiPool<T>(const RoiPoolShape&, float, const T*, const float*, int64_t, int64_t, bool, T*, int32_t*);

namespace tf_fast_rcnn {

TF_FAST_RCNN_DECLARE_ROI_POOL(baseline)
TF_FAST_RCNN_DECLARE_ROI_POOL(avx2)
TF_FAST_RCNN_DECLARE_ROI_POOL(avx512)

namespace avx512 {
// For maps whose cells * channels of a block are fewer than 2^31.
void AddGradientBlock(const GradientBlock<float>& block, float* sums);
}  // namespace avx512

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_LEVELS_H_
