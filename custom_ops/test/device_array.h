// Arrays in device memory, and CUDA error handling that ends the program; for the programs that check and time the
// kernels.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_TEST_DEVICE_ARRAY_H_
#define TF_FAST_RCNN_CUSTOM_OPS_TEST_DEVICE_ARRAY_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

inline void Require(const char* error) {
  if (error == nullptr) return;
  std::printf("CUDA: %s\n", error);
  std::exit(2);
}

inline void Require(cudaError_t error) { Require(error == cudaSuccess ? nullptr : cudaGetErrorString(error)); }

// Allocates exactly the bytes it needs and starts `shift` values into them, so that sanitizers detect out-of-bounds
// accesses at any alignment.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t size, int64_t shift = 0) : size_(size), shift_(shift) {
    if (size + shift == 0) return;
    Require(cudaMalloc(&storage_, (size + shift) * sizeof(T)));
    Require(cudaMemset(storage_, 0x5a, (size + shift) * sizeof(T)));  // makes unwritten elements detectable
  }
  explicit DeviceArray(const std::vector<T>& values, int64_t shift = 0)
      : DeviceArray(static_cast<int64_t>(values.size()), shift) {
    if (size_ != 0) Require(cudaMemcpy(data(), values.data(), bytes(), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { Require(cudaFree(storage_)); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return storage_ + shift_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }

  // Waits for all enqueued work.
  std::vector<T> ToHost() {
    Require(cudaDeviceSynchronize());
    std::vector<T> values(size_);
    if (size_ != 0) Require(cudaMemcpy(values.data(), data(), bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* storage_ = nullptr;
  int64_t size_, shift_;
};

#endif  // TF_FAST_RCNN_CUSTOM_OPS_TEST_DEVICE_ARRAY_H_
