// RoI max pooling and its gradient on plain arrays, on CPUs. Knows nothing of TensorFlow, so that it can be tested alone (under
// sanitizers) and stand beside a version for another device.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_H_

#include <algorithm>
#include <cstdint>

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "roi_geometry.h"

namespace tf_fast_rcnn {

// A value of either 16-bit float type. With 16 zero bits appended it is a float that is ordered as it is itself: a
// bfloat16 is equal to that float; a half differs in where its exponent ends, which sign-magnitude order does not see
// (but for NaN, which counts as a number above infinity).
struct Float16Bits {
  uint16_t bits;
};

// Instructions that kernels are compiled for. A higher level includes the lower ones.
enum class CpuLevel { kBaseline, kAvx2, kAvx512 };

// The highest level that this CPU runs, or the one that the environment variable TF_FAST_RCNN_CPU names (baseline,
// avx2, avx512) where that is lower.
CpuLevel ChooseCpuLevel();

// While one lives, this thread computes with denormal numbers, which TensorFlow's threads take for 0: to them all
// denormal features would be equal.
class DenormalsAreNumbers {
 public:
#ifdef __x86_64__
  DenormalsAreNumbers() : before_(_mm_getcsr()) { _mm_setcsr(before_ & ~(kFlushToZero | kDenormalsAreZero)); }
  ~DenormalsAreNumbers() { _mm_setcsr(before_); }
#else
  DenormalsAreNumbers() {}
#endif
  DenormalsAreNumbers(const DenormalsAreNumbers&) = delete;
  DenormalsAreNumbers& operator=(const DenormalsAreNumbers&) = delete;

#ifdef __x86_64__
 private:
  static constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  const unsigned before_;
#endif
};

// Pools RoIs [first, last), counted through the whole batch. T: float, double or Float16Bits. `argmax` may be null.
// Every level gives the same bits. `stream`: the outputs will not stay in the cache, and are written around it.
template <typename T>
void RoiPool(CpuLevel level, const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois,
             int64_t first, int64_t last, bool stream, T* pooled, int32_t* argmax);

// Channels whose sums lie together while gradients are added: a RoI's cells then stay in the first-level cache, which
// at the features' own distance of (often) 2^n bytes from cell to cell would drop them.
constexpr int64_t kGradientBlock = 32;

// Some neighbouring channels (kGradientBlock at most) of one RoI's gradient.
template <typename T>
struct GradientBlock {
  const T* pooled_gradient;
  const int32_t* argmax;
  int64_t bins, bin_stride, channels;
  uint32_t cells;
  int64_t ahead;  // values from here to those that are wanted next, or 0

  template <typename U>
  void Prefetch(const U* values) const {
    constexpr int64_t kPerCacheLine = 64 / sizeof(U);
    for (int64_t i = 0; ahead != 0 && i < channels; i += kPerCacheLine) __builtin_prefetch(values + ahead + i);
  }
};

// Adds one block to `sums` [cells, channels].
template <typename T, typename Sum>
void AddGradientBlock(const GradientBlock<T>& block, Sum* sums) {
  for (int64_t bin = 0; bin < block.bins; ++bin) {
    const int32_t* argmax = block.argmax + bin * block.bin_stride;
    const T* pooled_gradient = block.pooled_gradient + bin * block.bin_stride;
    block.Prefetch(argmax);
    block.Prefetch(pooled_gradient);
    for (int64_t c = 0; c < block.channels; ++c) {
      // As unsigned, kNoCell is beyond every cell, and so is whatever does not belong here.
      const uint32_t cell = static_cast<uint32_t>(argmax[c]);
      if (cell < block.cells) sums[cell * block.channels + c] += static_cast<Sum>(pooled_gradient[c]);
    }
  }
}

// The same with the best instructions of this level.
void AddGradientBlock(CpuLevel level, const GradientBlock<float>& block, float* sums);

template <typename T, typename Sum>
void AddGradientBlock(CpuLevel, const GradientBlock<T>& block, Sum* sums) {
  AddGradientBlock(block, sums);
}

// Adds the gradients of one image's RoIs at the cells of their maxima (equation 4), for `count` neighbouring channels:
// who calls this for different channels in parallel needs no atomics, and every sum has the same order of terms
// whatever the number of threads and the level. `pooled_gradient` and `argmax` point at the first of these channels in
// the image's first bin. `sums` holds cells * count values: [cells, channels] of each block of kGradientBlock channels
// in turn. T needs a conversion to Sum.
template <typename T, typename Sum>
void AddRoiPoolGradient(CpuLevel level, const RoiPoolShape& shape, const T* pooled_gradient, const int32_t* argmax,
                        int64_t count, Sum* sums) {
  const DenormalsAreNumbers denormals_are_numbers;
  const int64_t values_of_roi = shape.bins() * shape.channels;
  for (int64_t roi = 0; roi < shape.rois; ++roi) {
    for (int64_t c = 0; c < count; c += kGradientBlock) {
      const int64_t offset = roi * values_of_roi + c;
      const int64_t channels = std::min(kGradientBlock, count - c);
      const int64_t left = count - c - channels;
      const int64_t ahead = left >= channels ? channels : left == 0 && roi + 1 < shape.rois ? values_of_roi - c : 0;
      AddGradientBlock(level,
                       GradientBlock<T>{pooled_gradient + offset, argmax + offset, shape.bins(), shape.channels,
                                        channels, static_cast<uint32_t>(shape.cells()), ahead},
                       sums + c * shape.cells());
    }
  }
}

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_H_
