// The order of the boxes of all hierarchies.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_RANKING_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_RANKING_H_

#include <cstdint>
#include <vector>

#include "regions.h"

namespace tf_fast_rcnn {
namespace selective_search {

// Returns up to `max_boxes` distinct boxes, most likely objects first. As in the paper (section 4.2), the rank from
// large to small is multiplied by a random number: large regions tend to come first, and truncating the list removes no
// scale. Unlike in the paper, near-duplicates of an earlier box (IoU of 0.9 or more) are moved to the end, so that the
// list covers many objects rather than one many times. Boxes with a side below `min_side` pixels are dropped; this does
// not change the random numbers of the others.
std::vector<Box> RankBoxes(std::vector<Box> boxes, uint64_t seed, double min_side, int64_t max_boxes);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_RANKING_H_
