// Selective search for object proposals (Uijlings, van de Sande, Gevers, Smeulders, IJCV 2013). No TensorFlow here.

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

// Segments of fewer pixels are merged with a neighbour. OpenCV has 100; with a little less small objects are found that
// were lost, at no loss among the large ones.
constexpr int32_t kMinSegment = 90;

// What is combined: every colour space with every k, and these with every strategy. As in OpenCV.
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
  // A larger image is searched at the size at which its longer side is so many pixels; 0: at its own.
  int64_t max_side = 0;
  // Boxes with a side shorter than this are dropped; in units of the image's shorter side.
  double min_size = 0;
};

// Boxes in pixels of an image of height x width, at which it was searched.
struct Proposals {
  int64_t height, width;
  std::vector<Box> boxes;
};

// Boxes over the size: [ymin, xmin, ymax, xmax] each.
void WriteRelative(const Proposals& proposals, float* boxes);

// The same whatever shares the work: `threads` says how many colour spaces are held in memory at a time.
Proposals SelectiveSearch(const RgbImage& image, const Options& options, int threads, const ParallelFor& parallel_for);

// A single segmentation, and a single hierarchy, of an image at its own size.
Segmentation SegmentImage(const RgbImage& image, ColorSpace space, int32_t k, int32_t min_segment);
std::vector<Node> GroupImage(const RgbImage& image, ColorSpace space, int32_t k, int32_t min_segment,
                             const Strategy& strategy);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_SELECTIVE_SEARCH_H_
