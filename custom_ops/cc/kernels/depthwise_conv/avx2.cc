// The kernel gradient of depthwise convolutions for x86-64 CPUs with AVX2.

#include "instruction_sets.h"

#ifdef __x86_64__

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
namespace tf_fast_rcnn {
namespace avx2 {

constexpr int kVectorBytes = 32;

#include "filter_gradient-inl.h"

}  // namespace avx2
}  // namespace tf_fast_rcnn

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif  // __x86_64__
