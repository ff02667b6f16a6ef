// RoI max pooling for every CPU: SSE2 on x86-64, NEON on aarch64.

#include "roi_pool_levels.h"

namespace tf_fast_rcnn {
namespace baseline {

constexpr int kVectorBytes = 16;

#include "roi_pool_simd.h"

TF_FAST_RCNN_INSTANTIATE_ROI_POOL(float)
TF_FAST_RCNN_INSTANTIATE_ROI_POOL(double)
TF_FAST_RCNN_INSTANTIATE_ROI_POOL(Float16Bits)

}  // namespace baseline
}  // namespace tf_fast_rcnn

