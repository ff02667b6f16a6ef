// Which cells of the feature map belong to which bin of a RoI (Fast R-CNN, section 2.1): the rule that the kernels of
// every device share.

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

// Scaled coordinates are clamped to this many cells on either side of 0, so that every later sum fits an int and the
// portable implementation can list all RoI heights in a table.
constexpr float kMaxCells = 4096.0f;

constexpr int32_t kNoCell = -1;

struct RoiPoolShape {
  int64_t batch, height, width, channels;  // of the features
  int64_t rois;                            // of one image
  int64_t output_height, output_width;

  TF_FAST_RCNN_HOST_DEVICE int64_t cells() const { return height * width; }
  TF_FAST_RCNN_HOST_DEVICE int64_t bins() const { return output_height * output_width; }
};

// Rows or columns [begin, end) of the feature map.
struct Span {
  int begin, end;

  TF_FAST_RCNN_HOST_DEVICE bool empty() const { return end <= begin; }
};

// One product or quotient, rounded by itself: an optimiser that fuses it with a sum moves the edges of bins.
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

// One side of a RoI: its first cell, and the length of a bin in cells.
struct RoiSide {
  int start;
  float step;

  // `low` and `high` are pixels, both included; false where one is NaN.
  TF_FAST_RCNN_HOST_DEVICE bool Set(float low, float high, float spatial_scale, int64_t bins) {
    int end;
    if (!ToCell(low, spatial_scale, &start) || !ToCell(high, spatial_scale, &end)) return false;
    const int length = end < start ? 1 : end - start + 1;
    step = Divide(static_cast<float>(length), static_cast<float>(bins));
    return true;
  }

  // The cells of bin p on a map of fewer than 2^31 rows or columns. The products are float32 and in this order because
  // the original's are: integer arithmetic gives other bins for sides of 57, 114, 121, ... cells.
  TF_FAST_RCNN_HOST_DEVICE Span Bin(int64_t p, int64_t map_size) const {
    const int begin = start + static_cast<int>(floorf(Multiply(static_cast<float>(p), step)));
    const int end = start + static_cast<int>(ceilf(Multiply(static_cast<float>(p + 1), step)));
    return {Clamp(begin, static_cast<int>(map_size)), Clamp(end, static_cast<int>(map_size))};
  }

 private:
  TF_FAST_RCNN_HOST_DEVICE static bool ToCell(float pixel, float spatial_scale, int* cell) {
    const float scaled = Multiply(pixel, spatial_scale);
    if (isnan(scaled)) return false;
    *cell = static_cast<int>(roundf(fminf(fmaxf(scaled, -kMaxCells), kMaxCells)));
    return true;
  }

  TF_FAST_RCNN_HOST_DEVICE static int Clamp(int cell, int map_size) {
    return cell < 0 ? 0 : cell > map_size ? map_size : cell;
  }
};

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_GEOMETRY_H_
