// Code that does not depend on the instruction set: calling the kernels of the selected one, and sorting RoIs by
// location.

#include <algorithm>
#include <cmath>
#include <utility>

#include "instruction_sets.h"

namespace tf_fast_rcnn {
template <typename T>
void RoiPool(InstructionSet instruction_set, const RoiPoolShape& shape, float spatial_scale, const T* features,
             const float* rois, int64_t first, int64_t last, bool stream, T* pooled, int32_t* argmax) {
  const ScopedDenormals scoped_denormals;
  auto* roi_pool = &baseline::RoiPool<T>;
#ifdef __x86_64__
  if (instruction_set == InstructionSet::kAvx2) roi_pool = &avx2::RoiPool<T>;
  if (instruction_set == InstructionSet::kAvx512) roi_pool = &avx512::RoiPool<T>;
#else
  (void)instruction_set;
#endif
  roi_pool(shape, spatial_scale, features, rois, first, last, stream, pooled, argmax);
}

template <typename Sum>
void AddGradientBlock(InstructionSet instruction_set, const GradientBlock<Sum>& block, Prefetcher* gradient,
                      Prefetcher* argmax, Sum* sums) {
#ifdef __x86_64__
  if (instruction_set == InstructionSet::kAvx2) return avx2::AddGradientBlock(block, gradient, argmax, sums);
  if (instruction_set == InstructionSet::kAvx512) return avx512::AddGradientBlock(block, gradient, argmax, sums);
#else
  (void)instruction_set;
#endif
  baseline::AddGradientBlock(block, gradient, argmax, sums);
}

#define TF_FAST_RCNN_INSTANTIATE(T)                                                                                    \
  template void RoiPool<T>(InstructionSet, const RoiPoolShape&, float, const T*, const float*, int64_t, int64_t, bool, \
                           T*, int32_t*);

TF_FAST_RCNN_INSTANTIATE(float)
TF_FAST_RCNN_INSTANTIATE(double)
TF_FAST_RCNN_INSTANTIATE(Float16Bits)

#undef TF_FAST_RCNN_INSTANTIATE

template void AddGradientBlock<float>(InstructionSet, const GradientBlock<float>&, Prefetcher*, Prefetcher*, float*);
template void AddGradientBlock<double>(InstructionSet, const GradientBlock<double>&, Prefetcher*, Prefetcher*, double*);

namespace {

uint32_t CenterCell(float low, float high, float spatial_scale) {
  // Clamped first, since corners may be infinite.
  const auto cell = [&](float corner) { return std::clamp(corner * spatial_scale, 0.0f, kMaxCoordinate); };
  return static_cast<uint32_t>((cell(low) + cell(high)) / 2);
}

// Interleaves the bits of the coordinates (Z-order curve).
uint32_t MortonCode(uint32_t y, uint32_t x) {
  uint32_t code = 0;
  for (int bit = 0; bit < 16; ++bit) code |= (x >> bit & 1) << 2 * bit | (y >> bit & 1) << (2 * bit + 1);
  return code;
}

}  // namespace

std::vector<int64_t> SortByLocation(const RoiPoolShape& shape, float spatial_scale, const float* rois) {
  std::vector<std::pair<uint32_t, int64_t>> places;
  for (int64_t roi = 0; roi < shape.rois; ++roi) {
    const float* corners = rois + roi * 4;  // y1, x1, y2, x2
    if (std::any_of(corners, corners + 4, [](float corner) { return std::isnan(corner); })) continue;
    const uint32_t y = CenterCell(corners[0], corners[2], spatial_scale);
    const uint32_t x = CenterCell(corners[1], corners[3], spatial_scale);
    places.emplace_back(MortonCode(y, x), roi);
  }
  std::sort(places.begin(), places.end());
  std::vector<int64_t> order;
  for (const auto& [place, roi] : places) order.push_back(roi);
  return order;
}

}  // namespace tf_fast_rcnn
