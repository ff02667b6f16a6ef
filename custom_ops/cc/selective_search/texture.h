// Texture of each pixel: Gaussian derivatives in 8 directions per channel (Uijlings et al., IJCV 2013, section 3.2).

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_TEXTURE_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_TEXTURE_H_

#include <cstdint>
#include <vector>

#include "smoothing.h"

namespace tf_fast_rcnn {
namespace selective_search {

constexpr int kTextureBins = 10;
constexpr int kDirections = 8;
// Right, down, down right, down left. A negative derivative along an axis is a positive one in the opposite direction.
constexpr int kAxes = 4;
// A code is the bin of a non-negative derivative, or kTextureBins plus the bin of a negative one.
constexpr int kTextureCodes = 2 * kTextureBins;

// Returns the codes of all pixels for each axis of each channel, [channels, axes, height, width]. The bins of each
// direction and channel have equal width, from 0 to the largest derivative in the image.
//
// Central differences of an image smoothed with sigma 0.8 approximate derivatives of a Gaussian with sigma 1, as in the
// paper. A diagonal derivative is the sum of two, up to a factor that cancels in the division by the largest one.
std::vector<uint8_t> TextureCodes(const SmoothPlanes& smooth);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_TEXTURE_H_
