// Selective search for object proposals (Uijlings, van de Sande, Gevers, Smeulders, IJCV 2013), without TensorFlow.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SELECTIVE_SEARCH_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SELECTIVE_SEARCH_H_

#include <cstdint>
#include <vector>

#include "color_spaces.h"
#include "graph_segmentation.h"
#include "grouping.h"
#include "parallel.h"
#include "regions.h"
#include "shrink.h"

namespace tf_fast_rcnn {
namespace selective_search {

// Smaller segments are merged with a neighbour. OpenCV uses 100; a slightly lower value finds more small objects
// without losing large ones.
constexpr int32_t kMinSegment = 90;

// Every colour space is combined with every k, and each combination with every strategy. The values are OpenCV's.
struct Mode {
  std::vector<ColorSpace> spaces;
  std::vector<int32_t> ks;
  std::vector<Strategy> strategies;
};
const Mode& FastMode();
const Mode& QualityMode();

struct Options {
  const Mode* mode = &FastMode();
  int64_t max_boxes = 2000;
  uint64_t seed = 0;
  // Images whose longer side exceeds this are downscaled to it for the search; 0 disables downscaling.
  int64_t max_side = 0;
  // Boxes with a side shorter than this fraction of the image's shorter side are dropped.
  double min_size = 0;
};

// Boxes in pixels of an image of size height x width, the size at which it was searched.
struct Proposals {
  int64_t height, width;
  std::vector<Box> boxes;
};

// Writes boxes [ymin, xmin, ymax, xmax], relative to the image size.
void WriteRelative(const Proposals& proposals, float* boxes);

// The result does not depend on `threads` or `parallel_for`. `threads` limits how many colour spaces are in memory at
// once.
Proposals SelectiveSearch(const RgbImage& image, const Options& options, int threads, const ParallelFor& parallel_for);

// A single segmentation, and a single hierarchy, of an image at its original size.
Segmentation SegmentImage(const RgbImage& image, ColorSpace space, int32_t k, int32_t min_segment);
std::vector<Node> GroupImage(const RgbImage& image, ColorSpace space, int32_t k, int32_t min_segment,
                             const Strategy& strategy);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SELECTIVE_SEARCH_H_
