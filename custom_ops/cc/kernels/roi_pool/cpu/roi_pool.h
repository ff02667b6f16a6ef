// RoI max pooling and its gradient on the CPU, on plain arrays. Does not depend on TensorFlow, so that it can be tested
// alone under sanitizers.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_ROI_POOL_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CPU_ROI_POOL_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "../../instruction_set.h"
#include "../geometry.h"

namespace tf_fast_rcnn {

// A half or a bfloat16. Appending 16 zero bits gives a float32 with the same ordering: for a bfloat16 it is the same
// number; for a half the boundary between exponent and mantissa differs, which does not affect the ordering of
// sign-magnitude numbers (except that NaN compares as a number above infinity).
struct Float16Bits {
  uint16_t bits;
};

// RAII: disables flush-to-zero and denormals-are-zero on this thread, which TensorFlow sets on its threads; otherwise
// all denormal features would compare equal.
class ScopedDenormals {
 public:
#ifdef __x86_64__
  ScopedDenormals() : saved_mxcsr_(_mm_getcsr()) { _mm_setcsr(saved_mxcsr_ & ~(kFlushToZero | kDenormalsAreZero)); }
  ~ScopedDenormals() { _mm_setcsr(saved_mxcsr_); }
#else
  ScopedDenormals() {}
#endif
  ScopedDenormals(const ScopedDenormals&) = delete;
  ScopedDenormals& operator=(const ScopedDenormals&) = delete;

#ifdef __x86_64__
 private:
  static constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  const unsigned saved_mxcsr_;
#endif
};

// Pools RoIs [first, last), numbered across the whole batch. T is float, double or Float16Bits; `argmax` may be null.
// The result is bitwise identical for every instruction set. `stream` writes the outputs with non-temporal stores, for
// outputs too large for the cache.
template <typename T>
void RoiPool(InstructionSet instruction_set, const RoiPoolShape& shape, float spatial_scale, const T* features,
             const float* rois, int64_t first, int64_t last, bool stream, T* pooled, int32_t* argmax);

// Number of channels whose gradient sums are adjacent in memory, so that the cells of a RoI stay in L1. In the layout
// of the features the distance between cells is often a power of two bytes, which makes them evict each other.
constexpr int64_t kGradientBlock = 32;

// Prefetches a block of channels of all bins of the next RoI into L2, a few cache lines per call, in memory order.
class Prefetcher {
 public:
  Prefetcher() = default;
  Prefetcher(const void* first, int64_t bytes_of_bin, int64_t bytes_from_bin_to_bin)
      : next_(static_cast<const char*>(first)),
        end_of_bin_(next_ + bytes_of_bin),
        bytes_of_bin_(bytes_of_bin),
        step_(bytes_from_bin_to_bin) {}

  void Fetch(int64_t bytes) {
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

// Up to kGradientBlock adjacent channels of the gradient of one RoI. Sum is float or double.
template <typename Sum>
struct GradientBlock {
  const Sum* gradient;
  const int32_t* argmax;
  int64_t gradient_stride, argmax_stride;  // in values, from one bin to the next
  int64_t channels;
  const Span* rows;     // one per row of bins
  const Span* columns;  // one per column of bins
  int64_t output_height, output_width;
  int64_t map_width, map_cells;
  int64_t gradient_bytes;  // size of a value of the input gradient, for prefetching
};

// Adds one block to `sums` [cells, channels]. The result is bitwise identical for every instruction set.
template <typename Sum>
void AddGradientBlock(InstructionSet instruction_set, const GradientBlock<Sum>& block, Prefetcher* gradient,
                      Prefetcher* argmax, Sum* sums);

// Indices of the RoIs of one image, sorted along a space-filling curve so that consecutive RoIs touch the same parts of
// the cache. RoIs with a NaN coordinate are left out.
std::vector<int64_t> SortByLocation(const RoiPoolShape& shape, float spatial_scale, const float* rois);

// Adds the gradients of one image's RoIs to the cells of their maxima (equation 4), for `count` adjacent channels.
// Threads that process different channels need no atomics, and the terms of a sum are added in the same order for any
// number of threads and any instruction set.
//
// `pooled_gradient` and `argmax` point to the first of these channels in the first bin of the image; `order` is
// SortByLocation of `rois`. `sums` holds cells * count values: one array [cells, channels] per block of kGradientBlock
// channels. T must be convertible to Sum.
template <typename T, typename Sum>
class RoiPoolGradient {
 public:
  RoiPoolGradient(InstructionSet instruction_set, const RoiPoolShape& shape, float spatial_scale,
                  const T* pooled_gradient, const int32_t* argmax, const float* rois, const std::vector<int64_t>& order,
                  int64_t count, Sum* sums)
      : instruction_set_(instruction_set),
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
    const ScopedDenormals scoped_denormals;
    for (size_t i = 0; i < order_.size(); ++i) {
      SetBins(rois_ + order_[i] * 4);
      Prefetcher gradient, argmax;
      if (i + 1 < order_.size()) {
        gradient = PrefetcherOf(pooled_gradient_, order_[i + 1]);
        argmax = PrefetcherOf(argmax_, order_[i + 1]);
      }
      for (int64_t c = 0; c < count_; c += kGradientBlock) {
        AddGradientBlock(instruction_set_, Block(order_[i], c), &gradient, &argmax, sums_ + c * shape_.cells());
      }
    }
  }

 private:
  int64_t values_of_roi() const { return shape_.bins() * shape_.channels; }

  void SetBins(const float* corners) {
    RoiAxis vertical, horizontal;
    vertical.Set(corners[0], corners[2], spatial_scale_, shape_.output_height);
    horizontal.Set(corners[1], corners[3], spatial_scale_, shape_.output_width);
    for (int64_t p = 0; p < shape_.output_height; ++p) rows_[p] = vertical.Bin(p, shape_.height);
    for (int64_t q = 0; q < shape_.output_width; ++q) columns_[q] = horizontal.Bin(q, shape_.width);
  }

  template <typename Value>
  Prefetcher PrefetcherOf(const Value* values, int64_t roi) const {
    constexpr int64_t kBytes = sizeof(Value);
    return Prefetcher(values + roi * values_of_roi(), count_ * kBytes, shape_.channels * kBytes);
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

  const InstructionSet instruction_set_;
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
