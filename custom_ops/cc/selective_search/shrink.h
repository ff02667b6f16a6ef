// Shrinking of images too large to be worth searching pixel by pixel.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SHRINK_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SHRINK_H_

#include <cstdint>
#include <vector>

namespace tf_fast_rcnn {
namespace selective_search {

// An image of interleaved R, G, B.
struct RgbImage {
  const uint8_t* values;
  int64_t height, width;
};

// The size at which the longer side is at most `max_side`; unchanged where `max_side` is 0. No side gets shorter
// than 1.
RgbImage SizeWithin(const RgbImage& image, int64_t max_side);

// The means of the areas that the pixels of an image of height x width cover, rounded; neither side may grow.
std::vector<uint8_t> Shrink(const RgbImage& image, int64_t height, int64_t width);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SHRINK_H_
