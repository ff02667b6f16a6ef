// Hierarchical grouping of regions (Uijlings et al., IJCV 2013, section 3).

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GROUPING_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GROUPING_H_

#include <cstdint>
#include <vector>

#include "regions.h"

namespace tf_fast_rcnn {
namespace selective_search {

// The similarities that are added up, each from 0 to 1.
struct Strategy {
  bool color, texture, size, fill;
};

// A region of the hierarchy: a segment, or what two regions were merged to.
struct Node {
  Box box;
  int32_t level;       // 1 for segments, one more than the higher of the two that were merged
  int32_t first = -1;  // the two, by their numbers, the smaller first; -1 for segments
  int32_t second = -1;
};

// Merges the two neighbours that are most similar, among equals those of the smallest numbers, until none are left.
// Segments come first and keep their numbers; then each merged region, in the order in which they were made.
std::vector<Node> GroupRegions(const Regions& regions, const Strategy& strategy);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_GROUPING_H_
