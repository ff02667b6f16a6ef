// The regions of a segmentation as the grouping needs them: sizes, boxes, histograms and neighbours.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_REGIONS_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_REGIONS_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "color_spaces.h"
#include "graph_segmentation.h"

namespace tf_fast_rcnn {
namespace selective_search {

// Half-open in pixels: rows [top, bottom) and columns [left, right). A default-constructed box is empty.
struct Box {
  int32_t top = std::numeric_limits<int32_t>::max(), left = top, bottom = 0, right = 0;

  int64_t area() const { return static_cast<int64_t>(bottom - top) * (right - left); }
  bool operator==(const Box& other) const {
    return top == other.top && left == other.left && bottom == other.bottom && right == other.right;
  }
};

inline Box Union(const Box& a, const Box& b) {
  return {std::min(a.top, b.top), std::min(a.left, b.left), std::max(a.bottom, b.bottom), std::max(a.right, b.right)};
}

constexpr int kColorBins = 25;

// A histogram of a region's pixels: kColorBins colour bins per channel, then kTextureBins derivative bins for each of
// kDirections directions per channel.
struct HistogramLayout {
  int64_t channels;

  int64_t color() const { return channels * kColorBins; }
  int64_t texture() const;
  int64_t bins() const { return color() + texture(); }
};

struct Regions {
  int64_t pixels = 0;
  HistogramLayout layout = {0};
  std::vector<int32_t> sizes;
  std::vector<Box> boxes;
  std::vector<uint32_t> counts;  // [regions, bins]
  std::vector<std::pair<int32_t, int32_t>> neighbors;
};

// Returns the regions of several segmentations of one image, whose pixels are counted once for all of them. `codes` are
// TextureCodes. Takes the segmentations by value and frees their labels, which are large.
std::vector<Regions> DescribeRegions(const Planes& planes, const std::vector<uint8_t>& codes,
                                     std::vector<Segmentation> segmentations);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_REGIONS_H_
