// RoI max pooling and its gradient on plain arrays, on CPUs. Knows nothing of TensorFlow, so that it can be tested
// alone (under sanitizers) and stand beside a version for another device.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_ROI_POOL_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_ROI_POOL_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "../geometry.h"

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

// Brings some neighbouring channels of all bins of a RoI to the second-level cache, a few bytes at a time, in the order
// in which they lie in memory.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const void* first, int64_t bytes_of_bin, int64_t bytes_from_bin_to_bin)
      : next_(static_cast<const char*>(first)),
        end_of_bin_(next_ + bytes_of_bin),
        bytes_of_bin_(bytes_of_bin),
        step_(bytes_from_bin_to_bin) {}

  void Bring(int64_t bytes) {
    constexpr int64_t kCacheLine = 64;
    if (next_ == nullptr) return;
    for (int64_t i = 0; i < bytes; i += kCacheLine) __builtin_prefetch(next_ + i, 0, 2);
    next_ += bytes;
    if (next_ < end_of_bin_) return;
    end_of_bin_ += step_;
    next_ = end_of_bin_ - bytes_of_bin_;
  }

 private:
  const char* next_ = nullptr;
  const char* end_of_bin_ = nullptr;
  int64_t bytes_of_bin_ = 0, step_ = 0;
};

// At most kGradientBlock neighbouring channels of one RoI's gradient. Sum: float or double.
template <typename Sum>
struct GradientBlock {
  const Sum* gradient;
  const int32_t* argmax;
  int64_t gradient_stride, argmax_stride;  // values from a bin to the next
  int64_t channels;
  const Span* rows;  // of every row of bins
  const Span* columns;
  int64_t output_height, output_width;
  int64_t map_width, map_cells;
  int64_t gradient_bytes;  // of a value as it is stored, which the next RoI's are brought by
};

// Adds one block to `sums` [cells, channels], with the instructions of a level. Every level gives the same bits.
template <typename Sum>
void AddGradientBlock(CpuLevel level, const GradientBlock<Sum>& block, Ahead* gradient, Ahead* argmax, Sum* sums);

// One image's RoIs, those without a NaN, in an order in which neighbours lie near each other on the map: what one RoI
// adds to is then often still in the cache for the next.
std::vector<int64_t> OrderByPlace(const RoiPoolShape& shape, float spatial_scale, const float* rois);

// Adds the gradients of one image's RoIs at the cells of their maxima (equation 4), for `count` neighbouring channels:
// who calls this for different channels in parallel needs no atomics, and every sum has the same order of terms
// whatever the number of threads and the level.
//
// `pooled_gradient` and `argmax` point at the first of these channels in the image's first bin, `order` is OrderByPlace
// of its `rois`. `sums` holds cells * count values: [cells, channels] of each block of kGradientBlock channels in turn.
// T needs a conversion to Sum.
template <typename T, typename Sum>
class RoiPoolGradient {
 public:
  RoiPoolGradient(CpuLevel level, const RoiPoolShape& shape, float spatial_scale, const T* pooled_gradient,
                  const int32_t* argmax, const float* rois, const std::vector<int64_t>& order, int64_t count, Sum* sums)
      : level_(level),
        shape_(shape),
        spatial_scale_(spatial_scale),
        pooled_gradient_(pooled_gradient),
        argmax_(argmax),
        rois_(rois),
        order_(order),
        count_(count),
        sums_(sums),
        rows_(shape.output_height),
        columns_(shape.output_width),
        converted_(std::is_same_v<T, Sum> ? 0 : shape.bins() * kGradientBlock) {}

  void Add() {
    const DenormalsAreNumbers denormals_are_numbers;
    for (size_t i = 0; i < order_.size(); ++i) {
      SetBins(rois_ + order_[i] * 4);
      Ahead gradient, argmax;
      if (i + 1 < order_.size()) {
        gradient = Of(pooled_gradient_, order_[i + 1]);
        argmax = Of(argmax_, order_[i + 1]);
      }
      for (int64_t c = 0; c < count_; c += kGradientBlock) {
        AddGradientBlock(level_, Block(order_[i], c), &gradient, &argmax, sums_ + c * shape_.cells());
      }
    }
  }

 private:
  int64_t values_of_roi() const { return shape_.bins() * shape_.channels; }

  void SetBins(const float* corners) {
    RoiSide vertical, horizontal;
    vertical.Set(corners[0], corners[2], spatial_scale_, shape_.output_height);
    horizontal.Set(corners[1], corners[3], spatial_scale_, shape_.output_width);
    for (int64_t p = 0; p < shape_.output_height; ++p) rows_[p] = vertical.Bin(p, shape_.height);
    for (int64_t q = 0; q < shape_.output_width; ++q) columns_[q] = horizontal.Bin(q, shape_.width);
  }

  template <typename Value>
  Ahead Of(const Value* values, int64_t roi) const {
    constexpr int64_t kBytes = sizeof(Value);
    return Ahead(values + roi * values_of_roi(), count_ * kBytes, shape_.channels * kBytes);
  }

  GradientBlock<Sum> Block(int64_t roi, int64_t c) {
    const int64_t channels = std::min(kGradientBlock, count_ - c), offset = roi * values_of_roi() + c;
    GradientBlock<Sum> block;
    block.argmax = argmax_ + offset;
    block.argmax_stride = block.gradient_stride = shape_.channels;
    block.gradient_bytes = sizeof(T);
    block.channels = channels;
    block.rows = rows_.data();
    block.columns = columns_.data();
    block.output_height = shape_.output_height;
    block.output_width = shape_.output_width;
    block.map_width = shape_.width;
    block.map_cells = shape_.cells();
    if constexpr (std::is_same_v<T, Sum>) {
      block.gradient = pooled_gradient_ + offset;
    } else {
      Convert(pooled_gradient_ + offset, channels);
      block.gradient = converted_.data();
      block.gradient_stride = kGradientBlock;
    }
    return block;
  }

  void Convert(const T* gradient, int64_t channels) {
    for (int64_t bin = 0; bin < shape_.bins(); ++bin) {
      for (int64_t c = 0; c < channels; ++c) {
        converted_[bin * kGradientBlock + c] = static_cast<Sum>(gradient[bin * shape_.channels + c]);
      }
    }
  }

  const CpuLevel level_;
  const RoiPoolShape& shape_;
  const float spatial_scale_;
  const T* const pooled_gradient_;
  const int32_t* const argmax_;
  const float* const rois_;
  const std::vector<int64_t>& order_;
  const int64_t count_;
  Sum* const sums_;
  std::vector<Span> rows_, columns_;
  std::vector<Sum> converted_;
};

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_ROI_POOL_H_
