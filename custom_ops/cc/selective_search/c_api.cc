// C interface of the library; no function throws. Python calls it through ctypes
// (tf_fast_rcnn/data/proposals/native_search.py). Images are uint8 [height, width, 3], RGB.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <vector>

#include "selective_search.h"

#define TF_FAST_RCNN_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace tf_fast_rcnn::selective_search;

constexpr int kFailed = -1;

// Returns the result of `function`, or kFailed if it throws, which happens only if memory or threads run out.
template <typename Function>
int64_t ReturnFailureOnException(Function function) {
  try {
    return function();
  } catch (const std::exception&) {
    return kFailed;
  }
}

}  // namespace

// Incremented when the meaning of any function below changes.
TF_FAST_RCNN_EXPORT int64_t tf_fast_rcnn_selective_search_version() { return 1; }

// Writes up to `max_boxes` boxes [ymin, xmin, ymax, xmax], relative to the image; returns their number.
TF_FAST_RCNN_EXPORT int64_t tf_fast_rcnn_selective_search(const uint8_t* image, int64_t height, int64_t width,
                                                          int quality, int64_t max_boxes, uint64_t seed,
                                                          int64_t max_side, double min_size, int threads,
                                                          float* boxes) {
  return ReturnFailureOnException([&] {
    const Options options = {quality ? &QualityMode() : &FastMode(), max_boxes, seed, max_side, min_size};
    const Proposals found = SelectiveSearch({image, height, width}, options, threads, StartThreads(threads));
    WriteRelative(found, boxes);
    return static_cast<int64_t>(found.boxes.size());
  });
}

// Writes the segment index of each pixel; returns the number of segments. `space` is a ColorSpace.
TF_FAST_RCNN_EXPORT int64_t tf_fast_rcnn_segment(const uint8_t* image, int64_t height, int64_t width, int space, int k,
                                                 int min_segment, int32_t* labels) {
  return ReturnFailureOnException([&]() -> int64_t {
    const Segmentation found = SegmentImage({image, height, width}, static_cast<ColorSpace>(space), k, min_segment);
    std::copy(found.labels.begin(), found.labels.end(), labels);
    return found.segments;
  });
}

// Writes seven values per region of a hierarchy: its box in pixels (top, left, bottom, right), its level and the two
// regions that were merged into it (-1, -1 for a segment). Returns the number of regions, which is less than twice the
// number of segments.
TF_FAST_RCNN_EXPORT int64_t tf_fast_rcnn_group(const uint8_t* image, int64_t height, int64_t width, int space, int k,
                                               int min_segment, int color, int texture, int size, int fill,
                                               int32_t* regions) {
  return ReturnFailureOnException([&] {
    const Strategy strategy = {color != 0, texture != 0, size != 0, fill != 0};
    const std::vector<Node> nodes =
        GroupImage({image, height, width}, static_cast<ColorSpace>(space), k, min_segment, strategy);
    for (const Node& node : nodes) {
      for (const int32_t value :
           {node.box.top, node.box.left, node.box.bottom, node.box.right, node.level, node.first, node.second}) {
        *regions++ = value;
      }
    }
    return static_cast<int64_t>(nodes.size());
  });
}
