// Emulates CUDA's header of this name; see cuda_runtime.h.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_FP16_H_
#define TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_FP16_H_

using __half = _Float16;

struct __half2 {
  __half x, y;
};

inline float __half2float(__half value) { return static_cast<float>(value); }
inline __half __float2half_rn(float value) { return static_cast<__half>(value); }

inline __half2 __hmax2(__half2 a, __half2 b) { return {a.x > b.x ? a.x : b.x, a.y > b.y ? a.y : b.y}; }

#endif  // TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_FP16_H_
