// Emulates CUDA's header of this name, so that a plain C++20 compiler builds a CPU program from .cu files:
//
//     g++ -std=c++20 -ffp-contract=off -I custom_ops/test/cuda_on_cpu -x c++ kernels.cu ...
//
// Each CUDA thread of a block is a CPU thread; blocks run one after another. Sanitizers can then check the kernels:
// AddressSanitizer finds invalid addresses, ThreadSanitizer a missing __syncthreads(). Contains only what this project
// uses.

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
#define __shared__ static  // valid because one block runs at a time

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

// Misaligned accesses are errors on a GPU.
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

// --- host functions --------------------------------------------------------------------------------------------------

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

// Aborts on launch configurations that a GPU would refuse. Launches at most a few blocks, even if the grid asks for
// more: this tests the grid-stride loops of our kernels, which a GPU would need only for inputs that hardly fit in its
// memory.
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const bool is_valid = grid.x >= 1 && grid.x <= 2147483647 && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 &&
                        grid.z <= 65535 && block.x >= 1 && block.x <= 1024;
  if (!is_valid) std::abort();
  gridDim = {std::min(grid.x, 5u), std::min(grid.y, 2u), std::min(grid.z, 2u)};
  blockDim = block;
  cuda_on_cpu::block_barrier = std::make_unique<std::barrier<>>(blockDim.x);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < blockDim.x; ++i) {
    threads.emplace_back([=] {
      threadIdx = {i, 0, 0};
      for (unsigned block = 0; block < gridDim.x * gridDim.y * gridDim.z; ++block) {
        blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y};
        kernel(arguments...);
        __syncthreads();  // the next block reuses the shared memory
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return cudaSuccess;
}

#endif  // TF_FAST_RCNN_CUSTOM_OPS_TEST_CUDA_ON_CPU_CUDA_RUNTIME_H_
