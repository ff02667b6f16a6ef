// The order of the boxes of all hierarchies.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_RANKING_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_RANKING_H_

#include <cstdint>
#include <vector>

#include "regions.h"

namespace tf_fast_rcnn {
namespace selective_search {

// At most `max_boxes` different boxes, those that tend to be whole objects first. As in the paper (section 4.2 there)
// a rank from large to small is multiplied by a random number, so that large regions tend to come first and no scale is
// lost where the list is cut. Then what the paper does not do: boxes that are nearly the same as one before them (IoU
// of 0.9 and more) follow after all others, since the list should show many objects rather than one many times.
// Boxes with a side below `least_side` pixels are left out, without a change of the others' numbers.
std::vector<Box> RankBoxes(std::vector<Box> boxes, uint64_t seed, double least_side, int64_t max_boxes);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_RANKING_H_
