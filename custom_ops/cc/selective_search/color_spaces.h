// The colour spaces in which images are segmented, with 8 bits per channel, as in OpenCV.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_COLOR_SPACES_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_COLOR_SPACES_H_

#include <cstdint>
#include <vector>

namespace tf_fast_rcnn {
namespace selective_search {

// Planar channels, each `height` rows of `width` values.
struct Planes {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<uint8_t> values;

  int64_t pixels() const { return height * width; }
  uint8_t* plane(int64_t channel) { return values.data() + channel * pixels(); }
  const uint8_t* plane(int64_t channel) const { return values.data() + channel * pixels(); }
};

enum class ColorSpace {
  kHsv,       // hue in 0..179, saturation and value in 0..255
  kLab,       // CIE 1976 of sRGB with white D65: L * 255 / 100, a + 128, b + 128
  kGray,      // 0.299 R + 0.587 G + 0.114 B
  kHue,       // the hue of kHsv
  kRedGreen,  // R, G and grey
};
constexpr int kColorSpaces = 5;

Planes NewPlanes(int64_t height, int64_t width, int64_t channels);

// Splits interleaved RGB values into three planes.
Planes SplitChannels(const uint8_t* rgb, int64_t height, int64_t width);

Planes ConvertColor(const Planes& rgb, ColorSpace space);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_COLOR_SPACES_H_
