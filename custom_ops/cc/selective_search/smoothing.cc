#include "smoothing.h"

#include <algorithm>

#include "vector_loops.h"

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

// Gaussian weights at distances of 0, 1 and 2 pixels, in units of 1 / 128; the variance of the kernel is exactly 0.64.
constexpr int32_t kCenterWeight = 64, kWeight1 = 29, kWeight2 = 3;
constexpr int kRadius = 2;
constexpr int kTaps = 2 * kRadius + 1;

// `padded` holds the row with `kRadius` additional values on each side.
TF_FAST_RCNN_VECTOR_LOOPS
void SmoothRow(const uint8_t* padded, int64_t width, int16_t* smooth) {
  for (int64_t x = 0; x < width; ++x) {
    smooth[x] = static_cast<int16_t>(kCenterWeight * padded[x + 2] + kWeight1 * (padded[x + 1] + padded[x + 3]) +
                                     kWeight2 * (padded[x] + padded[x + 4]));
  }
}

TF_FAST_RCNN_VECTOR_LOOPS
void SmoothColumns(const int16_t* const rows[kTaps], int64_t width, int16_t* smooth) {
  const int16_t *above2 = rows[0], *above = rows[1], *here = rows[2], *below = rows[3], *below2 = rows[4];
  for (int64_t x = 0; x < width; ++x) {
    const int32_t sum = kCenterWeight * here[x] + kWeight1 * (above[x] + below[x]) + kWeight2 * (above2[x] + below2[x]);
    smooth[x] = static_cast<int16_t>((sum + kSmoothUnit / 2) / kSmoothUnit);
  }
}

void SmoothPlane(const uint8_t* plane, int64_t height, int64_t width, int16_t* smooth) {
  std::vector<uint8_t> padded(width + 2 * kRadius);
  std::vector<int16_t> ring(kTaps * width);
  const auto row_of_ring = [&](int64_t y) { return ring.data() + y % kTaps * width; };
  int64_t next = 0;
  for (int64_t y = 0; y < height; ++y) {
    for (; next <= std::min(y + kRadius, height - 1); ++next) {
      const uint8_t* row = plane + next * width;
      std::fill_n(padded.begin(), kRadius, row[0]);
      std::copy_n(row, width, padded.begin() + kRadius);
      std::fill_n(padded.begin() + kRadius + width, kRadius, row[width - 1]);
      SmoothRow(padded.data(), width, row_of_ring(next));
    }
    const int16_t* rows[kTaps];
    for (int64_t i = 0; i < kTaps; ++i) rows[i] = row_of_ring(std::clamp<int64_t>(y + i - kRadius, 0, height - 1));
    SmoothColumns(rows, width, smooth + y * width);
  }
}

}  // namespace

SmoothPlanes Smooth(const Planes& planes) {
  SmoothPlanes smooth = {planes.height, planes.width, planes.channels, std::vector<int16_t>(planes.values.size())};
  for (int64_t channel = 0; channel < planes.channels; ++channel) {
    SmoothPlane(planes.plane(channel), planes.height, planes.width, smooth.values.data() + channel * planes.pixels());
  }
  return smooth;
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn
