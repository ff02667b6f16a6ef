// RoI max pooling and its gradient on plain arrays. Knows nothing of TensorFlow, so that it can be tested alone (under
// sanitizers) and stand beside a version for another device.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace tf_fast_rcnn {

// Scaled coordinates are clamped to this many cells on either side of 0, so that every later sum fits an int and the
// portable implementation can list all RoI heights in a table.
constexpr float kMaxCells = 4096.0f;

constexpr int32_t kNoCell = -1;

struct RoiPoolShape {
  int64_t batch, height, width, channels;  // of the features
  int64_t rois;                            // of one image
  int64_t output_height, output_width;

  int64_t bins() const { return output_height * output_width; }
};

// Rows or columns [begin, end) of the feature map.
struct Span {
  int64_t begin, end;

  bool empty() const { return end <= begin; }
};

// One side of a RoI: its first cell, and the length of a bin in cells.
struct RoiSide {
  int start;
  float step;

  // `low` and `high` are pixels, both included; false where one is NaN.
  bool Set(float low, float high, float spatial_scale, int64_t bins) {
    int end;
    if (!ToCell(low, spatial_scale, &start) || !ToCell(high, spatial_scale, &end)) return false;
    step = static_cast<float>(std::max(end - start + 1, 1)) / static_cast<float>(bins);
    return true;
  }

  // The cells of bin p. The products are float32 and in this order because the original's are: integer arithmetic
  // gives other bins for sides of 57, 114, 121, ... cells.
  Span Bin(int64_t p, int64_t map_size) const {
    const int64_t begin = start + static_cast<int64_t>(std::floor(static_cast<float>(p) * step));
    const int64_t end = start + static_cast<int64_t>(std::ceil(static_cast<float>(p + 1) * step));
    return {std::clamp<int64_t>(begin, 0, map_size), std::clamp<int64_t>(end, 0, map_size)};
  }

 private:
  static bool ToCell(float pixel, float spatial_scale, int* cell) {
    const float scaled = pixel * spatial_scale;
    if (std::isnan(scaled)) return false;
    *cell = static_cast<int>(std::round(std::clamp(scaled, -kMaxCells, kMaxCells)));
    return true;
  }
};

// A value of either 16-bit float type.
struct Float16Bits {
  int16_t bits;
};

// An integer that is ordered as the float is. Every vector unit compares and selects integers, where few know 16-bit
// floats, and compilers keep the search for the place of a float's maximum scalar (five times slower).
template <typename Integer, typename T>
inline Integer OrderKey(T value) {
  static_assert(sizeof(Integer) == sizeof(T));
  Integer bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const Integer magnitude = bits & std::numeric_limits<Integer>::max();
  return bits < 0 ? -magnitude : magnitude;
}

// Integer: the type of OrderKey. Key: what is compared where the maximum alone is sought, for which floats are best.
template <typename T>
struct Order;

template <>
struct Order<float> {
  using Integer = int32_t;
  using Key = float;
  static Key ToKey(float value) { return value; }
  static float FromKey(Key key) { return key; }
};

template <>
struct Order<double> {
  using Integer = int64_t;
  using Key = double;
  static Key ToKey(double value) { return value; }
  static double FromKey(Key key) { return key; }
};

template <>
struct Order<Float16Bits> {
  using Integer = int16_t;
  using Key = int16_t;
  static Key ToKey(Float16Bits value) { return OrderKey<Integer>(value); }
  static Float16Bits FromKey(Key key) {
    const Integer negative = static_cast<Integer>(-key | std::numeric_limits<Integer>::min());
    return {key < 0 ? negative : key};
  }
};

// Channels that are pooled together: few enough for their running maxima to stay in registers.
constexpr int kChannelBlock = 32;

// Maxima of `channels` (at most kChannelBlock) neighbouring channels over the cells rows x columns; `map` points at
// the first of these channels in cell (0, 0), `cell_stride` is the number of values from a cell to the next.
template <typename T>
inline void MaxOfBin(const T* map, int64_t width, int64_t cell_stride, Span rows, Span columns, int channels,
                     T* pooled) {
  using Key = typename Order<T>::Key;
  Key best[kChannelBlock];
  const T* first = map + (rows.begin * width + columns.begin) * cell_stride;
  for (int c = 0; c < channels; ++c) best[c] = Order<T>::ToKey(first[c]);
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    for (int64_t x = columns.begin; x < columns.end; ++x) {
      const T* cell = map + (y * width + x) * cell_stride;
      for (int c = 0; c < channels; ++c) {
        const Key key = Order<T>::ToKey(cell[c]);
        best[c] = key > best[c] ? key : best[c];
      }
    }
  }
  for (int c = 0; c < channels; ++c) pooled[c] = Order<T>::FromKey(best[c]);
}

// The same, and the cell of each maximum: the first in row-major order among equals.
template <typename T>
inline void ArgmaxOfBin(const T* map, int64_t width, int64_t cell_stride, Span rows, Span columns, int channels,
                        T* pooled, int32_t* argmax) {
  using Key = typename Order<T>::Integer;
  Key best[kChannelBlock];
  int32_t best_cell[kChannelBlock];
  std::fill_n(best, channels, std::numeric_limits<Key>::min());
  std::fill_n(best_cell, channels, static_cast<int32_t>(rows.begin * width + columns.begin));
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    for (int64_t x = columns.begin; x < columns.end; ++x) {
      const int32_t index = static_cast<int32_t>(y * width + x);
      const T* cell = map + index * cell_stride;
      for (int c = 0; c < channels; ++c) {
        const Key key = OrderKey<Key>(cell[c]);
        best_cell[c] = key > best[c] ? index : best_cell[c];
        best[c] = key > best[c] ? key : best[c];
      }
    }
  }
  std::copy_n(best_cell, channels, argmax);
  for (int c = 0; c < channels; ++c) pooled[c] = map[best_cell[c] * cell_stride + c];
}

// One bin, all channels. `argmax` may be null.
template <typename T>
inline void PoolBin(const T* map, const RoiPoolShape& shape, Span rows, Span columns, T* pooled, int32_t* argmax) {
  if (rows.empty() || columns.empty()) {
    std::fill_n(pooled, shape.channels, T{});
    if (argmax != nullptr) std::fill_n(argmax, shape.channels, kNoCell);
    return;
  }
  for (int64_t c = 0; c < shape.channels; c += kChannelBlock) {
    const int channels = static_cast<int>(std::min<int64_t>(kChannelBlock, shape.channels - c));
    if (argmax != nullptr) {
      ArgmaxOfBin(map + c, shape.width, shape.channels, rows, columns, channels, pooled + c, argmax + c);
    } else if (channels == kChannelBlock) {
      // The constant lets the compiler keep the maxima in registers.
      MaxOfBin(map + c, shape.width, shape.channels, rows, columns, kChannelBlock, pooled + c);
    } else {
      MaxOfBin(map + c, shape.width, shape.channels, rows, columns, channels, pooled + c);
    }
  }
}

// Pools RoIs [first, last), counted through the whole batch. `argmax` may be null.
template <typename T>
void RoiPool(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois, int64_t first,
             int64_t last, T* pooled, int32_t* argmax) {
  for (int64_t roi = first; roi < last; ++roi) {
    const float* corners = rois + roi * 4;  // y1, x1, y2, x2
    RoiSide vertical, horizontal;
    const bool is_number = vertical.Set(corners[0], corners[2], spatial_scale, shape.output_height) &&
                           horizontal.Set(corners[1], corners[3], spatial_scale, shape.output_width);
    const T* map = features + (roi / shape.rois) * shape.height * shape.width * shape.channels;
    for (int64_t bin = 0; bin < shape.bins(); ++bin) {
      const Span rows = is_number ? vertical.Bin(bin / shape.output_width, shape.height) : Span{0, 0};
      const Span columns = is_number ? horizontal.Bin(bin % shape.output_width, shape.width) : Span{0, 0};
      const int64_t offset = (roi * shape.bins() + bin) * shape.channels;
      PoolBin(map, shape, rows, columns, pooled + offset, argmax == nullptr ? nullptr : argmax + offset);
    }
  }
}

// Adds the gradients of one image's RoIs at the cells of their maxima (equation 4), for `count` neighbouring channels:
// who calls this for different channels in parallel needs no atomics, and every sum has the same order of terms
// whatever the number of threads. `pooled_gradient` and `argmax` point at the first of these channels in the
// image's first bin; `gradient` at its first cell, `cell_stride` values from the next.
template <typename T, typename Sum>
void AddRoiPoolGradient(const RoiPoolShape& shape, const T* pooled_gradient, const int32_t* argmax, int64_t count,
                        int64_t cell_stride, Sum* gradient) {
  const uint32_t cells = static_cast<uint32_t>(shape.height * shape.width);
  for (int64_t bin = 0; bin < shape.rois * shape.bins(); ++bin) {
    for (int64_t c = 0; c < count; ++c) {
      // As unsigned, kNoCell is beyond every cell, and so is whatever does not belong here.
      const uint32_t cell = static_cast<uint32_t>(argmax[bin * shape.channels + c]);
      if (cell < cells) gradient[cell * cell_stride + c] += static_cast<Sum>(pooled_gradient[bin * shape.channels + c]);
    }
  }
}

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_H_
