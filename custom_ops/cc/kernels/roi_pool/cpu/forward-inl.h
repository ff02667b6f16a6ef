// RoI max pooling for one instruction set; included once per target by {baseline,avx2,avx512}.cc inside that target's
// namespace. The namespaces keep the names apart: if an inline function with one name were compiled for several
// instruction sets, the linker would keep any one of them, and an older CPU might execute AVX-512 instructions. For the
// same reason nothing here may come from a header that is included after the instruction set was selected.

#include "vectors-inl.h"

// Number of channel vectors that are pooled together: few enough for their running maxima (and cells) to stay in
// registers.
constexpr int kVectors = 4;

// The running maximum after the first cell of a bin.
template <typename Best, typename Value>
inline Best InitBest(const Value& value) {
  if constexpr (std::is_same_v<Best, Value>) {
    return value;
  } else {
    return {value, value};
  }
}

// The maxima of kCount * count adjacent channels over the cells rows x columns. `map` points to the first of these
// channels in cell (0, 0); `stride` is the number of values between cells.
template <typename Lanes, int count, bool stream, typename T>
inline void MaxOfBin(const T* map, int64_t width, int64_t stride, Span rows, Span columns, T* pooled) {
  typename Lanes::Best best[count];
#pragma GCC unroll 8
  for (int v = 0; v < count; ++v) {
    typename Lanes::Value value;
    Lanes::Load(map + (rows.begin * width + columns.begin) * stride + v * Lanes::kCount, &value);
    best[v] = InitBest<typename Lanes::Best>(value);
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
    typename Lanes::Value mixed_zeros{};
    for (int v = 0; v < count; ++v) mixed_zeros |= Lanes::HasMixedZeros(best[v]);
    if (AnyBit(mixed_zeros)) {
      constexpr int kExactCount = count * Lanes::kCount / Lanes::Exact::kCount;
      return MaxOfBin<typename Lanes::Exact, kExactCount, stream>(map, width, stride, rows, columns, pooled);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < count; ++v) Lanes::template Store<stream>(best[v], pooled + v * Lanes::kCount);
}

// As MaxOfBin, and the cell of each maximum: the first in row-major order if several are equal.
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

// Pools the bins of one image.
template <typename T, bool stream>
struct BinPooler {
  const T* map;
  int64_t width, channels;

  // Pools all channels of one bin. `argmax` may be null.
  void Pool(Span rows, Span columns, T* pooled, int32_t* argmax) const {
    if (rows.empty() || columns.empty()) {
      __builtin_memset(pooled, 0, channels * sizeof(T));
      static_assert(kNoCell == -1, "memset writes bytes of 255");
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
      // Overlaps the previous vector: some channels are pooled twice, with the same result.
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
    RoiAxis vertical, horizontal;
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

// Non-temporal stores need aligned addresses.
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
