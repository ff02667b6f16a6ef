// The rows of a DepthwiseSums for one instruction set; included once per target by {baseline,avx2,avx512}.cc inside
// that target's namespace. kVectorBytes is the vector size; MultiplyAdd(a, b, c) is a * b + c of vectors.

template <int bytes>
struct VectorOf {
  typedef float Type __attribute__((vector_size(bytes)));
};

// The sums of one row of results. The pointers are those of one row of the source and of the kernel for the row's first
// tap; the steps between taps are distances in values.
struct RowOfSums {
  const DepthwiseSums& sums;
  const float *source, *kernel;
  float* results;
  int64_t taps, source_step, kernel_step;
  int64_t ahead;  // distance in values from `source` to a row that is prefetched

  // All columns of one part.
  void ComputePart(const AxisPart& part) const {
    // The results whose taps are all inside; for the others, only the taps that are.
    int64_t first = 0, end = part.count;
    while (first < end && !(part.Inside(first, 0) && part.Inside(first, part.taps - 1))) ++first;
    while (end > first && !(part.Inside(end - 1, 0) && part.Inside(end - 1, part.taps - 1))) --end;
    for (int64_t q = 0; q < first; ++q) ComputeEdge(part, q);
    // Some channels of all columns, then the next: the rows of the source in use stay in L1 and L2.
    for (int64_t c = 0; c < sums.channels; c += kGroup) {
      const int64_t end_channel = c + kGroup < sums.channels ? c + kGroup : sums.channels;
      int64_t q = first;
      for (; q + 8 <= end; q += 8) ComputeColumns<8>(part, q, 0, part.taps, c, end_channel);
      if (q + 4 <= end) ComputeColumns<4>(part, q, 0, part.taps, c, end_channel), q += 4;
      for (; q < end; ++q) ComputeColumns<1>(part, q, 0, part.taps, c, end_channel);
    }
    for (int64_t q = end; q < part.count; ++q) ComputeEdge(part, q);
  }

 private:
  static constexpr int64_t kGroup = 128;  // a multiple of every vector's lanes

  void ComputeEdge(const AxisPart& part, int64_t q) const {
    int64_t first = 0, end = part.taps;
    while (first < end && !part.Inside(q, first)) ++first;
    while (end > first && !part.Inside(q, end - 1)) --end;
    ComputeColumns<1>(part, q, first, end, 0, sums.channels);
  }

  // Taps [first, end) of `columns` adjacent results of a part.
  template <int columns>
  void ComputeColumns(const AxisPart& part, int64_t q, int64_t first, int64_t end, int64_t c,
                      int64_t end_channel) const {
    c = ComputeVectors<columns, kVectorBytes>(part, q, first, end, c, end_channel);
    if constexpr (kVectorBytes > 16) c = ComputeVectors<columns, 16>(part, q, first, end, c, end_channel);
    ComputeVectors<columns, sizeof(float)>(part, q, first, end, c, end_channel);
  }

  // As many vectors of channels as fit from channel c on; returns the first channel after them.
  template <int columns, int bytes>
  int64_t ComputeVectors(const AxisPart& part, int64_t q, int64_t first, int64_t end, int64_t c,
                         int64_t end_channel) const {
    using Vector = typename VectorOf<bytes>::Type;
    constexpr int64_t kLanes = bytes / sizeof(float);
    const int64_t column_step = part.stride * sums.channels, result_step = part.step * sums.channels;
    const int64_t source_tap = part.offset_step * sums.channels, kernel_tap = part.kernel_step * sums.channels;
    const float* const source_of_part = source + part.At(q, first) * sums.channels;
    const float* const kernel_of_part = kernel + (part.first_kernel + first * part.kernel_step) * sums.channels;
    float* const results_of_part = results + (part.first + q * part.step) * sums.channels;
    for (; c + kLanes <= end_channel; c += kLanes) {
      Vector sum[columns];
      if constexpr (columns > 1) {
#pragma GCC unroll 8
        for (int i = 0; i < columns; ++i) __builtin_prefetch(source_of_part + ahead + i * column_step + c, 0, 2);
        if (part.stride > 1) {
#pragma GCC unroll 8
          for (int i = 0; i < columns; ++i) {
            __builtin_prefetch(source_of_part + ahead + i * column_step + sums.channels + c, 0, 2);
          }
        }
      }
      const Vector start = sums.bias == nullptr ? Vector{} : Load<Vector>(sums.bias + c);
#pragma GCC unroll 8
      for (int i = 0; i < columns; ++i) sum[i] = start;
      for (int64_t row = 0; row < taps; ++row) {
        const float* from = source_of_part + row * source_step + c;
        const float* weights = kernel_of_part + row * kernel_step + c;
        for (int64_t tap = first; tap < end; ++tap, from += source_tap, weights += kernel_tap) {
          const Vector weight = Load<Vector>(weights);
#pragma GCC unroll 8
          for (int i = 0; i < columns; ++i) {
            sum[i] = MultiplyAdd(weight, Load<Vector>(from + i * column_step), sum[i]);
          }
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < columns; ++i) Store(Limited(sum[i]), results_of_part + i * result_step + c);
    }
    return c;
  }

  template <typename Vector>
  Vector Limited(Vector sum) const {
    const Vector lowest = sums.lowest - Vector{}, highest = sums.highest - Vector{};
    sum = sum < lowest ? lowest : sum;
    return sum > highest ? highest : sum;
  }

  template <typename Vector>
  static Vector Load(const float* from) {
    Vector vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    return vector;
  }

  template <typename Vector>
  static void Store(const Vector& vector, float* to) {
    __builtin_memcpy(to, &vector, sizeof(vector));
  }
};

void ComputeRows(const DepthwiseSums& sums, int64_t first, int64_t end) {
  const int64_t source_row = sums.source_columns * sums.channels, result_row = sums.result_columns * sums.channels;
  const int64_t kernel_row = sums.kernel_columns * sums.channels, parts = sums.rows.size();
  for (int64_t row = first; row < end; ++row) {
    const int64_t image = row / sums.result_rows, in_image = row % sums.result_rows;
    const AxisPart& part = sums.rows[in_image % parts];
    const int64_t q = in_image / parts;
    int64_t tap = 0, end_tap = part.taps;
    while (tap < end_tap && !part.Inside(q, tap)) ++tap;
    while (end_tap > tap && !part.Inside(q, end_tap - 1)) --end_tap;
    // The row of the source after those of this row of results: the hardware does not recognise the order of the
    // accesses.
    const int64_t top = part.At(q, part.offset_step > 0 ? tap : end_tap - 1);
    const int64_t next = std::min(top + end_tap - tap, sums.source_rows - 1);
    const RowOfSums of_row = {sums,
                              sums.source + (image * sums.source_rows + part.At(q, tap)) * source_row,
                              sums.kernel + (part.first_kernel + tap * part.kernel_step) * kernel_row,
                              sums.results + row * result_row,
                              end_tap - tap,
                              part.offset_step * source_row,
                              part.kernel_step * kernel_row,
                              (next - part.At(q, tap)) * source_row};
    for (const AxisPart& columns : sums.columns) of_row.ComputePart(columns);
  }
}
