// RoI max pooling for x86-64 CPUs with AVX-512.

#include "roi_pool_levels.h"

#ifdef __x86_64__

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif
namespace tf_fast_rcnn {
namespace avx512 {

constexpr int kVectorBytes = 64;

#include "roi_pool_simd.h"

TF_FAST_RCNN_INSTANTIATE_ROI_POOL(float)
TF_FAST_RCNN_INSTANTIATE_ROI_POOL(double)
TF_FAST_RCNN_INSTANTIATE_ROI_POOL(Float16Bits)

// Adds sixteen channels at a time: they are different values of the gradient, so no two additions meet.
void AddGradientBlock(const GradientBlock<float>& block, float* sums) {
  constexpr int64_t kLanes = 16;
  const __m512i stride = _mm512_set1_epi32(static_cast<int>(block.channels));
  const __m512i cells = _mm512_set1_epi32(static_cast<int>(block.cells));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t bin = 0; bin < block.bins; ++bin) {
    const int32_t* argmax = block.argmax + bin * block.bin_stride;
    const float* pooled_gradient = block.pooled_gradient + bin * block.bin_stride;
    block.Prefetch(argmax);
    block.Prefetch(pooled_gradient);
    for (int64_t c = 0; c < block.channels; c += kLanes) {
      const __mmask16 there = block.channels - c < kLanes ? (1u << (block.channels - c)) - 1 : 0xffff;
      const __m512i cell = _mm512_maskz_loadu_epi32(there, argmax + c);
      // As unsigned, kNoCell is beyond every cell.
      const __mmask16 on_map = _mm512_mask_cmplt_epu32_mask(there, cell, cells);
      const __m512i place = _mm512_add_epi32(_mm512_mullo_epi32(cell, stride), lanes);
      const __m512 sum = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), on_map, place, sums + c, sizeof(float));
      const __m512 term = _mm512_maskz_loadu_ps(there, pooled_gradient + c);
      _mm512_mask_i32scatter_ps(sums + c, on_map, place, _mm512_add_ps(sum, term), sizeof(float));
    }
  }
}

}  // namespace avx512
}  // namespace tf_fast_rcnn

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif  // __x86_64__
