// Gaussian smoothing before segmentation, sigma 0.8 pixels (Felzenszwalb and Huttenlocher, IJCV 2004, section 6).

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SMOOTHING_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SMOOTHING_H_

#include <cstdint>
#include <vector>

#include "color_spaces.h"

namespace tf_fast_rcnn {
namespace selective_search {

// Smoothed values are multiples of 1 / 128: 255 is stored as 32640, and differences fit in 16 bits.
constexpr int kSmoothUnit = 128;

struct SmoothPlanes {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<int16_t> values;

  int64_t pixels() const { return height * width; }
  const int16_t* plane(int64_t channel) const { return values.data() + channel * pixels(); }
};

// Replicates the border.
SmoothPlanes Smooth(const Planes& planes);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SMOOTHING_H_
