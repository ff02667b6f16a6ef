// The library's interface for other languages: functions of C, of which none throws. Python loads it by ctypes
// (tf_fast_rcnn/data/proposals/native_search.py). Images are uint8 [height, width, 3], R, G, B.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <vector>

#include "selective_search.h"

#define TF_FAST_RCNN_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace tf_fast_rcnn::selective_search;

constexpr int kFailed = -1;

// What `function` returns; kFailed where it throws, which only lack of memory or of threads makes it do.
template <typename Function>
int64_t WithoutExceptions(Function function) {
  try {
    return function();
  } catch (const std::exception&) {
    return kFailed;
  }
}

}  // namespace

// Changes with the meaning of any function below.
TF_FAST_RCNN_EXPORT int64_t tf_fast_rcnn_selective_search_version() { return 1; }

// Writes at most `max_boxes` boxes, relative to the image: [ymin, xmin, ymax, xmax] each; their number.
TF_FAST_RCNN_EXPORT int64_t tf_fast_rcnn_selective_search(const uint8_t* image, int64_t height, int64_t width,
                                                          int quality, int64_t max_boxes, uint64_t seed,
                                                          int64_t max_side, double min_size, int threads,
                                                          float* boxes) {
  return WithoutExceptions([&] {
    const Options options = {quality ? &QualityMode() : &FastMode(), max_boxes, seed, max_side, min_size};
    const Proposals found = SelectiveSearch({image, height, width}, options, threads, StartThreads(threads));
    WriteRelative(found, boxes);
    return static_cast<int64_t>(found.boxes.size());
  });
}

// Writes the segment of each pixel; the number of segments. `space` is a ColorSpace.
TF_FAST_RCNN_EXPORT int64_t tf_fast_rcnn_segment(const uint8_t* image, int64_t height, int64_t width, int space, int k,
                                                 int min_segment, int32_t* labels) {
  return WithoutExceptions([&]() -> int64_t {
    const Segmentation found = SegmentImage({image, height, width}, static_cast<ColorSpace>(space), k, min_segment);
    std::copy(found.labels.begin(), found.labels.end(), labels);
    return found.segments;
  });
}

// Writes for each region of a hierarchy its box in pixels (top, left, bottom, right), its level and the regions that
// were merged to it, or -1 twice; the number of regions, which is less than twice that of segments.
TF_FAST_RCNN_EXPORT int64_t tf_fast_rcnn_group(const uint8_t* image, int64_t height, int64_t width, int space, int k,
                                               int min_segment, int color, int texture, int size, int fill,
                                               int32_t* regions) {
  return WithoutExceptions([&] {
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
