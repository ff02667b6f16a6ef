// Stands in for CUDA's header of this name, so that a plain C++20 compiler makes a CPU program of .cu files:
//
//     g++ -std=c++20 -ffp-contract=off -I custom_ops/test/cuda_on_cpu -x c++ kernels.cu ...
//
// Each CUDA thread of a block is a thread of the CPU; blocks follow one another. Sanitizers then see what the kernels
// do: AddressSanitizer a wrong address, ThreadSanitizer a missing __syncthreads(). Has what this project uses, no more.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_RUNTIME_H_
#define TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_RUNTIME_H_

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)
#define __shared__ static  // one block runs at a time

// --- vectors ---------------------------------------------------------------------------------------------------------

struct uint2 {
  unsigned x, y;
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// --- inside kernels --------------------------------------------------------------------------------------------------

inline thread_local uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace cuda_on_cpu {
inline std::unique_ptr<std::barrier<>> block_barrier;

// A misaligned address is an error on a GPU.
template <typename T>
const T* Aligned(const T* address) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0) std::abort();
  return address;
}
}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::block_barrier->arrive_and_wait(); }

template <typename T>
T __ldg(const T* address) {
  T value;
  std::memcpy(&value, cuda_on_cpu::Aligned(address), sizeof(T));
  return value;
}

template <typename T>
T __ldcs(const T* address) {
  return __ldg(address);
}

template <typename T>
void __stcs(T* address, T value) {
  cuda_on_cpu::Aligned(address);
  std::memcpy(address, &value, sizeof(T));
}

template <typename T>
T atomicAdd(T* address, T term) {
  return std::atomic_ref<T>(*address).fetch_add(term);
}

using std::min;

// --- the host's side -------------------------------------------------------------------------------------------------

#define CUDART_VERSION 0

enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
typedef struct CUstream_st* cudaStream_t;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
};

inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "no memory"; }

template <typename T>
cudaError_t cudaMalloc(T** address, size_t bytes) {
  *address = static_cast<T*>(std::malloc(bytes));
  return *address == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

inline cudaError_t cudaFree(void* address) {
  std::free(address);
  return cudaSuccess;
}

inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(to, value, bytes);
}

inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}

// Our kernels go on in steps of the grid when it is too small for the work. Here it is cut to a few blocks, which tests
// those steps; on a GPU they take more memory than there is, nearly always.
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  if (config->gridDim.x * config->gridDim.y * config->gridDim.z == 0) std::abort();
  gridDim = {std::min(config->gridDim.x, 5u), std::min(config->gridDim.y, 2u), std::min(config->gridDim.z, 2u)};
  blockDim = config->blockDim;
  cuda_on_cpu::block_barrier = std::make_unique<std::barrier<>>(blockDim.x);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < blockDim.x; ++i) {
    threads.emplace_back([=] {
      threadIdx = {i, 0, 0};
      for (unsigned block = 0; block < gridDim.x * gridDim.y * gridDim.z; ++block) {
        blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y};
        kernel(arguments...);
        __syncthreads();  // before the next block takes the shared memory
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return cudaSuccess;
}

#endif  // TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_RUNTIME_H_
