// Downscaling of images that are too large to be searched at full resolution.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SHRINK_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SHRINK_H_

#include <cstdint>
#include <vector>

namespace tf_fast_rcnn {
namespace selective_search {

// An image with interleaved RGB values.
struct RgbImage {
  const uint8_t* values;
  int64_t height, width;
};

// The size that limits the longer side to `max_side`, or the original size if `max_side` is 0. No side becomes shorter
// than 1.
RgbImage FitWithin(const RgbImage& image, int64_t max_side);

// Downscales by averaging over the area of each output pixel, rounded. Neither side may grow.
std::vector<uint8_t> Shrink(const RgbImage& image, int64_t height, int64_t width);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SHRINK_H_
