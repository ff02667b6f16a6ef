// The sums of one unit for one instruction set; included once per target by {baseline,avx2,avx512}.cc inside that
// target's namespace, which ../roi_pool/cpu/forward-inl.h explains. kVectorBytes is the vector size.

// `count` vectors of `bytes` bytes of adjacent channels.
template <int bytes_, int count_>
struct ChannelBlock {
  typedef float Vector __attribute__((vector_size(bytes_)));
  static constexpr int kLanes = bytes_ / sizeof(float), kCount = count_, kChannels = kLanes * kCount;

  static Vector Load(const float* from) {
    Vector vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    return vector;
  }

  static void Add(const Vector& term, float* to) {
    const Vector sum = Load(to) + term;
    __builtin_memcpy(to, &sum, sizeof(sum));
  }
};

// The terms of `kTaps` adjacent taps over `outputs` adjacent outputs, which are all inside the image.
struct Run {
  const float *image, *gradient;        // the first channel of the first output and of its first tap
  int64_t image_ahead, gradient_ahead;  // distance in values to what is prefetched; 0 for nothing
  int64_t outputs, stride, channels;

  Run Part(int64_t first, int64_t end, int64_t tap) const {
    Run part = *this;
    part.image += (first * stride + tap) * channels;
    part.gradient += first * channels;
    part.outputs = end - first;
    return part;
  }
};

// Adds the terms of a run to the sums of its taps. The sums stay in registers, and each gradient is loaded once.
template <typename Block, int kTaps>
inline void AddRun(const Run& run, float* sums) {
  typename Block::Vector of_run[kTaps][Block::kCount] = {};
  const float *image = run.image, *gradient = run.gradient;
  const int64_t image_step = run.stride * run.channels;
  const int64_t second_ahead = run.image_ahead + (run.stride > 1 ? run.channels : 0);
  for (int64_t i = 0; i < run.outputs; ++i, image += image_step, gradient += run.channels) {
#pragma GCC unroll 8
    for (int v = 0; v < Block::kCount; ++v) {
      const auto term = Block::Load(gradient + v * Block::kLanes);
      if constexpr (kTaps > 1) {
        __builtin_prefetch(gradient + run.gradient_ahead + v * Block::kLanes, 0, 2);
        __builtin_prefetch(image + run.image_ahead + v * Block::kLanes, 0, 2);
        __builtin_prefetch(image + second_ahead + v * Block::kLanes, 0, 2);
      }
#pragma GCC unroll 8
      for (int k = 0; k < kTaps; ++k) {
        of_run[k][v] += term * Block::Load(image + k * run.channels + v * Block::kLanes);
      }
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < kTaps; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < Block::kCount; ++v) Block::Add(of_run[k][v], sums + k * run.channels + v * Block::kLanes);
  }
}

// Adds the terms of one row of outputs and one row of the kernel. kTaps is the number of kernel columns; with 1, any
// number, one column at a time.
template <typename Block, int kTaps>
inline void AddRow(const ConvAxis& columns, const Run& row, float* sums) {
  // The outputs with all taps inside; for the others, each tap separately.
  int64_t first = 0, end = 0;
  if constexpr (kTaps > 1) {
    first = columns.FirstOutput(0);
    end = std::max(first, columns.EndOutput(kTaps - 1));
    AddRun<Block, kTaps>(row.Part(first, end, 0), sums);
  }
  for (int64_t k = 0; k < columns.kernel; ++k) {
    const int64_t first_of_tap = columns.FirstOutput(k), end_of_tap = columns.EndOutput(k);
    float* sums_of_tap = sums + k * row.channels;
    AddRun<Block, 1>(row.Part(first_of_tap, std::min(first, end_of_tap), k), sums_of_tap);
    AddRun<Block, 1>(row.Part(std::max(end, first_of_tap), end_of_tap, k), sums_of_tap);
  }
}

// Sums one unit. Channels are the inner loop: the rows of the images stay in L2 until the next row of outputs.
template <int kTaps>
struct UnitSummer {
  const DepthwiseConvShape& shape;
  const WorkUnits::Unit& unit;
  const float *images, *gradients;
  float* sums;

  void Sum() const {
    for (int64_t row = unit.first_row; row < unit.end_row; ++row) {
      int64_t c = unit.first_channel;
      c = AddBlocks<ChannelBlock<kVectorBytes, 2>>(row, c);
      c = AddBlocks<ChannelBlock<kVectorBytes, 1>>(row, c);
      if constexpr (kVectorBytes > 16) c = AddBlocks<ChannelBlock<16, 1>>(row, c);
      AddBlocks<ChannelBlock<sizeof(float), 1>>(row, c);
    }
  }

 private:
  // Adds as many blocks as fit from channel c on; returns the first channel after them.
  template <typename Block>
  int64_t AddBlocks(int64_t row, int64_t c) const {
    for (; c + Block::kChannels <= unit.end_channel; c += Block::kChannels) AddBlock<Block>(row, c);
    return c;
  }

  // Adds one output row, numbered across all images. Meanwhile the rows that the next one needs are prefetched, because
  // the hardware does not recognise the order of the accesses.
  template <typename Block>
  void AddBlock(int64_t row, int64_t c) const {
    const ConvAxis &rows = shape.rows, &columns = shape.columns;
    const int64_t image = row / rows.output, top = row % rows.output * rows.stride - rows.padding;
    const int64_t first_tap = std::max<int64_t>(0, -top), end_tap = std::min(rows.kernel, rows.input - top);
    const int64_t image_row = columns.input * shape.channels, gradient_row = columns.output * shape.channels;
    for (int64_t k = first_tap; k < end_tap; ++k) {
      const bool row_is_new = k + rows.stride >= rows.kernel && top + k + rows.stride < rows.input;
      Run run;
      run.image = images + (image * rows.input + top + k) * image_row + c - columns.padding * shape.channels;
      run.gradient = gradients + row * gradient_row + c;
      run.image_ahead = row_is_new && row + 1 < unit.end_row ? rows.stride * image_row : 0;
      run.gradient_ahead = k == first_tap && row + 1 < unit.end_row ? gradient_row : 0;
      run.outputs = columns.output;
      run.stride = columns.stride;
      run.channels = shape.channels;
      AddRow<Block, kTaps>(columns, run, sums + k * columns.kernel * shape.channels + c);
    }
  }
};

void SumUnit(const DepthwiseConvShape& shape, const WorkUnits::Unit& unit, const float* images, const float* gradients,
             float* sums) {
  for (int64_t tap = 0; tap < shape.taps(); ++tap) {
    __builtin_memset(sums + tap * shape.channels + unit.first_channel, 0,
                     (unit.end_channel - unit.first_channel) * sizeof(float));
  }
  if (shape.columns.kernel == 3) return UnitSummer<3>{shape, unit, images, gradients, sums}.Sum();
  if (shape.columns.kernel == 5) return UnitSummer<5>{shape, unit, images, gradients, sums}.Sum();
  UnitSummer<1>{shape, unit, images, gradients, sums}.Sum();
}
