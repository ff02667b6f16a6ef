// What does not depend on the level of instructions: which level's kernels are taken, and the order of RoIs.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "instruction_sets.h"

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

template <typename Sum>
void AddGradientBlock(CpuLevel level, const GradientBlock<Sum>& block, Ahead* gradient, Ahead* argmax, Sum* sums) {
#ifdef __x86_64__
  if (level == CpuLevel::kAvx2) return avx2::AddGradientBlock(block, gradient, argmax, sums);
  if (level == CpuLevel::kAvx512) return avx512::AddGradientBlock(block, gradient, argmax, sums);
#else
  (void)level;
#endif
  baseline::AddGradientBlock(block, gradient, argmax, sums);
}

#define TF_FAST_RCNN_INSTANTIATE(T)                                                                                  \
  template void RoiPool<T>(CpuLevel, const RoiPoolShape&, float, const T*, const float*, int64_t, int64_t, bool, T*, \
                           int32_t*);

TF_FAST_RCNN_INSTANTIATE(float)
TF_FAST_RCNN_INSTANTIATE(double)
TF_FAST_RCNN_INSTANTIATE(Float16Bits)

#undef TF_FAST_RCNN_INSTANTIATE

template void AddGradientBlock<float>(CpuLevel, const GradientBlock<float>&, Ahead*, Ahead*, float*);
template void AddGradientBlock<double>(CpuLevel, const GradientBlock<double>&, Ahead*, Ahead*, double*);

namespace {

uint32_t MiddleCell(float low, float high, float spatial_scale) {
  // Corners may be infinite, their mean must be a number.
  const auto cell = [&](float corner) { return std::clamp(corner * spatial_scale, 0.0f, kMaxCells); };
  return static_cast<uint32_t>((cell(low) + cell(high)) / 2);
}

// The Morton code of a place: its coordinates' bits in turn.
uint32_t PlaceInOrder(uint32_t y, uint32_t x) {
  uint32_t code = 0;
  for (int bit = 0; bit < 16; ++bit) code |= (x >> bit & 1) << 2 * bit | (y >> bit & 1) << (2 * bit + 1);
  return code;
}

}  // namespace

std::vector<int64_t> OrderByPlace(const RoiPoolShape& shape, float spatial_scale, const float* rois) {
  std::vector<std::pair<uint32_t, int64_t>> places;
  for (int64_t roi = 0; roi < shape.rois; ++roi) {
    const float* corners = rois + roi * 4;  // y1, x1, y2, x2
    if (std::any_of(corners, corners + 4, [](float corner) { return std::isnan(corner); })) continue;
    const uint32_t y = MiddleCell(corners[0], corners[2], spatial_scale);
    const uint32_t x = MiddleCell(corners[1], corners[3], spatial_scale);
    places.emplace_back(PlaceInOrder(y, x), roi);
  }
  std::sort(places.begin(), places.end());
  std::vector<int64_t> order;
  for (const auto& [place, roi] : places) order.push_back(roi);
  return order;
}

}  // namespace tf_fast_rcnn
