// Maps RoIs to the feature-map cells of their bins (Fast R-CNN, section 2.1). Shared by the kernels of every device.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_GEOMETRY_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_GEOMETRY_H_

#include <math.h>

#include <cstdint>

#ifdef __CUDACC__
#define TF_FAST_RCNN_HOST_DEVICE __host__ __device__
#else
#define TF_FAST_RCNN_HOST_DEVICE
#endif

namespace tf_fast_rcnn {

// Scaled coordinates are clamped to +-kMaxCoordinate cells, so that every later sum fits in an int and the portable
// implementation can list all RoI heights in a table.
constexpr float kMaxCoordinate = 4096.0f;

// The argmax of an empty bin.
constexpr int32_t kNoCell = -1;

struct RoiPoolShape {
  int64_t batch, height, width, channels;  // of the features, [B, H, W, C]
  int64_t rois;                            // per image
  int64_t output_height, output_width;

  TF_FAST_RCNN_HOST_DEVICE int64_t cells() const { return height * width; }
  TF_FAST_RCNN_HOST_DEVICE int64_t bins() const { return output_height * output_width; }
};

// A half-open range [begin, end) of rows or columns of the feature map.
struct Span {
  int begin, end;

  TF_FAST_RCNN_HOST_DEVICE bool empty() const { return end <= begin; }
};

// Multiply and Divide round once, to float32: fusing the product with a following sum would move the edges of bins.
TF_FAST_RCNN_HOST_DEVICE inline float Multiply(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;  // compiled with -ffp-contract=off
#endif
}

TF_FAST_RCNN_HOST_DEVICE inline float Divide(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

// A RoI along one axis: its first cell, and the size of a bin in cells.
struct RoiAxis {
  int start = 0;
  float step = 0;

  // `low` and `high` are the first and last pixel, both inclusive. Returns false if either is NaN.
  TF_FAST_RCNN_HOST_DEVICE bool Set(float low, float high, float spatial_scale, int64_t bins) {
    int end;
    if (!ToCell(low, spatial_scale, &start) || !ToCell(high, spatial_scale, &end)) return false;
    const int length = end < start ? 1 : end - start + 1;
    step = Divide(static_cast<float>(length), static_cast<float>(bins));
    return true;
  }

  // The cells of bin p, clipped to the map, which has fewer than 2^31 rows or columns. The float32 products and their
  // order are those of the original implementation: integer arithmetic gives different bins for lengths of 57, 114,
  // 121, ... cells.
  TF_FAST_RCNN_HOST_DEVICE Span Bin(int64_t p, int64_t map_size) const {
    const int begin = start + static_cast<int>(floorf(Multiply(static_cast<float>(p), step)));
    const int end = start + static_cast<int>(ceilf(Multiply(static_cast<float>(p + 1), step)));
    return {Clamp(begin, static_cast<int>(map_size)), Clamp(end, static_cast<int>(map_size))};
  }

 private:
  TF_FAST_RCNN_HOST_DEVICE static bool ToCell(float pixel, float spatial_scale, int* cell) {
    const float scaled = Multiply(pixel, spatial_scale);
    if (isnan(scaled)) return false;
    *cell = static_cast<int>(roundf(fminf(fmaxf(scaled, -kMaxCoordinate), kMaxCoordinate)));
    return true;
  }

  TF_FAST_RCNN_HOST_DEVICE static int Clamp(int cell, int map_size) {
    return cell < 0 ? 0 : cell > map_size ? map_size : cell;
  }
};

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_GEOMETRY_H_
