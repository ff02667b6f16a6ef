// The kernel gradient of depthwise convolutions with the instructions that every CPU has: SSE2 on x86-64, NEON on
// aarch64.

#include "instruction_sets.h"

namespace tf_fast_rcnn {
namespace baseline {

constexpr int kVectorBytes = 16;

#include "filter_gradient-inl.h"

}  // namespace baseline
}  // namespace tf_fast_rcnn
