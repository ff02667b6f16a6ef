// Compares every CUDA kernel with naive loops, on fixed and random shapes and values at aligned and unaligned
// addresses.
//
//     roi_pool_cuda_check [ROUNDS]
//
// `make -C custom_ops cuda-check` runs it on a GPU. tests/ops/test_cuda_kernels.py compiles it for the CPU,
// where cuda_on_cpu/ emulates CUDA.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../cc/kernels/roi_pool/cuda/roi_pool.h"
#include "device_array.h"

namespace {

using namespace tf_fast_rcnn;
using cuda::Bfloat16;
using cuda::Half;

std::mt19937 random_bits(0);

int64_t Below(int64_t limit) { return static_cast<int64_t>(random_bits() % static_cast<uint64_t>(limit)); }

// --- numbers ---------------------------------------------------------------------------------------------------------

template <typename To, typename From>
To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "both types must have the same size");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

double ToDouble(float value) { return value; }
double ToDouble(double value) { return value; }
double ToDouble(Bfloat16 value) { return BitCast<float>(uint32_t{value.bits} << 16); }
double ToDouble(Half value) {
  const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  double magnitude = std::ldexp(exponent == 0 ? fraction : fraction + 1024, (exponent == 0 ? 1 : exponent) - 25);
  if (exponent == 31) magnitude = std::numeric_limits<double>::infinity();
  return value.bits >> 15 ? -magnitude : magnitude;
}

template <typename T>
T From(double value);
template <>
float From(double value) {
  return static_cast<float>(value);
}
template <>
double From(double value) {
  return value;
}
template <>
Half From(double value) {
  return BitCast<Half>(__float2half_rn(static_cast<float>(value)));
}
template <>
Bfloat16 From(double value) {
  return BitCast<Bfloat16>(__float2bfloat16_rn(static_cast<float>(value)));
}

template <typename T>
constexpr const char* kName = "half";
template <>
constexpr const char* kName<float> = "float";
template <>
constexpr const char* kName<double> = "double";
template <>
constexpr const char* kName<Bfloat16> = "bfloat16";

double RandomFeature() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr double kValues[] = {-kInfinity, -2, -1, -1, -0.0, 0.0, 0.5, 1e-40, 2e-40, 6e-8, 1.2e-7, 6e4, kInfinity};
  return kValues[Below(sizeof(kValues) / sizeof(kValues[0]))];
}

float RandomCoordinate(int64_t cells) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kOdd[] = {-kInfinity, kInfinity, 1e30f, -1e30f, 3.4e38f, std::numeric_limits<float>::quiet_NaN()};
  if (Below(40) == 0) return kOdd[Below(sizeof(kOdd) / sizeof(kOdd[0]))];
  return static_cast<float>(Below(40 * cells) - 8 * cells) / 2;  // at 1/16 cells per pixel; sometimes outside the map
}

// --- expected results ------------------------------------------------------------------------------------------------

template <typename T>
struct Case {
  RoiPoolShape shape;
  float spatial_scale;
  int64_t shift;
  std::vector<T> features;
  std::vector<float> rois;

  Case(const RoiPoolShape& shape, int64_t shift)
      : shape(shape),
        spatial_scale(1.0f / 16),
        shift(shift),
        features(shape.batch * shape.cells() * shape.channels),
        rois(shape.batch * shape.rois * 4) {
    for (T& feature : features) feature = From<T>(RandomFeature());
    for (size_t i = 0; i < rois.size(); ++i) rois[i] = RandomCoordinate(i % 2 == 0 ? shape.height : shape.width);
  }

  int64_t outputs() const { return shape.batch * shape.rois * shape.bins() * shape.channels; }

  // For one output: the offset of its channel in the first cell of its image, and the cells of its bin.
  int64_t Feature(int64_t output) const {
    return output / (shape.channels * shape.bins() * shape.rois) * shape.cells() * shape.channels +
           output % shape.channels;
  }
  void FindCells(int64_t output, Span* rows, Span* columns) const {
    const int64_t bin = output / shape.channels % shape.bins();
    const float* roi = rois.data() + output / shape.channels / shape.bins() * 4;
    RoiAxis vertical, horizontal;
    *rows = *columns = {0, 0};
    if (!vertical.Set(roi[0], roi[2], spatial_scale, shape.output_height) ||
        !horizontal.Set(roi[1], roi[3], spatial_scale, shape.output_width)) {
      return;
    }
    *rows = vertical.Bin(bin / shape.output_width, shape.height);
    *columns = horizontal.Bin(bin % shape.output_width, shape.width);
  }

  // The cell of one output's maximum, the first in row-major order; kNoCell if its bin is empty.
  int32_t Argmax(int64_t output) const {
    Span rows, columns;
    FindCells(output, &rows, &columns);
    int32_t best = kNoCell;
    for (int y = rows.begin; y < rows.end; ++y) {
      for (int x = columns.begin; x < columns.end; ++x) {
        const int32_t cell = y * static_cast<int32_t>(shape.width) + x;
        if (best == kNoCell || ToDouble(Value(output, cell)) > ToDouble(Value(output, best))) best = cell;
      }
    }
    return best;
  }
  T Value(int64_t output, int32_t cell) const {
    return cell == kNoCell ? T{} : features[Feature(output) + cell * shape.channels];
  }
};

// --- checks ----------------------------------------------------------------------------------------------------------

template <typename T>
void Fail(const char* what, const Case<T>& input, size_t place) {
  const RoiPoolShape& shape = input.shape;
  std::printf("%s, %s: wrong at %zu of features %d x %d x %d x %d, %d RoIs, %d x %d bins, shift %d\n", kName<T>, what,
              place, int(shape.batch), int(shape.height), int(shape.width), int(shape.channels), int(shape.rois),
              int(shape.output_height), int(shape.output_width), int(input.shift));
  std::exit(1);
}

template <typename T>
std::vector<int32_t> CheckForward(const Case<T>& input) {
  DeviceArray<T> features(input.features, input.shift), pooled(input.outputs(), input.shift);
  DeviceArray<T> pooled_too(input.outputs(), input.shift);
  DeviceArray<float> rois(input.rois, input.shift);
  DeviceArray<int32_t> argmax(input.outputs(), input.shift);
  Require(cuda::RoiPool<T>(input.shape, input.spatial_scale, features.data(), rois.data(), pooled.data(), nullptr,
                           nullptr));
  Require(cuda::RoiPool<T>(input.shape, input.spatial_scale, features.data(), rois.data(), pooled_too.data(),
                           argmax.data(), nullptr));
  const auto maxima = pooled.ToHost(), maxima_too = pooled_too.ToHost();
  const auto cells = argmax.ToHost();
  for (size_t i = 0; i < cells.size(); ++i) {
    const int32_t cell = input.Argmax(i);
    const T expected = input.Value(i, cell);
    if (cells[i] != cell) Fail("argmax", input, i);
    if (std::memcmp(&maxima_too[i], &expected, sizeof(T)) != 0) Fail("pooled with argmax", input, i);
    // Compared as numbers: without argmax the sign of a zero is unspecified.
    if (ToDouble(maxima[i]) != ToDouble(expected)) Fail("pooled", input, i);
  }
  return cells;
}

// Adds the terms of every sum in the order of RoIs and bins.
template <typename T>
std::vector<T> ExpectedGradient(const Case<T>& input, const std::vector<T>& pooled_gradient,
                                const std::vector<int32_t>& argmax) {
  using Sum = typename cuda::SumOf<T>::Type;
  std::vector<Sum> sums(input.features.size(), Sum(0));
  for (size_t i = 0; i < argmax.size(); ++i) {
    if (argmax[i] < 0 || argmax[i] >= input.shape.cells()) continue;
    sums[input.Feature(i) + argmax[i] * input.shape.channels] += static_cast<Sum>(ToDouble(pooled_gradient[i]));
  }
  std::vector<T> gradient;
  for (const Sum sum : sums) gradient.push_back(From<T>(sum));
  return gradient;
}

template <typename T>
void Compare(const char* what, const Case<T>& input, const std::vector<T>& found, const std::vector<T>& expected) {
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::memcmp(&found[i], &expected[i], sizeof(T)) != 0) Fail(what, input, i);
  }
}

// The deterministic gradient is checked with arbitrary terms; the atomic one with terms whose sums are exact in any
// order.
template <typename T>
void CheckGradients(const Case<T>& input, std::vector<int32_t> argmax) {
  using Sum = typename cuda::SumOf<T>::Type;
  constexpr int32_t kNoCells[] = {kNoCell, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()};
  std::vector<T> whole(argmax.size()), fractions(argmax.size());
  for (size_t i = 0; i < argmax.size(); ++i) {
    whole[i] = From<T>(static_cast<double>(Below(7)) - 3);
    fractions[i] = From<T>(static_cast<double>(random_bits()) * 1e-9 - 2);
    if (Below(20) == 0) argmax[i] = kNoCells[Below(3)];
    if (Below(20) == 0) argmax[i] = static_cast<int32_t>(input.shape.cells() + Below(9));
  }
  const int64_t size = static_cast<int64_t>(input.features.size());
  DeviceArray<T> whole_terms(whole, input.shift), terms(fractions, input.shift);
  DeviceArray<T> gradient(size, input.shift), gradient_in_order(size, input.shift);
  DeviceArray<Sum> scratch(std::is_same_v<T, Sum> ? 0 : size, input.shift);
  DeviceArray<int32_t> cells(argmax, input.shift);
  DeviceArray<float> rois(input.rois, input.shift);
  Sum* sums = scratch.data();
  if constexpr (std::is_same_v<T, Sum>) sums = gradient.data();
  Require(cuda::RoiPoolGradient<T>(input.shape, whole_terms.data(), cells.data(), sums, gradient.data(), nullptr));
  Compare("gradient", input, gradient.ToHost(), ExpectedGradient(input, whole, argmax));
  Require(cuda::DeterministicRoiPoolGradient<T>(input.shape, input.spatial_scale, terms.data(), cells.data(),
                                                rois.data(), gradient_in_order.data(), nullptr));
  Compare("gradient in order", input, gradient_in_order.ToHost(), ExpectedGradient(input, fractions, argmax));
}

template <typename T>
void Check(const RoiPoolShape& shape, int64_t shift) {
  const Case<T> input(shape, shift);
  CheckGradients(input, CheckForward(input));
}

void CheckTypes(const RoiPoolShape& shape, int64_t shift) {
  Check<float>(shape, shift);
  Check<double>(shape, shift);
  Check<Half>(shape, shift);
  Check<Bfloat16>(shape, shift);
}

RoiPoolShape RandomShape() {
  constexpr int64_t kChannels[] = {1, 3, 4, 8, 24, 32, 63, 64, 72, 136};
  return {1 + Below(2), 1 + Below(12), 1 + Below(12), kChannels[Below(10)], 1 + Below(9), 1 + Below(9), 1 + Below(9)};
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  constexpr RoiPoolShape kShapes[] = {
      {1, 9, 11, 8, 3, 70, 2},   // more bins than a tile: rows
      {2, 5, 6, 4, 2, 3, 131},   // more bins than a tile: columns
      {1, 3, 4, 16, 300, 1, 1},  // more RoIs than threads of a gathering block
      {1, 2, 3, 1100, 2, 2, 2},  // more channels than a gathering block processes
      {3, 20, 30, 32, 4, 7, 7},  // the usual proportions
      {2, 7, 5, 8, 0, 7, 7},     // no RoIs: an empty output and a gradient of zeros
      {2, 7, 5, 8, 3, 0, 7},     // no bins: the same
      {2, 7, 5, 8, 3, 7, 0},     // no bins
      {0, 7, 5, 8, 3, 7, 7},     // no images
      {2, 7, 5, 0, 3, 7, 7},     // no channels
  };
  for (const RoiPoolShape& shape : kShapes) CheckTypes(shape, 0);
  for (int round = 0; round < rounds; ++round) CheckTypes(RandomShape(), Below(2) * Below(16));
  std::printf("%d rounds: all equal\n", rounds);
}
