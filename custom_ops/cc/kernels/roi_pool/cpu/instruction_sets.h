// Declares the kernels of each instruction set (see forward-inl.h). Callers use the functions of roi_pool.h, which
// select one at run time.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_INSTRUCTION_SETS_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_INSTRUCTION_SETS_H_

// Everything the -inl.h files use must be included here, before an instruction set is selected.
#include <cstdint>
#include <type_traits>
#include <vector>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "roi_pool.h"

#define TF_FAST_RCNN_DECLARE_ROI_POOL(instruction_set)                                                              \
  namespace instruction_set {                                                                                       \
  template <typename T>                                                                                             \
  void RoiPool(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois, int64_t first, \
               int64_t last, bool stream, T* pooled, int32_t* argmax);                                              \
  template <typename Sum>                                                                                           \
  void AddGradientBlock(const GradientBlock<Sum>& block, Prefetcher* gradient, Prefetcher* argmax, Sum* sums);      \
  }

#define TF_FAST_RCNN_INSTANTIATE_ALL()                                                                  \
  TF_FAST_RCNN_INSTANTIATE_ROI_POOL(float)                                                              \
  TF_FAST_RCNN_INSTANTIATE_ROI_POOL(double)                                                             \
  TF_FAST_RCNN_INSTANTIATE_ROI_POOL(Float16Bits)                                                        \
  template void AddGradientBlock<float>(const GradientBlock<float>&, Prefetcher*, Prefetcher*, float*); \
  template void AddGradientBlock<double>(const GradientBlock<double>&, Prefetcher*, Prefetcher*, double*);

#define TF_FAST_RCNN_INSTANTIATE_ROI_POOL(T) \
  template void RoiPool<T>(const RoiPoolShape&, float, const T*, const float*, int64_t, int64_t, bool, T*, int32_t*);

namespace tf_fast_rcnn {

TF_FAST_RCNN_DECLARE_ROI_POOL(baseline)
TF_FAST_RCNN_DECLARE_ROI_POOL(avx2)
TF_FAST_RCNN_DECLARE_ROI_POOL(avx512)

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_INSTRUCTION_SETS_H_
