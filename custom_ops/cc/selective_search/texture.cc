#include "texture.h"

#include <algorithm>

#include "vector_loops.h"

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

// A row of derivatives along each axis.
struct Derivatives {
  explicit Derivatives(int64_t width) : values(kAxes * width), width(width) {}
  int32_t* axis(int64_t number) { return values.data() + number * width; }

  std::vector<int32_t> values;
  int64_t width;
};

TF_FAST_RCNN_VECTOR_LOOPS
void Differentiate(const int16_t* above, const int16_t* below, const int16_t* left, const int16_t* right, int64_t count,
                   int32_t* x, int32_t* y, int32_t* falling, int32_t* rising) {
  for (int64_t i = 0; i < count; ++i) {
    x[i] = right[i] - left[i];
    y[i] = below[i] - above[i];
    falling[i] = y[i] + x[i];
    rising[i] = y[i] - x[i];
  }
}

TF_FAST_RCNN_VECTOR_LOOPS
void UpdateExtremes(const int32_t* values, int64_t count, int32_t* least, int32_t* largest) {
  int32_t low = *least, high = *largest;
  for (int64_t i = 0; i < count; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  *least = low;
  *largest = high;
}

// Products with derivatives up to the largest one stay below kTextureBins << kScaleBits, which fits in 31 bits.
constexpr int kScaleBits = 27;

int32_t Scale(int32_t largest) { return (kTextureBins << kScaleBits) / (largest + 1); }

TF_FAST_RCNN_VECTOR_LOOPS
void Encode(const int32_t* values, int64_t count, int32_t scale_of_negative, int32_t scale_of_positive,
            uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    const bool negative = values[i] < 0;
    const int32_t size = negative ? -values[i] : values[i];
    const int32_t bin = (size * (negative ? scale_of_negative : scale_of_positive)) >> kScaleBits;
    codes[i] = static_cast<uint8_t>(negative ? kTextureBins + bin : bin);
  }
}

// One channel of an image, with replicated borders.
class Channel {
 public:
  Channel(const int16_t* plane, int64_t height, int64_t width)
      : plane_(plane), height_(height), width_(width), padded_(width + 2) {}

  void DifferentiateRow(int64_t y, Derivatives* row) {
    const int16_t* here = Row(y);
    padded_.front() = here[0];
    std::copy_n(here, width_, padded_.begin() + 1);
    padded_.back() = here[width_ - 1];
    Differentiate(Row(std::max<int64_t>(y - 1, 0)), Row(std::min(y + 1, height_ - 1)), padded_.data(),
                  padded_.data() + 2, width_, row->axis(0), row->axis(1), row->axis(2), row->axis(3));
  }

 private:
  const int16_t* Row(int64_t y) const { return plane_ + y * width_; }

  const int16_t* plane_;
  int64_t height_, width_;
  std::vector<int16_t> padded_;
};

void EncodeChannel(Channel channel, int64_t height, int64_t width, uint8_t* codes) {
  Derivatives row(width);
  int32_t least[kAxes] = {}, largest[kAxes] = {};
  for (int64_t y = 0; y < height; ++y) {
    channel.DifferentiateRow(y, &row);
    for (int axis = 0; axis < kAxes; ++axis) UpdateExtremes(row.axis(axis), width, &least[axis], &largest[axis]);
  }
  for (int64_t y = 0; y < height; ++y) {
    channel.DifferentiateRow(y, &row);
    for (int axis = 0; axis < kAxes; ++axis) {
      uint8_t* of_row = codes + (axis * height + y) * width;
      Encode(row.axis(axis), width, Scale(-least[axis]), Scale(largest[axis]), of_row);
    }
  }
}

}  // namespace

std::vector<uint8_t> TextureCodes(const SmoothPlanes& smooth) {
  const int64_t of_channel = kAxes * smooth.pixels();
  std::vector<uint8_t> codes(smooth.channels * of_channel);
  for (int64_t channel = 0; channel < smooth.channels; ++channel) {
    EncodeChannel(Channel(smooth.plane(channel), smooth.height, smooth.width), smooth.height, smooth.width,
                  codes.data() + channel * of_channel);
  }
  return codes;
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn
