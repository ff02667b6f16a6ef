#include "color_spaces.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "vector_loops.h"

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

TF_FAST_RCNN_VECTOR_LOOPS
void Split(const uint8_t* rgb, int64_t pixels, uint8_t* red, uint8_t* green, uint8_t* blue) {
  for (int64_t i = 0; i < pixels; ++i) {
    red[i] = rgb[3 * i];
    green[i] = rgb[3 * i + 1];
    blue[i] = rgb[3 * i + 2];
  }
}

// Divides small integers with rounding: exact in float, since no quotient is within 1 / 1020 below an integer.
inline int32_t RoundedQuotient(int32_t dividend, int32_t divisor) {
  return static_cast<int32_t>(static_cast<float>(2 * dividend + divisor) / static_cast<float>(2 * divisor));
}

TF_FAST_RCNN_VECTOR_LOOPS
void ToHue(const uint8_t* red, const uint8_t* green, const uint8_t* blue, int64_t pixels, uint8_t* hue) {
  for (int64_t i = 0; i < pixels; ++i) {
    const int32_t r = red[i], g = green[i], b = blue[i];
    const int32_t largest = std::max(r, std::max(g, b)), range = largest - std::min(r, std::min(g, b));
    const int32_t of_blue = r - g + 4 * range, of_green = b - r + 2 * range, of_red = g - b;
    const int32_t sector = largest == r ? of_red : largest == g ? of_green : of_blue;
    // The circle of 6 sectors has 180 steps; negative hues wrap around.
    const int32_t wrapped = sector < 0 ? sector + 6 * range : sector;
    const int32_t steps = RoundedQuotient(30 * wrapped, std::max(range, 1));
    hue[i] = static_cast<uint8_t>(steps == 180 ? 0 : steps);
  }
}

TF_FAST_RCNN_VECTOR_LOOPS
void ToSaturationAndValue(const uint8_t* red, const uint8_t* green, const uint8_t* blue, int64_t pixels,
                          uint8_t* saturation, uint8_t* value) {
  for (int64_t i = 0; i < pixels; ++i) {
    const int32_t r = red[i], g = green[i], b = blue[i];
    const int32_t largest = std::max(r, std::max(g, b)), range = largest - std::min(r, std::min(g, b));
    saturation[i] = static_cast<uint8_t>(RoundedQuotient(255 * range, std::max(largest, 1)));
    value[i] = static_cast<uint8_t>(largest);
  }
}

TF_FAST_RCNN_VECTOR_LOOPS
void ToGray(const uint8_t* red, const uint8_t* green, const uint8_t* blue, int64_t pixels, uint8_t* gray) {
  for (int64_t i = 0; i < pixels; ++i) {
    gray[i] = static_cast<uint8_t>((4899 * red[i] + 9617 * green[i] + 1868 * blue[i] + (1 << 13)) >> 14);
  }
}

// Linear light is in 0..kLight; cube roots are in units of 1 / kRoot.
constexpr int kLightBits = 14;
constexpr int32_t kLight = (1 << kLightBits) - 1;
constexpr int32_t kRoot = 1 << 15;
// Rows: X, Y and Z relative to those of white (D65), from linear red, green and blue. Each row sums to 1 << 14.
constexpr int32_t kXyz[3][3] = {{7110, 6164, 3110}, {3484, 11717, 1183}, {291, 1794, 14299}};

struct LabTables {
  std::array<int32_t, 256> light;
  std::array<int32_t, kLight + 1> root;

  LabTables() {
    for (int i = 0; i < 256; ++i) {
      const double value = i / 255.0;
      const double linear = value <= 0.04045 ? value / 12.92 : std::pow((value + 0.055) / 1.055, 2.4);
      light[i] = static_cast<int32_t>(std::lround(linear * kLight));
    }
    for (int i = 0; i <= kLight; ++i) {
      const double t = static_cast<double>(i) / kLight;
      const double f = t > 216.0 / 24389 ? std::cbrt(t) : (24389.0 / 27 * t + 16) / 116;
      root[i] = static_cast<int32_t>(std::lround(f * kRoot));
    }
  }
};

uint8_t ToByte(int32_t value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

void ToLab(const Planes& rgb, Planes* lab) {
  static const LabTables tables;
  const uint8_t *red = rgb.plane(0), *green = rgb.plane(1), *blue = rgb.plane(2);
  uint8_t *lightness = lab->plane(0), *a = lab->plane(1), *b = lab->plane(2);
  for (int64_t i = 0, pixels = rgb.pixels(); i < pixels; ++i) {
    const int32_t r = tables.light[red[i]], g = tables.light[green[i]], bl = tables.light[blue[i]];
    int32_t root[3];
    for (int row = 0; row < 3; ++row) {
      const int32_t light = (kXyz[row][0] * r + kXyz[row][1] * g + kXyz[row][2] * bl + (1 << 13)) >> 14;
      root[row] = tables.root[light];
    }
    // L = 116 f(Y) - 16, a = 500 (f(X) - f(Y)), b = 200 (f(Y) - f(Z)); adding a half before the shift rounds to
    // nearest.
    lightness[i] = ToByte((2958 * root[1] - 403 * kRoot) / (10 * kRoot));
    a[i] = ToByte((500 * (root[0] - root[1]) + 128 * kRoot + kRoot / 2) >> 15);
    b[i] = ToByte((200 * (root[1] - root[2]) + 128 * kRoot + kRoot / 2) >> 15);
  }
}

}  // namespace

Planes NewPlanes(int64_t height, int64_t width, int64_t channels) {
  return {height, width, channels, std::vector<uint8_t>(height * width * channels)};
}

Planes SplitChannels(const uint8_t* rgb, int64_t height, int64_t width) {
  Planes planes = NewPlanes(height, width, 3);
  Split(rgb, planes.pixels(), planes.plane(0), planes.plane(1), planes.plane(2));
  return planes;
}

Planes ConvertColor(const Planes& rgb, ColorSpace space) {
  const bool one_channel = space == ColorSpace::kGray || space == ColorSpace::kHue;
  Planes planes = NewPlanes(rgb.height, rgb.width, one_channel ? 1 : 3);
  const uint8_t *red = rgb.plane(0), *green = rgb.plane(1), *blue = rgb.plane(2);
  const int64_t pixels = rgb.pixels();
  switch (space) {
    case ColorSpace::kHsv:
      ToSaturationAndValue(red, green, blue, pixels, planes.plane(1), planes.plane(2));
      [[fallthrough]];
    case ColorSpace::kHue:
      ToHue(red, green, blue, pixels, planes.plane(0));
      break;
    case ColorSpace::kLab:
      ToLab(rgb, &planes);
      break;
    case ColorSpace::kRedGreen:
      std::copy_n(red, 2 * pixels, planes.plane(0));
      ToGray(red, green, blue, pixels, planes.plane(2));
      break;
    case ColorSpace::kGray:
      ToGray(red, green, blue, pixels, planes.plane(0));
      break;
  }
  return planes;
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn
