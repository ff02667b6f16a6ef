// Emulates CUDA's header of this name; see cuda_runtime.h.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_BF16_H_
#define TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_BF16_H_

#include <cmath>
#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
  uint16_t bits;
};

struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 value) {
  const uint32_t bits = uint32_t{value.bits} << 16;
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

// Rounds to nearest, ties to even.
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  if (std::isnan(value)) return {0x7fff};
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline __nv_bfloat162 __hmax2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__bfloat162float(a.x) > __bfloat162float(b.x) ? a.x : b.x,
          __bfloat162float(a.y) > __bfloat162float(b.y) ? a.y : b.y};
}

#endif  // TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_BF16_H_
