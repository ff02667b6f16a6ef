#include "shrink.h"

#include <algorithm>

#include "vector_loops.h"

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

constexpr int64_t kChannels = 3;

// Calls visit(from, to, weight) for each overlap of a source pixel with a destination pixel along one axis. The axis is
// divided into from_size * to_size units: the weights of each destination pixel sum to `from_size`.
template <typename Visit>
void VisitOverlaps(int64_t from_size, int64_t to_size, Visit visit) {
  for (int64_t from = 0, to = 0, at = 0; from < from_size;) {
    const int64_t end = std::min((from + 1) * to_size, (to + 1) * from_size);
    visit(from, to, end - at);
    at = end;
    if (at == (from + 1) * to_size) ++from;
    if (at == (to + 1) * from_size) ++to;
  }
}

TF_FAST_RCNN_VECTOR_LOOPS
void AddWeighted(const uint32_t* values, int64_t count, uint64_t weight, uint64_t* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += weight * values[i];
}

}  // namespace

RgbImage FitWithin(const RgbImage& image, int64_t max_side) {
  const int64_t longer = std::max(image.height, image.width);
  if (max_side == 0 || longer <= max_side) return image;
  const auto shrunk = [&](int64_t side) { return std::max<int64_t>(1, (2 * side * max_side + longer) / (2 * longer)); };
  return {nullptr, shrunk(image.height), shrunk(image.width)};
}

std::vector<uint8_t> Shrink(const RgbImage& image, int64_t height, int64_t width) {
  const int64_t row_size = width * kChannels;
  const uint64_t area = static_cast<uint64_t>(image.height) * image.width;
  std::vector<uint32_t> row(row_size);
  std::vector<uint64_t> sums(row_size);
  std::vector<uint8_t> shrunk(height * row_size);
  int64_t row_done = -1;
  VisitOverlaps(image.height, height, [&](int64_t from_y, int64_t to_y, int64_t rows) {
    if (from_y != row_done) {
      std::fill(row.begin(), row.end(), 0);
      const uint8_t* values = image.values + from_y * image.width * kChannels;
      VisitOverlaps(image.width, width, [&](int64_t from_x, int64_t to_x, int64_t columns) {
        for (int64_t c = 0; c < kChannels; ++c) {
          row[to_x * kChannels + c] += static_cast<uint32_t>(columns) * values[from_x * kChannels + c];
        }
      });
      row_done = from_y;
    }
    AddWeighted(row.data(), row_size, rows, sums.data());
    const bool is_last = (from_y + 1) * height >= (to_y + 1) * image.height;
    if (!is_last) return;
    for (int64_t i = 0; i < row_size; ++i) {
      shrunk[to_y * row_size + i] = static_cast<uint8_t>((sums[i] + area / 2) / area);
      sums[i] = 0;
    }
  });
  return shrunk;
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn
