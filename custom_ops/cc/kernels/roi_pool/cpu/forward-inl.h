// RoI max pooling for one level of instructions: included by roi_pool_{baseline,avx2,avx512}.cc, inside the level's
// namespace. The code of each level has names of its own: were an inline function of one name compiled for several
// levels, the linker would keep any of them, and an old CPU might get AVX-512. So nothing here may come from a header
// that is included after the level was set.

#include "vectors-inl.h"

// Vectors of channels that are pooled together: few enough for their running maxima (and cells) to stay in registers.
constexpr int kVectors = 4;

// What is kept of the first cell of a bin.
template <typename Best, typename Value>
inline Best Start(const Value& value) {
  if constexpr (std::is_same_v<Best, Value>) {
    return value;
  } else {
    return {value, value};
  }
}

// Maxima of kCount * count neighbouring channels over the cells rows x columns; `map` points at the first of these
// channels in cell (0, 0), `stride` is the number of values from a cell to the next.
template <typename Lanes, int count, bool stream, typename T>
inline void MaxOfBin(const T* map, int64_t width, int64_t stride, Span rows, Span columns, T* pooled) {
  typename Lanes::Best best[count];
#pragma GCC unroll 8
  for (int v = 0; v < count; ++v) {
    typename Lanes::Value value;
    Lanes::Load(map + (rows.begin * width + columns.begin) * stride + v * Lanes::kCount, &value);
    best[v] = Start<typename Lanes::Best>(value);
  }
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    const T* cell = map + (y * width + columns.begin) * stride;
    for (int64_t x = columns.begin; x < columns.end; ++x, cell += stride) {
#pragma GCC unroll 8
      for (int v = 0; v < count; ++v) {
        typename Lanes::Value value;
        Lanes::Load(cell + v * Lanes::kCount, &value);
        Lanes::Compare(value, &best[v]);
      }
    }
  }
  if constexpr (std::is_same_v<Lanes, SignMagnitudeLanes>) {
    typename Lanes::Value unsure{};
    for (int v = 0; v < count; ++v) unsure |= Lanes::Unsure(best[v]);
    if (AnyBit(unsure)) {
      constexpr int kExactCount = count * Lanes::kCount / Lanes::Exact::kCount;
      return MaxOfBin<typename Lanes::Exact, kExactCount, stream>(map, width, stride, rows, columns, pooled);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < count; ++v) Lanes::template Store<stream>(best[v], pooled + v * Lanes::kCount);
}

// The same, and the cell of each maximum: the first in row-major order among equals.
template <typename Lanes, int count, bool stream, typename T>
inline void ArgmaxOfBin(const T* map, int64_t width, int64_t stride, Span rows, Span columns, T* pooled,
                        int32_t* argmax) {
  using Value = typename Lanes::Value;
  using Index = typename Lanes::Index;
  Value best[count];
  Index best_index[count];
  const int64_t first = rows.begin * width + columns.begin;
#pragma GCC unroll 8
  for (int v = 0; v < count; ++v) {
    Lanes::Load(map + first * stride + v * Lanes::kCount, best + v);
    best_index[v] = Index{} + static_cast<typename Lanes::IndexOf>(first);
  }
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    for (int64_t x = columns.begin; x < columns.end; ++x) {
      const int64_t cell = y * width + x;
      const Index index = Index{} + static_cast<typename Lanes::IndexOf>(cell);
#pragma GCC unroll 8
      for (int v = 0; v < count; ++v) {
        Value value;
        Lanes::Load(map + cell * stride + v * Lanes::kCount, &value);
        const auto greater = value > best[v];
        best[v] = greater ? value : best[v];
        best_index[v] = greater ? index : best_index[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < count; ++v) {
    Lanes::template Store<stream>(best[v], pooled + v * Lanes::kCount);
    Lanes::template StoreCells<stream>(best_index[v], argmax + v * Lanes::kCount);
  }
}

// The features and outputs of one bin's channels, and how far apart cells are.
template <typename T, bool stream>
struct BinPooler {
  const T* map;
  int64_t width, channels;

  // All channels of one bin. `argmax` may be null.
  void Pool(Span rows, Span columns, T* pooled, int32_t* argmax) const {
    if (rows.empty() || columns.empty()) {
      __builtin_memset(pooled, 0, channels * sizeof(T));
      static_assert(kNoCell == -1, "whose bytes are all 255");
      if (argmax != nullptr) __builtin_memset(argmax, 255, channels * sizeof(int32_t));
    } else if (argmax == nullptr) {
      PoolChannels<typename LanesOf<T>::ForMax>([&](auto lanes, auto count, int64_t c) {
        MaxOfBin<decltype(lanes), count(), stream>(map + c, width, channels, rows, columns, pooled + c);
      });
    } else {
      PoolChannels<typename LanesOf<T>::ForArgmax>([&](auto lanes, auto count, int64_t c) {
        ArgmaxOfBin<decltype(lanes), count(), stream>(map + c, width, channels, rows, columns, pooled + c, argmax + c);
      });
    }
  }

 private:
  template <typename Lanes, typename PoolSome>
  void PoolChannels(const PoolSome& pool_some) const {
    constexpr int kCount = Lanes::kCount;
    int64_t c = 0;
    for (; c + kVectors * kCount <= channels; c += kVectors * kCount) {
      pool_some(Lanes(), std::integral_constant<int, kVectors>(), c);
    }
    for (; c + kCount <= channels; c += kCount) pool_some(Lanes(), std::integral_constant<int, 1>(), c);
    if (c == channels) return;
    if (channels >= kCount) {
      // Some channels are pooled twice, which changes nothing.
      pool_some(Lanes(), std::integral_constant<int, 1>(), channels - kCount);
    } else {
      for (; c < channels; ++c) pool_some(SingleLane<T>(), std::integral_constant<int, 1>(), c);
    }
  }
};

template <typename T, bool stream>
void PoolRois(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois, int64_t first,
              int64_t last, T* pooled, int32_t* argmax) {
  std::vector<Span> columns(shape.output_width);
  for (int64_t roi = first; roi < last; ++roi) {
    const float* corners = rois + roi * 4;  // y1, x1, y2, x2
    RoiSide vertical, horizontal;
    const bool is_number = vertical.Set(corners[0], corners[2], spatial_scale, shape.output_height) &&
                           horizontal.Set(corners[1], corners[3], spatial_scale, shape.output_width);
    for (int64_t q = 0; q < shape.output_width; ++q) {
      columns[q] = is_number ? horizontal.Bin(q, shape.width) : Span{0, 0};
    }
    const int64_t image = roi / shape.rois;
    const BinPooler<T, stream> bin{features + image * shape.cells() * shape.channels, shape.width, shape.channels};
    for (int64_t p = 0; p < shape.output_height; ++p) {
      const Span rows = is_number ? vertical.Bin(p, shape.height) : Span{0, 0};
      for (int64_t q = 0; q < shape.output_width; ++q) {
        const int64_t offset = (roi * shape.bins() + p * shape.output_width + q) * shape.channels;
        bin.Pool(rows, columns[q], pooled + offset, argmax == nullptr ? nullptr : argmax + offset);
      }
    }
  }
}

// Streamed vectors must not cross a cache line.
inline bool IsAligned(const void* pointer, int64_t row_bytes) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  return pointer == nullptr || (address % kVectorBytes == 0 && row_bytes % kVectorBytes == 0);
}

template <typename T>
void RoiPool(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois, int64_t first,
             int64_t last, bool stream, T* pooled, int32_t* argmax) {
  stream =
      stream && IsAligned(pooled, shape.channels * sizeof(T)) && IsAligned(argmax, shape.channels * sizeof(int32_t));
  if (stream) {
    PoolRois<T, true>(shape, spatial_scale, features, rois, first, last, pooled, argmax);
    FinishStreaming();
  } else {
    PoolRois<T, false>(shape, spatial_scale, features, rois, first, last, pooled, argmax);
  }
}
