// Texture of each pixel: Gaussian derivatives in 8 directions for each channel (Uijlings et al., IJCV 2013,
// section 3.2).

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_TEXTURE_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_TEXTURE_H_

#include <cstdint>
#include <vector>

#include "smoothing.h"

namespace tf_fast_rcnn {
namespace selective_search {

constexpr int kTextureBins = 10;
constexpr int kDirections = 8;
// Right, down, down right, down left. A derivative in one of these that is negative is one in the opposite direction.
constexpr int kAxes = 4;
// A code is a bin of a derivative that is positive or 0, or kTextureBins plus the bin of one that is negative.
constexpr int kTextureCodes = 2 * kTextureBins;

// Codes of all pixels for each axis of each channel, axes varying faster. The bins of a direction and channel are of
// equal width, from 0 to the image's largest derivative.
//
// Central differences of what was smoothed with sigma 0.8 are derivatives of a Gaussian of sigma 1, nearly, which is
// the paper's; along a diagonal the derivative is a sum of two, up to a factor that the division by the largest takes
// out.
std::vector<uint8_t> TextureCodes(const SmoothPlanes& smooth);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_TEXTURE_H_
