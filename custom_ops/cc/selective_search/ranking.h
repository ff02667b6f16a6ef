// The order of the boxes of all hierarchies.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_RANKING_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_RANKING_H_

#include <cstdint>
#include <vector>

#include "regions.h"

namespace tf_fast_rcnn {
namespace selective_search {

// A region's box and its place in its hierarchy, 1 for the whole image.
struct PlacedBox {
  Box box;
  int32_t place;
};

// At most `max_boxes` different boxes, those that tend to be whole objects first. As in the paper (section 4.2 there)
// a place is multiplied by a random number, and the box that several hierarchies found has the least of their products:
// large regions tend to come first, as does what is found often, and no scale is lost where the list is cut. Then what
// the paper does not do: boxes that are nearly the same as one before them (IoU of 0.85 and more) follow after all
// others, since the list should show many objects rather than one many times.
// Boxes with a side below `least_side` pixels are left out, without a change of the others' numbers.
std::vector<Box> RankBoxes(const std::vector<PlacedBox>& boxes, uint64_t seed, double least_side, int64_t max_boxes);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_RANKING_H_
