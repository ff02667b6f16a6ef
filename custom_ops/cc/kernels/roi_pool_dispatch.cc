// Chooses, while running, for which level of instructions the RoI pooling kernels are taken.

#include <cstdlib>
#include <cstring>
#include <limits>

#include "roi_pool_levels.h"

namespace tf_fast_rcnn {
namespace {

CpuLevel HighestLevel() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return CpuLevel::kAvx512;
  }
  if (__builtin_cpu_supports("avx2")) return CpuLevel::kAvx2;
#endif
  return CpuLevel::kBaseline;
}

CpuLevel WantedLevel() {
  const char* name = std::getenv("TF_FAST_RCNN_CPU");
  if (name == nullptr) return CpuLevel::kAvx512;
  if (std::strcmp(name, "baseline") == 0) return CpuLevel::kBaseline;
  if (std::strcmp(name, "avx2") == 0) return CpuLevel::kAvx2;
  return CpuLevel::kAvx512;
}

}  // namespace

CpuLevel ChooseCpuLevel() { return std::min(HighestLevel(), WantedLevel()); }

template <typename T>
void RoiPool(CpuLevel level, const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois,
             int64_t first, int64_t last, bool stream, T* pooled, int32_t* argmax) {
  const DenormalsAreNumbers denormals_are_numbers;
  auto* roi_pool = &baseline::RoiPool<T>;
#ifdef __x86_64__
  if (level == CpuLevel::kAvx2) roi_pool = &avx2::RoiPool<T>;
  if (level == CpuLevel::kAvx512) roi_pool = &avx512::RoiPool<T>;
#else
  (void)level;
#endif
  roi_pool(shape, spatial_scale, features, rois, first, last, stream, pooled, argmax);
}

void AddGradientBlock(CpuLevel level, const GradientBlock<float>& block, float* sums) {
#ifdef __x86_64__
  // The places of an AVX-512 scatter are 32 bits.
  const bool fits = block.cells * block.channels <= std::numeric_limits<int32_t>::max();
  if (level == CpuLevel::kAvx512 && fits) return avx512::AddGradientBlock(block, sums);
#else
  (void)level;
#endif
  AddGradientBlock(block, sums);
}

#define TF_FAST_RCNN_INSTANTIATE(T)                                                                            \
  template void RoiPool<T>(CpuLevel, const RoiPoolShape&, float, const T*, const float*, int64_t, int64_t, bool, T*, \
                           int32_t*);

TF_FAST_RCNN_INSTANTIATE(float)
TF_FAST_RCNN_INSTANTIATE(double)
TF_FAST_RCNN_INSTANTIATE(Float16Bits)

#undef TF_FAST_RCNN_INSTANTIATE

}  // namespace tf_fast_rcnn
