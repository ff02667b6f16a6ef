// The gradient of RoI max pooling for one instruction set; included like forward-inl.h.

// In bins of up to this many cells, comparing every cell with the argmax of all channels (contiguous vector loads) is
// faster than indexing each channel's cell.
constexpr int64_t kMaxScannedCells = 16;

template <typename Sum>
struct GradientLanes {
  using Index = std::conditional_t<std::is_same_v<Sum, float>, int32_t, int64_t>;
  typedef Sum Value __attribute__((vector_size(kVectorBytes)));
  typedef Index Cells __attribute__((vector_size(kVectorBytes)));
  typedef int32_t StoredCells __attribute__((vector_size(kVectorBytes / sizeof(Sum) * sizeof(int32_t))));
  static constexpr int kCount = kVectorBytes / sizeof(Sum);
};

// Adds the gradient of one bin, for kGradientBlock channels, by comparing each of its cells with the argmax.
template <typename Sum>
inline void AddByScanning(const Sum* gradient, const int32_t* argmax, Span rows, Span columns, int64_t map_width,
                          Sum* sums) {
  using Lanes = GradientLanes<Sum>;
  // With 16-byte vectors these exceed the registers, and the compiler reloads some of them.
  constexpr int kVectorsOfBlock = kGradientBlock / Lanes::kCount;
  typename Lanes::Value terms[kVectorsOfBlock];
  typename Lanes::Cells cells[kVectorsOfBlock];
#pragma GCC unroll 16
  for (int v = 0; v < kVectorsOfBlock; ++v) {
    typename Lanes::StoredCells stored;
    __builtin_memcpy(&terms[v], gradient + v * Lanes::kCount, sizeof(terms[v]));
    __builtin_memcpy(&stored, argmax + v * Lanes::kCount, sizeof(stored));
    cells[v] = __builtin_convertvector(stored, typename Lanes::Cells);
  }
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    const int64_t first = y * map_width + columns.begin;
    typename Lanes::Cells cell = typename Lanes::Cells{} + static_cast<typename Lanes::Index>(first);
    Sum* to = sums + first * kGradientBlock;
    for (int64_t x = columns.begin; x < columns.end; ++x, cell += 1, to += kGradientBlock) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectorsOfBlock; ++v) {
        typename Lanes::Value sum;
        __builtin_memcpy(&sum, to + v * Lanes::kCount, sizeof(sum));
        // Sums start at +0 and can never become -0, so adding 0 does not change them.
        sum += cells[v] == cell ? terms[v] : typename Lanes::Value{};
        __builtin_memcpy(to + v * Lanes::kCount, &sum, sizeof(sum));
      }
    }
  }
}

#ifdef __x86_64__
// Adds sixteen channels at a time. They are distinct elements of the sums, so there are no conflicts. A template, so
// that it is not compiled for instruction sets without AVX-512. Requires map_cells * channels < 2^31.
template <typename Float>
inline void AddByScatter(const Float* gradient, const int32_t* argmax, int64_t channels, int64_t map_cells,
                         Float* sums) {
  constexpr int64_t kLanes = 16;
  const __m512i stride = _mm512_set1_epi32(static_cast<int>(channels));
  const __m512i cells = _mm512_set1_epi32(static_cast<int>(map_cells));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t c = 0; c < channels; c += kLanes) {
    const __mmask16 valid = channels - c < kLanes ? (1u << (channels - c)) - 1 : 0xffff;
    const __m512i cell = _mm512_maskz_loadu_epi32(valid, argmax + c);
    const __mmask16 on_map = _mm512_mask_cmplt_epu32_mask(valid, cell, cells);
    const __m512i place = _mm512_add_epi32(_mm512_mullo_epi32(cell, stride), lanes);
    const __m512 sum = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), on_map, place, sums + c, sizeof(Float));
    const __m512 term = _mm512_maskz_loadu_ps(valid, gradient + c);
    _mm512_mask_i32scatter_ps(sums + c, on_map, place, _mm512_add_ps(sum, term), sizeof(Float));
  }
}
#endif

// Adds the gradient of one bin, each channel at its own argmax.
template <typename Sum>
inline void AddByIndexing(const Sum* gradient, const int32_t* argmax, int64_t channels, int64_t map_cells, Sum* sums) {
#ifdef __x86_64__
  if constexpr (kVectorBytes == 64 && std::is_same_v<Sum, float>) {
    if (map_cells * channels <= INT32_MAX) return AddByScatter(gradient, argmax, channels, map_cells, sums);
  }
#endif
  for (int64_t c = 0; c < channels; ++c) {
    // Converted to unsigned, kNoCell and other invalid values are not below map_cells.
    const uint32_t cell = static_cast<uint32_t>(argmax[c]);
    if (cell < map_cells) sums[cell * channels + c] += gradient[c];
  }
}

// Prefetches the next block of this bin into L1. After the last block the address may be past the end of the array;
// prefetching it is harmless.
template <typename T>
inline void PrefetchBlock(const T* values) {
  constexpr int64_t kPerCacheLine = 64 / sizeof(T);
  for (int64_t i = 0; i < kGradientBlock; i += kPerCacheLine) __builtin_prefetch(values + i);
}

template <typename Sum>
void AddGradientBlock(const GradientBlock<Sum>& block, Prefetcher* next_gradient, Prefetcher* next_argmax, Sum* sums) {
  const Sum* gradient = block.gradient;
  const int32_t* argmax = block.argmax;
  for (int64_t p = 0; p < block.output_height; ++p) {
    const Span rows = block.rows[p];
    for (int64_t q = 0; q < block.output_width; ++q) {
      const Span columns = block.columns[q];
      next_gradient->Fetch(block.channels * block.gradient_bytes);
      next_argmax->Fetch(block.channels * sizeof(int32_t));
      PrefetchBlock(gradient + block.channels);
      PrefetchBlock(argmax + block.channels);
      const int64_t cells = int64_t{rows.end - rows.begin} * (columns.end - columns.begin);
      if (cells <= kMaxScannedCells && block.channels == kGradientBlock) {
        AddByScanning(gradient, argmax, rows, columns, block.map_width, sums);
      } else {
        AddByIndexing(gradient, argmax, block.channels, block.map_cells, sums);
      }
      gradient += block.gradient_stride;
      argmax += block.argmax_stride;
    }
  }
}
