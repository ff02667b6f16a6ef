// Hierarchical grouping of regions (Uijlings et al., IJCV 2013, section 3).

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GROUPING_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GROUPING_H_

#include <cstdint>
#include <vector>

#include "regions.h"

namespace tf_fast_rcnn {
namespace selective_search {

// The similarities that are added up, each in [0, 1].
struct Strategy {
  bool color, texture, size, fill;
};

// A region of the hierarchy: a segment, or the union of two regions.
struct Node {
  Box box;
  int32_t level;       // 1 for segments, otherwise 1 + the higher level of the two merged regions
  int32_t first = -1;  // the merged regions, the smaller number first; -1 for segments
  int32_t second = -1;
};

// Repeatedly merges the most similar pair of neighbours (in ties, the pair with the smallest numbers) until none are
// left. Segments come first and keep their numbers; merged regions follow in the order of merging.
std::vector<Node> GroupRegions(const Regions& regions, const Strategy& strategy);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GROUPING_H_
