// Depthwise convolutions and their gradients with the instructions that every CPU has: SSE2 on x86-64, NEON on
// aarch64.

#include "instruction_sets.h"

namespace tf_fast_rcnn {
namespace baseline {

constexpr int kVectorBytes = 16;

template <typename Vector>
inline Vector MultiplyAdd(const Vector& a, const Vector& b, const Vector& c) {
  return a * b + c;
}

#include "convolution-inl.h"
#include "filter_gradient-inl.h"

}  // namespace baseline
}  // namespace tf_fast_rcnn
