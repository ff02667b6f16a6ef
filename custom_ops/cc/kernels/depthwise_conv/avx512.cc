// The kernel gradient of depthwise convolutions for x86-64 CPUs with AVX-512.

#include "instruction_sets.h"

#ifdef __x86_64__

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif
namespace tf_fast_rcnn {
namespace avx512 {

constexpr int kVectorBytes = 64;

#include "filter_gradient-inl.h"

}  // namespace avx512
}  // namespace tf_fast_rcnn

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif  // __x86_64__
