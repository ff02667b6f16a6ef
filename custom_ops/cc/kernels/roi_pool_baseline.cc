// RoI max pooling for every CPU: SSE2 on x86-64, NEON on aarch64.

#include "roi_pool_levels.h"

namespace tf_fast_rcnn {
namespace baseline {

constexpr int kVectorBytes = 16;

#include "roi_pool_simd.h"
#include "roi_pool_gradient_simd.h"

TF_FAST_RCNN_INSTANTIATE_LEVEL()

}  // namespace baseline
}  // namespace tf_fast_rcnn

