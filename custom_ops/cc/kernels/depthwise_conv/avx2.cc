// Depthwise convolutions and their gradients for x86-64 CPUs with AVX2.

#include "instruction_sets.h"

#ifdef __x86_64__

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
namespace tf_fast_rcnn {
namespace avx2 {

constexpr int kVectorBytes = 32;

template <typename Vector>
inline Vector MultiplyAdd(const Vector& a, const Vector& b, const Vector& c) {
  if constexpr (sizeof(Vector) == 32) return _mm256_fmadd_ps(a, b, c);
  if constexpr (sizeof(Vector) == 16) return _mm_fmadd_ps(a, b, c);
  return Vector{__builtin_fmaf(a[0], b[0], c[0])};
}

#include "convolution-inl.h"
#include "filter_gradient-inl.h"

}  // namespace avx2
}  // namespace tf_fast_rcnn

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif  // __x86_64__
