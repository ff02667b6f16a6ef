// Packs: adjacent channels that one thread processes together, 16 bytes or a single value. Loading, storing, comparing
// and launching kernels over them.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CUDA_PACKS_CUH_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CUDA_PACKS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <string.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "roi_pool.h"

namespace tf_fast_rcnn {
namespace cuda {

template <typename To, typename From>
__device__ inline To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "both types must have the same size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

template <typename T, int count>
struct Pack {
  T values[count];
};

// --- memory ----------------------------------------------------------------------------------------------------------

// The type that a single instruction loads or stores.
template <int bytes>
struct WordOf;
template <>
struct WordOf<2> {
  using Type = unsigned short;
};
template <>
struct WordOf<4> {
  using Type = unsigned int;
};
template <>
struct WordOf<8> {
  using Type = uint2;
};
template <>
struct WordOf<16> {
  using Type = uint4;
};

// A pack as an array of words; a pack of 8 int32 cells takes two 16-byte words.
template <typename T, int count>
struct WordsOf {
  static constexpr int kBytes = sizeof(Pack<T, count>);
  static constexpr int kCount = kBytes > 16 ? kBytes / 16 : 1;
  using Word = typename WordOf<kBytes / kCount>::Type;
  using Type = Pack<Word, kCount>;
};

// Loads through the read-only cache: no kernel may write this data during the launch.
template <int count, typename T>
__device__ inline Pack<T, count> Load(const T* from) {
  using Words = WordsOf<T, count>;
  typename Words::Type words;
#pragma unroll
  for (int i = 0; i < Words::kCount; ++i) {
    words.values[i] = __ldg(reinterpret_cast<const typename Words::Word*>(from) + i);
  }
  return BitCast<Pack<T, count>>(words);
}

// Loads data that is read once, with an evict-first hint.
template <int count, typename T>
__device__ inline Pack<T, count> LoadStreaming(const T* from) {
  using Words = WordsOf<T, count>;
  typename Words::Type words;
#pragma unroll
  for (int i = 0; i < Words::kCount; ++i) {
    words.values[i] = __ldcs(reinterpret_cast<const typename Words::Word*>(from) + i);
  }
  return BitCast<Pack<T, count>>(words);
}

// Stores with an evict-first hint, so that data that is read again stays in the cache.
template <typename T, int count>
__device__ inline void StoreStreaming(const Pack<T, count>& pack, T* to) {
  using Words = WordsOf<T, count>;
  const auto words = BitCast<typename Words::Type>(pack);
#pragma unroll
  for (int i = 0; i < Words::kCount; ++i) {
    __stcs(reinterpret_cast<typename Words::Word*>(to) + i, words.values[i]);
  }
}

template <int count, typename T>
__device__ inline Pack<T, count> Broadcast(T value) {
  Pack<T, count> pack;
#pragma unroll
  for (int i = 0; i < count; ++i) pack.values[i] = value;
  return pack;
}

// --- order -----------------------------------------------------------------------------------------------------------

// Converts a value to a number with the same ordering. 16 bits become the upper half of a float32: for a bfloat16 that
// is the same number; for a half the boundary between exponent and mantissa differs, which does not affect comparisons
// (except that NaN compares as a number above infinity). Cheaper than a conversion, which needs an instruction per
// value.
__device__ inline float Ordered(float value) { return value; }
__device__ inline double Ordered(double value) { return value; }
__device__ inline float Ordered(Half value) { return BitCast<float>(static_cast<uint32_t>(value.bits) << 16); }
__device__ inline float Ordered(Bfloat16 value) { return BitCast<float>(static_cast<uint32_t>(value.bits) << 16); }

// The inverse of Ordered.
template <typename T>
struct FromOrdered {
  __device__ static T Value(float ordered) { return {static_cast<uint16_t>(BitCast<uint32_t>(ordered) >> 16)}; }
};
template <>
struct FromOrdered<float> {
  __device__ static float Value(float ordered) { return ordered; }
};
template <>
struct FromOrdered<double> {
  __device__ static double Value(double ordered) { return ordered; }
};

// Each is a single instruction; from compute capability 8.0 on, one instruction handles two 16-bit values.
__device__ inline float Max(float a, float b) { return fmaxf(a, b); }
__device__ inline double Max(double a, double b) { return fmax(a, b); }
__device__ inline Pack<Half, 2> Max(Pack<Half, 2> a, Pack<Half, 2> b) {
  return BitCast<Pack<Half, 2>>(__hmax2(BitCast<__half2>(a), BitCast<__half2>(b)));
}
__device__ inline Pack<Bfloat16, 2> Max(Pack<Bfloat16, 2> a, Pack<Bfloat16, 2> b) {
  return BitCast<Pack<Bfloat16, 2>>(__hmax2(BitCast<__nv_bfloat162>(a), BitCast<__nv_bfloat162>(b)));
}
template <typename T>
__device__ inline T Max(T a, T b) {  // a single 16-bit value
  return FromOrdered<T>::Value(fmaxf(Ordered(a), Ordered(b)));
}

template <typename T, int count>
__device__ inline Pack<T, count> MaxPacks(const Pack<T, count>& a, const Pack<T, count>& b) {
  constexpr bool kInPairs = sizeof(T) == 2 && count % 2 == 0;
  using Part = std::conditional_t<kInPairs, Pack<T, 2>, T>;
  using Parts = Pack<Part, kInPairs ? count / 2 : count>;
  auto greatest = BitCast<Parts>(a);
  const auto others = BitCast<Parts>(b);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(Parts) / sizeof(Part)); ++i) {
    greatest.values[i] = Max(greatest.values[i], others.values[i]);
  }
  return BitCast<Pack<T, count>>(greatest);
}

// --- sums ------------------------------------------------------------------------------------------------------------

__device__ inline float ToSum(float value) { return value; }
__device__ inline double ToSum(double value) { return value; }
__device__ inline float ToSum(Half value) { return __half2float(BitCast<__half>(value)); }
__device__ inline float ToSum(Bfloat16 value) { return __bfloat162float(BitCast<__nv_bfloat16>(value)); }

__device__ inline void FromSum(float sum, float* value) { *value = sum; }
__device__ inline void FromSum(double sum, double* value) { *value = sum; }
__device__ inline void FromSum(float sum, Half* value) { *value = BitCast<Half>(__float2half_rn(sum)); }
__device__ inline void FromSum(float sum, Bfloat16* value) { *value = BitCast<Bfloat16>(__float2bfloat16_rn(sum)); }

template <typename T, int count>
__device__ inline Pack<T, count> RoundPack(const Pack<typename SumOf<T>::Type, count>& sums) {
  Pack<T, count> values;
#pragma unroll
  for (int i = 0; i < count; ++i) FromSum(sums.values[i], &values.values[i]);
  return values;
}

// --- launches --------------------------------------------------------------------------------------------------------

template <typename T>
constexpr int kPackSize = 16 / sizeof(T);

// A block processes a slice of channels as wide as a cache line: this many adjacent threads, one per pack.
template <typename T, int count>
constexpr int kLanes = 128 / (sizeof(T) * count);

constexpr int kWarp = 32;
constexpr int kMaxThreads = 256;

// Calls launch(std::integral_constant<int, N>()) with the pack size N: kPackSize<T>, or 1 if the channels do not fill
// whole packs or a pointer is not aligned to 16 bytes.
template <typename T, typename Launch, typename... Pointers>
const char* DispatchPackSize(int64_t channels, const Launch& launch, const Pointers*... pointers) {
  const bool aligned = ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
  if (aligned && channels % kPackSize<T> == 0) return launch(std::integral_constant<int, kPackSize<T>>());
  return launch(std::integral_constant<int, 1>());
}

inline const char* ErrorMessage(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The number of threads, in whole warps, for `bins` bins of `lanes` threads each: the fewest that need no more
// iterations than kMaxThreads would.
inline int ThreadsForBins(int64_t bins, int lanes) {
  const int64_t unit = std::max(lanes, kWarp), work = std::min(bins, int64_t{kMaxThreads}) * lanes;
  const int64_t turns = CeilDivide(work, kMaxThreads);
  return static_cast<int>(CeilDivide(CeilDivide(work, turns), unit) * unit);
}

// Clamps the grid to CUDA's limits; the kernels use grid-stride loops.
inline dim3 Grid(int64_t x, int64_t y, int64_t z) {
  constexpr int64_t kMaxX = 2147483647, kMaxOther = 65535;
  return dim3(static_cast<unsigned>(std::min(x, kMaxX)), static_cast<unsigned>(std::min(y, kMaxOther)),
              static_cast<unsigned>(std::min(z, kMaxOther)));
}

template <typename... Parameters, typename... Arguments>
const char* Launch(dim3 grid, int threads, cudaStream_t stream, void (*kernel)(Parameters...), Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads), 1, 1);
  config.stream = stream;
  return ErrorMessage(cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace cuda
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_CUDA_PACKS_CUH_
