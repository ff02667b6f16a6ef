// Benchmarks the CUDA kernels against their lower bound: the bytes that they must write (forward) or read and write
// (backward), at the copy bandwidth of the GPU. `make -C custom_ops cuda-timing` builds and runs it.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <type_traits>
#include <vector>

#include "../cc/kernels/roi_pool/cuda/roi_pool.h"
#include "device_array.h"

namespace {

using namespace tf_fast_rcnn;

constexpr int kRounds = 21;

// The median time in seconds of `queue`, which enqueues work on the default stream, after two warm-up runs.
double Seconds(const std::function<void()>& queue) {
  cudaEvent_t started, ended;
  Require(cudaEventCreate(&started));
  Require(cudaEventCreate(&ended));
  std::vector<float> milliseconds(kRounds);
  for (int round = -2; round < kRounds; ++round) {
    Require(cudaEventRecord(started));
    queue();
    Require(cudaEventRecord(ended));
    Require(cudaEventSynchronize(ended));
    if (round >= 0) Require(cudaEventElapsedTime(&milliseconds[round], started, ended));
  }
  Require(cudaEventDestroy(started));
  Require(cudaEventDestroy(ended));
  std::nth_element(milliseconds.begin(), milliseconds.begin() + kRounds / 2, milliseconds.end());
  return milliseconds[kRounds / 2] * 1e-3;
}

// Bytes per second on this GPU: read plus written by a copy, and written by a memset.
struct Bandwidth {
  double copy, write;
};

Bandwidth MeasureBandwidth() {
  constexpr int64_t kBytes = int64_t{1} << 30;
  DeviceArray<char> from(kBytes), to(kBytes);
  Require(cudaMemset(from.data(), 1, kBytes));
  const double copy =
      Seconds([&] { Require(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, nullptr)); });
  const double write = Seconds([&] { Require(cudaMemsetAsync(to.data(), 1, kBytes, nullptr)); });
  return {2 * kBytes / copy, kBytes / write};
}

// Random RoIs anywhere in the image, at 16 pixels per cell.
std::vector<float> RandomRois(const RoiPoolShape& shape, std::mt19937* random_bits) {
  std::vector<float> rois;
  for (int64_t i = 0; i < shape.batch * shape.rois; ++i) {
    std::uniform_real_distribution<float> y(0, 16 * shape.height), x(0, 16 * shape.width);
    const auto [top, bottom] = std::minmax({y(*random_bits), y(*random_bits)});
    const auto [left, right] = std::minmax({x(*random_bits), x(*random_bits)});
    rois.insert(rois.end(), {top, left, bottom, right});
  }
  return rois;
}

// Values in [1, 2), which all have the same exponent.
template <typename T>
std::vector<T> RandomValues(int64_t size, std::mt19937* random_bits);
template <>
std::vector<float> RandomValues(int64_t size, std::mt19937* random_bits) {
  std::vector<float> values(size);
  for (float& value : values) value = 1 + static_cast<float>((*random_bits)() >> 8) / (1 << 24);
  return values;
}
template <>
std::vector<cuda::Half> RandomValues(int64_t size, std::mt19937* random_bits) {
  std::vector<cuda::Half> values(size);
  for (auto& value : values) value.bits = static_cast<uint16_t>(0x3c00 | ((*random_bits)() & 1023));
  return values;
}

void Report(const char* what, double seconds, double bytes, const Bandwidth& bandwidth) {
  const double floor = bytes / bandwidth.copy;
  std::printf("  %-26s %9.1f us %9.1f us %8.2f\n", what, seconds * 1e6, floor * 1e6, seconds / floor);
}

template <typename T>
void Time(const char* type, const RoiPoolShape& shape, const Bandwidth& bandwidth) {
  using Sum = typename cuda::SumOf<T>::Type;
  constexpr float kScale = 1.0f / 16;
  std::mt19937 random_bits(0);
  const int64_t size = shape.batch * shape.cells() * shape.channels;
  const int64_t outputs = shape.batch * shape.rois * shape.bins() * shape.channels;
  DeviceArray<T> features(RandomValues<T>(size, &random_bits)), pooled(outputs), gradient(size);
  DeviceArray<float> rois(RandomRois(shape, &random_bits));
  DeviceArray<int32_t> argmax(outputs);
  DeviceArray<Sum> scratch(std::is_same_v<T, Sum> ? 1 : size);
  Sum* sums = scratch.data();
  if constexpr (std::is_same_v<T, Sum>) sums = gradient.data();
  std::printf("\n%s, features %d x %d x %d x %d, %d RoIs per image, %d x %d bins\n  %-26s %12s %12s %8s\n", type,
              int(shape.batch), int(shape.height), int(shape.width), int(shape.channels), int(shape.rois),
              int(shape.output_height), int(shape.output_width), "", "median", "bound", "ratio");
  const double values = pooled.bytes(), both = values + argmax.bytes();
  Report("forward", Seconds([&] {
           Require(cuda::RoiPool<T>(shape, kScale, features.data(), rois.data(), pooled.data(), nullptr, nullptr));
         }),
         values, bandwidth);
  Report(
      "forward with argmax", Seconds([&] {
        Require(cuda::RoiPool<T>(shape, kScale, features.data(), rois.data(), pooled.data(), argmax.data(), nullptr));
      }),
      both, bandwidth);
  Report("backward", Seconds([&] {
           Require(cuda::RoiPoolGradient<T>(shape, pooled.data(), argmax.data(), sums, gradient.data(), nullptr));
         }),
         both + gradient.bytes(), bandwidth);
  Report("backward, deterministic", Seconds([&] {
           Require(cuda::DeterministicRoiPoolGradient<T>(shape, kScale, pooled.data(), argmax.data(), rois.data(),
                                                         gradient.data(), nullptr));
         }),
         both + gradient.bytes(), bandwidth);
}

}  // namespace

int main() {
  cudaDeviceProp device;
  Require(cudaGetDeviceProperties(&device, 0));
  const Bandwidth bandwidth = MeasureBandwidth();
  std::printf("%s: copy %.0f GB/s (read + write), memset %.0f GB/s; CUDA runtime %d, driver %d\n", device.name,
              bandwidth.copy * 1e-9, bandwidth.write * 1e-9, cuda::RuntimeVersion(), cuda::DriverVersion());
  constexpr RoiPoolShape kShapes[] = {
      {1, 38, 63, 512, 300, 7, 7},
      {1, 38, 63, 512, 2000, 7, 7},
      {2, 38, 63, 512, 64, 7, 7},
      {8, 50, 84, 1024, 1000, 7, 7},
  };
  for (const RoiPoolShape& shape : kShapes) {
    Time<float>("float", shape, bandwidth);
    Time<cuda::Half>("half", shape, bandwidth);
  }
}
