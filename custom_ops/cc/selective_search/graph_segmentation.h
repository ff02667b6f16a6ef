// Efficient graph-based image segmentation (Felzenszwalb and Huttenlocher, IJCV 2004) of one colour space.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GRAPH_SEGMENTATION_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GRAPH_SEGMENTATION_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "smoothing.h"

namespace tf_fast_rcnn {
namespace selective_search {

// The edges between each pixel and the pixels to its right and below, sorted by weight and then by number. The weight
// of an edge is the Euclidean distance between the smoothed colours of its pixels, in units of 1 / kSmoothUnit, rounded
// down. Its number is twice the index of its left or upper pixel, plus 1 for a vertical edge.
struct SortedEdges {
  int64_t height = 0, width = 0;
  std::vector<uint32_t> numbers;
  // The edges of weight w are numbers[first[w]] to numbers[first[w + 1] - 1].
  std::vector<uint32_t> first;

  int64_t pixels() const { return height * width; }
};

// The largest image whose edge numbers fit in 32 bits.
constexpr int64_t kMaxPixels = int64_t{1} << 30;

// Returns all edges of an image.
SortedEdges SortEdges(const SmoothPlanes& smooth);

// Union-find over pixels; each tree is a segment.
class Forest {
 public:
  explicit Forest(int64_t pixels) : parent_(pixels, -1), last_weight_(pixels, 0) {}

  int32_t Root(int32_t pixel) {
    int32_t parent = parent_[pixel];
    if (parent < 0) return pixel;
    // Path halving: links every second pixel on the path to its grandparent.
    for (int32_t grandparent; (grandparent = parent_[parent]) >= 0;) {
      parent_[pixel] = grandparent;
      pixel = grandparent;
      if ((parent = parent_[pixel]) < 0) return pixel;
    }
    return parent;
  }

  int32_t Size(int32_t root) const { return -parent_[root]; }
  uint16_t LastWeight(int32_t root) const { return last_weight_[root]; }
  void SetLastWeight(int32_t root, uint16_t weight) { last_weight_[root] = weight; }

  // Returns whether the segment tolerates an edge of this weight: `weight` <= its internal difference + k / size. Its
  // internal difference is the weight of its last merge, the largest so far. `k` is in units of weights.
  bool Accepts(int32_t root, int32_t weight, int64_t k) const {
    return static_cast<int64_t>(weight - last_weight_[root]) * Size(root) <= k;
  }

  // Links the smaller segment to the larger one; if they are equal, the second to the first.
  void Merge(int32_t a, int32_t b, int32_t weight) {
    if (parent_[a] > parent_[b]) std::swap(a, b);
    parent_[a] += parent_[b];
    parent_[b] = a;
    last_weight_[a] = static_cast<uint16_t>(weight);
  }

 private:
  // The parent of a pixel, or minus the segment's size for a root.
  std::vector<int32_t> parent_;
  std::vector<uint16_t> last_weight_;
};

// A segmentation in progress: the segments so far, and the edges that remain to be processed.
struct Growth {
  Forest forest;
  SortedEdges edges;
};

// Shares the work between several values of k: for each k, returns the segmentation up to where a larger k may differ
// from it. `ks` must be ascending.
std::vector<Growth> GrowTogether(SortedEdges edges, const std::vector<int32_t>& ks);

struct Segmentation {
  // The segment of each pixel. Segments are numbered in the order of their first pixels.
  std::vector<int32_t> labels;
  int32_t segments = 0;
  // Sorted pairs of adjacent segments (4-connectivity), the smaller number first.
  std::vector<std::pair<int32_t, int32_t>> neighbors;
};

// `k` sets the scale: a segment of n pixels merges along edges up to k / n above its internal difference. Segments of
// fewer than `min_size` pixels are merged with the neighbour that differs least.
Segmentation SegmentGraph(Growth growth, int32_t k, int32_t min_size);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GRAPH_SEGMENTATION_H_
