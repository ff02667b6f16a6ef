// RoI max pooling on a CUDA device: the forward pass.
//
// The lower bound of its time is writing the output, provided that the cells of a bin, about ten, come from L1. So a
// block pools one RoI for a slice of channels as wide as a cache line, and RoIs are the fastest dimension of the grid:
// all multiprocessors work on the same slice of the same map, and each keeps the part that it has read in L1.

#include "packs.cuh"

namespace tf_fast_rcnn {
namespace cuda {
namespace {

constexpr int kMinBlocksPerSm = 4;  // leaves 64 registers per thread

// The number of rows and columns of bins whose edges a block keeps in shared memory at a time: nearly always all of
// them.
constexpr int kTileSize = 64;

// The edges of a tile of a RoI's bins. Computed once per block: if every thread computed its own, that would cost as
// much as the pooling.
struct BinEdges {
  Span rows[kTileSize], columns[kTileSize];

  // Called by all threads of the block, for the bins from (p, q) on.
  __device__ void Set(const RoiPoolShape& shape, float spatial_scale, const float* roi, int64_t p, int64_t q) {
    SetAxis(roi[0], roi[2], spatial_scale, p, shape.output_height, shape.height, rows);
    SetAxis(roi[1], roi[3], spatial_scale, q, shape.output_width, shape.width, columns);
  }

 private:
  __device__ static void SetAxis(float low, float high, float spatial_scale, int64_t first, int64_t bins,
                                 int64_t map_size, Span* spans) {
    RoiAxis side;
    const bool is_number = side.Set(low, high, spatial_scale, bins);
    for (int64_t i = threadIdx.x; i < kTileSize && first + i < bins; i += blockDim.x) {
      spans[i] = is_number ? side.Bin(first + i, map_size) : Span{0, 0};
    }
  }
};

// One pack of channels of a feature map.
template <typename T>
struct Channels {
  const T* cell_0;
  int64_t row_stride, cell_stride;

  __device__ const T* Cell(int y, int x) const { return cell_0 + y * row_stride + x * cell_stride; }
};

// The maxima over a non-empty bin. Unrolling keeps several loads in flight.
template <int count, typename T>
__device__ Pack<T, count> MaxOfBin(const Channels<T>& channels, Span rows, Span columns) {
  const T* row = channels.Cell(rows.begin, columns.begin);
  auto best = Load<count>(row);
  for (int y = rows.begin; y < rows.end; ++y, row += channels.row_stride) {
    const T* cell = row;
#pragma unroll 4
    for (int x = columns.begin; x < columns.end; ++x, cell += channels.cell_stride) {
      best = MaxPacks(best, Load<count>(cell));
    }
  }
  return best;
}

// As MaxOfBin, and the cell of each maximum: the first in row-major order if several are equal.
template <int count, typename T>
__device__ Pack<T, count> ArgmaxOfBin(const Channels<T>& channels, int width, Span rows, Span columns,
                                      Pack<int32_t, count>* best_cells) {
  decltype(Ordered(T())) best[count];
  const T* row = channels.Cell(rows.begin, columns.begin);
  const auto first = Load<count>(row);
#pragma unroll
  for (int i = 0; i < count; ++i) best[i] = Ordered(first.values[i]);
  *best_cells = Broadcast<count>(rows.begin * width + columns.begin);
  for (int y = rows.begin; y < rows.end; ++y, row += channels.row_stride) {
    const T* cell = row;
#pragma unroll 4
    for (int x = columns.begin; x < columns.end; ++x, cell += channels.cell_stride) {
      const auto values = Load<count>(cell);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        const bool greater = Ordered(values.values[i]) > best[i];
        best[i] = greater ? Ordered(values.values[i]) : best[i];
        best_cells->values[i] = greater ? y * width + x : best_cells->values[i];
      }
    }
  }
  Pack<T, count> maxima;
#pragma unroll
  for (int i = 0; i < count; ++i) maxima.values[i] = FromOrdered<T>::Value(best[i]);
  return maxima;
}

// Pools one pack of channels of one bin. `argmax` is unused if with_argmax is false.
template <bool with_argmax, int count, typename T>
__device__ void PoolBin(const Channels<T>& channels, int width, Span rows, Span columns, T* pooled, int32_t* argmax) {
  if (rows.empty() || columns.empty()) {
    StoreStreaming(Broadcast<count>(T{}), pooled);
    if (with_argmax) StoreStreaming(Broadcast<count>(kNoCell), argmax);
  } else if (with_argmax) {
    Pack<int32_t, count> cells;
    StoreStreaming(ArgmaxOfBin<count>(channels, width, rows, columns, &cells), pooled);
    StoreStreaming(cells, argmax);
  } else {
    StoreStreaming(MaxOfBin<count>(channels, rows, columns), pooled);
  }
}

// The inputs and outputs of one RoI.
template <typename T>
struct Roi {
  const T* map;
  T* pooled;
  int32_t* argmax;
};

// Pools the block's slice of channels for a tile of bins starting at (p, q); each group of kLanes threads processes one
// bin at a time.
template <typename T, int count, bool with_argmax>
__device__ void PoolTile(const RoiPoolShape& shape, const BinEdges& edges, int64_t p, int64_t q, const Roi<T>& roi) {
  constexpr unsigned kBinThreads = kLanes<T, count>;
  const unsigned tile_rows = static_cast<unsigned>(min(shape.output_height - p, int64_t{kTileSize}));
  const unsigned tile_columns = static_cast<unsigned>(min(shape.output_width - q, int64_t{kTileSize}));
  const int64_t lane = int64_t{blockIdx.y} * kBinThreads + threadIdx.x % kBinThreads;
  for (int64_t c = lane * count; c < shape.channels; c += int64_t{gridDim.y} * kBinThreads * count) {
    const Channels<T> channels = {roi.map + c, shape.width * shape.channels, shape.channels};
    for (unsigned bin = threadIdx.x / kBinThreads; bin < tile_rows * tile_columns; bin += blockDim.x / kBinThreads) {
      const unsigned row = bin / tile_columns, column = bin - row * tile_columns;
      const int64_t offset = ((p + row) * shape.output_width + q + column) * shape.channels + c;
      PoolBin<with_argmax, count>(channels, static_cast<int>(shape.width), edges.rows[row], edges.columns[column],
                                  roi.pooled + offset, with_argmax ? roi.argmax + offset : nullptr);
    }
  }
}

// Grid: RoIs of an image x slices of channels x images.
template <typename T, int count, bool with_argmax>
__global__ void __launch_bounds__(kMaxThreads, kMinBlocksPerSm)
    RoiPoolKernel(RoiPoolShape shape, float spatial_scale, const T* __restrict__ features,
                  const float* __restrict__ rois, T* __restrict__ pooled, int32_t* __restrict__ argmax) {
  __shared__ BinEdges edges;
  const int64_t values_of_roi = shape.bins() * shape.channels;
  for (int64_t image = blockIdx.z; image < shape.batch; image += gridDim.z) {
    for (int64_t r = blockIdx.x; r < shape.rois; r += gridDim.x) {
      const int64_t i = image * shape.rois + r;
      const Roi<T> roi = {features + image * shape.cells() * shape.channels, pooled + i * values_of_roi,
                          with_argmax ? argmax + i * values_of_roi : nullptr};
      for (int64_t p = 0; p < shape.output_height; p += kTileSize) {
        for (int64_t q = 0; q < shape.output_width; q += kTileSize) {
          edges.Set(shape, spatial_scale, rois + i * 4, p, q);
          __syncthreads();
          PoolTile<T, count, with_argmax>(shape, edges, p, q, roi);
          __syncthreads();
        }
      }
    }
  }
}

template <typename T, int count, bool with_argmax>
const char* LaunchRoiPool(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois,
                          T* pooled, int32_t* argmax, cudaStream_t stream) {
  const int64_t slices = CeilDivide(shape.channels, kLanes<T, count> * count);
  return Launch(Grid(shape.rois, slices, shape.batch), ThreadsForBins(shape.bins(), kLanes<T, count>), stream,
                RoiPoolKernel<T, count, with_argmax>, shape, spatial_scale, features, rois, pooled, argmax);
}

}  // namespace

template <typename T>
const char* RoiPool(const RoiPoolShape& shape, float spatial_scale, const T* features, const float* rois, T* pooled,
                    int32_t* argmax, cudaStream_t stream) {
  if (shape.batch * shape.rois * shape.bins() * shape.channels == 0) return nullptr;
  const auto launch = [&](auto count) {
    const auto launch_roi_pool = argmax == nullptr ? LaunchRoiPool<T, count(), false> : LaunchRoiPool<T, count(), true>;
    return launch_roi_pool(shape, spatial_scale, features, rois, pooled, argmax, stream);
  };
  return DispatchPackSize<T>(shape.channels, launch, features, pooled, argmax);
}

#define TF_FAST_RCNN_INSTANTIATE(T) \
  template const char* RoiPool(const RoiPoolShape&, float, const T*, const float*, T*, int32_t*, cudaStream_t);

TF_FAST_RCNN_INSTANTIATE(float)
TF_FAST_RCNN_INSTANTIATE(double)
TF_FAST_RCNN_INSTANTIATE(Half)
TF_FAST_RCNN_INSTANTIATE(Bfloat16)

#undef TF_FAST_RCNN_INSTANTIATE

int RuntimeVersion() { return CUDART_VERSION; }

int DriverVersion() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace cuda
}  // namespace tf_fast_rcnn
