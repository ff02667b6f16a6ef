// RoI max pooling on a CUDA device: the backward pass (equation 4), by atomic additions or in a fixed order.

#include "packs.cuh"

namespace tf_fast_rcnn {
namespace cuda {
namespace {

// --- by atomic additions ---------------------------------------------------------------------------------------------
// Every bin adds to the cells of its maxima. A block processes one RoI and a slice of its channels, as in the forward
// pass, so that the sums being updated stay in L2.

// Adds some channels of one bin; `map` points to these channels in the first cell of the image.
template <typename T, int count>
__device__ void AddBin(const RoiPoolShape& shape, const T* pooled_gradient, const int32_t* argmax,
                       typename SumOf<T>::Type* map) {
  const auto terms = LoadStreaming<count>(pooled_gradient);
  const auto cells = LoadStreaming<count>(argmax);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    // Converted to unsigned, kNoCell and other invalid values are not below shape.cells().
    const auto cell = static_cast<uint32_t>(cells.values[i]);
    if (cell < shape.cells()) atomicAdd(map + cell * shape.channels + i, ToSum(terms.values[i]));
  }
}

// Grid: RoIs of an image x slices of channels x images.
template <typename T, int count>
__global__ void __launch_bounds__(kMaxThreads)
    AddGradientKernel(RoiPoolShape shape, const T* __restrict__ pooled_gradient, const int32_t* __restrict__ argmax,
                      typename SumOf<T>::Type* __restrict__ sums) {
  constexpr unsigned kBinThreads = kLanes<T, count>;
  const int64_t lane = int64_t{blockIdx.y} * kBinThreads + threadIdx.x % kBinThreads;
  for (int64_t image = blockIdx.z; image < shape.batch; image += gridDim.z) {
    for (int64_t r = blockIdx.x; r < shape.rois; r += gridDim.x) {
      for (int64_t c = lane * count; c < shape.channels; c += int64_t{gridDim.y} * kBinThreads * count) {
        const int64_t of_roi = (image * shape.rois + r) * shape.bins();
        for (int64_t bin = threadIdx.x / kBinThreads; bin < shape.bins(); bin += blockDim.x / kBinThreads) {
          const int64_t offset = (of_roi + bin) * shape.channels + c;
          AddBin<T, count>(shape, pooled_gradient + offset, argmax + offset,
                           sums + image * shape.cells() * shape.channels + c);
        }
      }
    }
  }
}

template <typename T, int count>
const char* LaunchAddGradient(const RoiPoolShape& shape, const T* pooled_gradient, const int32_t* argmax,
                              typename SumOf<T>::Type* sums, cudaStream_t stream) {
  const int64_t slices = CeilDivide(shape.channels, kLanes<T, count> * count);
  return Launch(Grid(shape.rois, slices, shape.batch), ThreadsForBins(shape.bins(), kLanes<T, count>), stream,
                AddGradientKernel<T, count>, shape, pooled_gradient, argmax, sums);
}

template <typename T, int count>
__global__ void __launch_bounds__(kMaxThreads)
    RoundKernel(int64_t packs, const float* __restrict__ sums, T* __restrict__ values) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += int64_t{gridDim.x} * blockDim.x) {
    StoreStreaming(RoundPack<T>(LoadStreaming<count>(sums + i * count)), values + i * count);
  }
}

template <typename T>
const char* RoundSums(int64_t size, const float* sums, T* values, cudaStream_t stream) {
  const auto launch = [&](auto count) {
    const int64_t packs = size / count();
    return Launch(Grid(CeilDivide(packs, kMaxThreads), 1, 1), kMaxThreads, stream, RoundKernel<T, count()>, packs, sums,
                  values);
  };
  return DispatchPackSize<T>(size, launch, sums, values);
}

// --- in a fixed order ------------------------------------------------------------------------------------------------
// Every cell gathers from the bins that contain it, RoI by RoI. A block processes a few adjacent cells, which often lie
// in the same bins, and as many channels as it has threads for.

constexpr int kCellsPerBlock = 4;
constexpr int kGatherThreads = 128;
constexpr int kGatherMinBlocksPerSm = 4;  // leaves 128 registers per thread, for its sums

// Half-open ranges [begin, end) of rows and columns of bins.
struct BinRange {
  int64_t rows_begin, rows_end, columns_begin, columns_end;
};

// Binary search: the first of `bins` bins for which the monotone predicate `is_past` is true; `bins` if there is none.
template <typename IsPast>
__device__ int64_t FirstBin(int64_t bins, const IsPast& is_past) {
  int64_t low = 0, high = bins;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (is_past(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The bins along one axis of a RoI that contain any of `cells`: an interval, since the edges of bins are monotone.
__device__ void FindBins(float low, float high, float spatial_scale, int64_t bins, int64_t map_size, Span cells,
                         int64_t* begin, int64_t* end) {
  RoiAxis side;
  *begin = *end = 0;
  if (!side.Set(low, high, spatial_scale, bins)) return;
  // Early exit: most RoIs do not contain the cells.
  if (side.Bin(0, map_size).begin >= cells.end || side.Bin(bins - 1, map_size).end <= cells.begin) return;
  *begin = FirstBin(bins, [&](int64_t bin) { return side.Bin(bin, map_size).end > cells.begin; });
  *end = FirstBin(bins, [&](int64_t bin) { return side.Bin(bin, map_size).begin >= cells.end; });
}

__device__ BinRange BinsWithCells(const RoiPoolShape& shape, float spatial_scale, const float* roi, Span rows,
                                  Span columns) {
  BinRange range;
  FindBins(roi[0], roi[2], spatial_scale, shape.output_height, shape.height, rows, &range.rows_begin, &range.rows_end);
  FindBins(roi[1], roi[3], spatial_scale, shape.output_width, shape.width, columns, &range.columns_begin,
           &range.columns_end);
  return range;
}

// The sums of one pack of channels in kCellsPerBlock adjacent cells starting at `first_cell`.
template <typename T, int count>
struct CellSums {
  using Sum = typename SumOf<T>::Type;

  int first_cell;
  Pack<Sum, count> cells[kCellsPerBlock];

  // Adds the terms of one RoI; the pointers are to its first bin.
  __device__ void AddRoi(const RoiPoolShape& shape, const BinRange& range, const T* pooled_gradient,
                         const int32_t* argmax) {
    for (int64_t p = range.rows_begin; p < range.rows_end; ++p) {
      for (int64_t q = range.columns_begin; q < range.columns_end; ++q) {
        const int64_t offset = (p * shape.output_width + q) * shape.channels;
        Add(Load<count>(pooled_gradient + offset), Load<count>(argmax + offset));
      }
    }
  }

 private:
  __device__ void Add(const Pack<T, count>& gradient, const Pack<int32_t, count>& maxima) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const Sum term = ToSum(gradient.values[i]);
#pragma unroll
      for (int k = 0; k < kCellsPerBlock; ++k) {
        if (maxima.values[i] == first_cell + k) cells[k].values[i] += term;
      }
    }
  }
};

// Computes the sums of the block's cells for the pack of channels starting at c. If c is past the last channel, this
// thread only helps to find the bins.
template <typename T, int count>
__device__ void Gather(const RoiPoolShape& shape, float spatial_scale, const T* pooled_gradient, const int32_t* argmax,
                       const float* rois, int64_t image, Span rows, Span columns, int64_t c, CellSums<T, count>* sums) {
  __shared__ BinRange ranges[kGatherThreads];
  const int64_t values_of_roi = shape.bins() * shape.channels;
  for (int64_t first = image * shape.rois, end = first + shape.rois; first < end; first += blockDim.x) {
    const unsigned found = static_cast<unsigned>(min(end - first, int64_t{blockDim.x}));
    if (threadIdx.x < found) {
      const float* roi = rois + (first + threadIdx.x) * 4;
      ranges[threadIdx.x] = BinsWithCells(shape, spatial_scale, roi, rows, columns);
    }
    __syncthreads();
    for (unsigned i = 0; i < found && c < shape.channels; ++i) {
      const int64_t offset = (first + i) * values_of_roi + c;
      sums->AddRoi(shape, ranges[i], pooled_gradient + offset, argmax + offset);
    }
    __syncthreads();
  }
}

// Grid: groups of adjacent cells of one row x blocks of channels x images.
template <typename T, int count>
__global__ void __launch_bounds__(kGatherThreads, kGatherMinBlocksPerSm)
    GatherGradientKernel(RoiPoolShape shape, float spatial_scale, const T* __restrict__ pooled_gradient,
                         const int32_t* __restrict__ argmax, const float* __restrict__ rois,
                         T* __restrict__ features_gradient) {
  const int width = static_cast<int>(shape.width), groups_of_row = (width - 1) / kCellsPerBlock + 1;
  const int64_t groups = shape.height * groups_of_row, channels_of_block = int64_t{blockDim.x} * count;
  for (int64_t image = blockIdx.z; image < shape.batch; image += gridDim.z) {
    for (int64_t group = blockIdx.x; group < groups; group += gridDim.x) {
      const int y = static_cast<int>(group / groups_of_row);
      const int x = static_cast<int>(group % groups_of_row) * kCellsPerBlock;
      const Span rows = {y, y + 1}, columns = {x, min(width - x, kCellsPerBlock) + x};
      for (int64_t from = blockIdx.y * channels_of_block; from < shape.channels;
           from += gridDim.y * channels_of_block) {
        const int64_t c = from + threadIdx.x * count;
        CellSums<T, count> sums = {y * width + x, {}};
        Gather(shape, spatial_scale, pooled_gradient, argmax, rois, image, rows, columns, c, &sums);
        T* to = features_gradient + (image * shape.cells() + sums.first_cell) * shape.channels + c;
#pragma unroll
        for (int k = 0; k < kCellsPerBlock; ++k) {
          if (c < shape.channels && x + k < width) StoreStreaming(RoundPack<T>(sums.cells[k]), to + k * shape.channels);
        }
      }
    }
  }
}

}  // namespace

template <typename T>
const char* RoiPoolGradient(const RoiPoolShape& shape, const T* pooled_gradient, const int32_t* argmax,
                            typename SumOf<T>::Type* sums, T* features_gradient, cudaStream_t stream) {
  using Sum = typename SumOf<T>::Type;
  const int64_t size = shape.batch * shape.cells() * shape.channels;
  if (size == 0) return nullptr;
  if (const char* error = ErrorMessage(cudaMemsetAsync(sums, 0, size * sizeof(Sum), stream))) return error;
  if (shape.rois * shape.bins() != 0) {
    const auto launch = [&](auto count) {
      return LaunchAddGradient<T, count()>(shape, pooled_gradient, argmax, sums, stream);
    };
    if (const char* error = DispatchPackSize<T>(shape.channels, launch, pooled_gradient, argmax)) return error;
  }
  if constexpr (std::is_same_v<T, Sum>) {
    return nullptr;
  } else {
    return RoundSums(size, sums, features_gradient, stream);
  }
}

template <typename T>
const char* DeterministicRoiPoolGradient(const RoiPoolShape& shape, float spatial_scale, const T* pooled_gradient,
                                         const int32_t* argmax, const float* rois, T* features_gradient,
                                         cudaStream_t stream) {
  const int64_t size = shape.batch * shape.cells() * shape.channels;
  if (size == 0) return nullptr;
  if (shape.rois * shape.bins() == 0) {
    return ErrorMessage(cudaMemsetAsync(features_gradient, 0, size * sizeof(T), stream));
  }
  const auto launch = [&](auto count) {
    const int64_t packs = CeilDivide(shape.channels, count());
    const int threads = static_cast<int>(std::min(CeilDivide(packs, kWarp) * kWarp, int64_t{kGatherThreads}));
    const int64_t groups = shape.height * CeilDivide(shape.width, kCellsPerBlock);
    return Launch(Grid(groups, CeilDivide(packs, threads), shape.batch), threads, stream,
                  GatherGradientKernel<T, count()>, shape, spatial_scale, pooled_gradient, argmax, rois,
                  features_gradient);
  };
  return DispatchPackSize<T>(shape.channels, launch, pooled_gradient, argmax, features_gradient);
}

#define TF_FAST_RCNN_INSTANTIATE(T)                                                                        \
  template const char* RoiPoolGradient(const RoiPoolShape&, const T*, const int32_t*, SumOf<T>::Type*, T*, \
                                       cudaStream_t);                                                      \
  template const char* DeterministicRoiPoolGradient(const RoiPoolShape&, float, const T*, const int32_t*,  \
                                                    const float*, T*, cudaStream_t);

TF_FAST_RCNN_INSTANTIATE(float)
TF_FAST_RCNN_INSTANTIATE(double)
TF_FAST_RCNN_INSTANTIATE(Half)
TF_FAST_RCNN_INSTANTIATE(Bfloat16)

#undef TF_FAST_RCNN_INSTANTIATE

}  // namespace cuda
}  // namespace tf_fast_rcnn
