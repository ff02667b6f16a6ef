// Efficient graph-based image segmentation (Felzenszwalb and Huttenlocher, IJCV 2004) of one colour space.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GRAPH_SEGMENTATION_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GRAPH_SEGMENTATION_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "smoothing.h"

namespace tf_fast_rcnn {
namespace selective_search {

// Edges between pixels and those to their right and below, in the order of their weights and, among equals, of their
// numbers. An edge's weight is the Euclidean distance of its pixels' smoothed colours in units of 1 / kSmoothUnit,
// rounded down. Its number is twice the index of its left or upper pixel, plus 1 if it goes down.
struct SortedEdges {
  int64_t height = 0, width = 0;
  std::vector<uint32_t> numbers;
  // The edges of weight w are numbers[first[w]] to numbers[first[w + 1]].
  std::vector<uint32_t> first;

  int64_t pixels() const { return height * width; }
};

// What the numbers of edges leave room for.
constexpr int64_t kMaxPixels = int64_t{1} << 30;

// All edges of an image.
SortedEdges SortEdges(const SmoothPlanes& smooth);

// Segments while they grow: trees of pixels.
class Forest {
 public:
  explicit Forest(int64_t pixels) : parent_(pixels, -1), last_weight_(pixels, 0) {}

  int32_t Root(int32_t pixel) {
    int32_t parent = parent_[pixel];
    if (parent < 0) return pixel;
    // Path halving: every second pixel on the way is hung to its grandparent.
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

  // Whether the segment differs in itself by at least `weight` - k / size; its last merge had its largest weight. `k`
  // is in units of weights.
  bool Takes(int32_t root, int32_t weight, int64_t k) const {
    return static_cast<int64_t>(weight - last_weight_[root]) * Size(root) <= k;
  }

  // The smaller segment is hung to the larger one, among equals the second to the first.
  void Merge(int32_t a, int32_t b, int32_t weight) {
    if (parent_[a] > parent_[b]) std::swap(a, b);
    parent_[a] += parent_[b];
    parent_[b] = a;
    last_weight_[a] = static_cast<uint16_t>(weight);
  }

 private:
  // Of a root: minus the segment's size.
  std::vector<int32_t> parent_;
  std::vector<uint16_t> last_weight_;
};

// A segmentation under way: segments as they have grown so far, and the edges that are still to be gone through.
struct Growth {
  Forest forest;
  SortedEdges edges;
};

// What is the same for all values of k from the first on: for each k, the growth up to where a larger k may differ from
// it. `ks` ascend.
std::vector<Growth> GrowTogether(SortedEdges edges, const std::vector<int32_t>& ks);

struct Segmentation {
  // The segment of each pixel; segments are numbered in the order of their first pixels.
  std::vector<int32_t> labels;
  int32_t segments = 0;
  // Pairs of segments, the smaller number first, ascending, that have pixels beside or above one another.
  std::vector<std::pair<int32_t, int32_t>> neighbors;
};

// `k` sets the scale: a segment of n pixels takes in what differs by k / n more than it differs in itself. Segments of
// fewer than `min_size` pixels are merged with the neighbour that differs least.
Segmentation SegmentGraph(Growth growth, int32_t k, int32_t min_size);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GRAPH_SEGMENTATION_H_
