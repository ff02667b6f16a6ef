// RoI max pooling and its gradient as compiled for each level of instructions; see roi_pool_simd.h. Callers take the
// functions of roi_pool.h.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_INSTRUCTION_SETS_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_INSTRUCTION_SETS_H_

// All that the code of a level uses, read before the level is set.
#include <cstdint>
#include <type_traits>
#include <vector>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "roi_pool.h"

#define TF_FAST_RCNN_DECLARE_ROI_POOL(level)                                                                        \
  namespace level {                                                                                                 \
  template <typename T>                                                                                             \
  void RoiPool(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois, int64_t first, \
               int64_t last, bool stream, T* pooled, int32_t* argmax);                                              \
  template <typename Sum>                                                                                           \
  void AddGradientBlock(const GradientBlock<Sum>& block, Ahead* gradient, Ahead* argmax, Sum* sums);                \
  }

#define TF_FAST_RCNN_INSTANTIATE_LEVEL()                                                      \
  TF_FAST_RCNN_INSTANTIATE_ROI_POOL(float)                                                    \
  TF_FAST_RCNN_INSTANTIATE_ROI_POOL(double)                                                   \
  TF_FAST_RCNN_INSTANTIATE_ROI_POOL(Float16Bits)                                              \
  template void AddGradientBlock<float>(const GradientBlock<float>&, Ahead*, Ahead*, float*); \
  template void AddGradientBlock<double>(const GradientBlock<double>&, Ahead*, Ahead*, double*);

#define TF_FAST_RCNN_INSTANTIATE_ROI_POOL(T) \
  template void RoiPool<T>(const RoiPoolShape&, float, const T*, const float*, int64_t, int64_t, bool, T*, int32_t*);

namespace tf_fast_rcnn {

TF_FAST_RCNN_DECLARE_ROI_POOL(baseline)
TF_FAST_RCNN_DECLARE_ROI_POOL(avx2)
TF_FAST_RCNN_DECLARE_ROI_POOL(avx512)

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_INSTRUCTION_SETS_H_
