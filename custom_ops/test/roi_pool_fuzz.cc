// Compares the CPU kernels of every instruction set that this CPU has with naive loops, on random shapes and values at
// unaligned addresses. tests/ops/test_native_op_fuzz.py compiles it together with the kernels under sanitizers, without
// TensorFlow.
//
//     roi_pool_fuzz [ROUNDS]

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "../cc/kernels/roi_pool/cpu/roi_pool.h"

namespace {

using namespace tf_fast_rcnn;

std::mt19937 random_bits(0);

int64_t Below(int64_t limit) { return static_cast<int64_t>(random_bits() % static_cast<uint64_t>(limit)); }

double ToDouble(float value) { return value; }
double ToDouble(double value) { return value; }
double ToDouble(Float16Bits value) {  // as bfloat16
  const uint32_t bits = uint32_t{value.bits} << 16;
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

void Set(double value, float* to) { *to = static_cast<float>(value); }
void Set(double value, double* to) { *to = value; }
void Set(double value, Float16Bits* to) {
  const float number = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  to->bits = static_cast<uint16_t>(bits >> 16);
}

double RandomFeature() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr double kValues[] = {-kInfinity, -2, -1, -1, -0.0, 0.0, 0.5, 1e-40, 2e-40, 3e38, kInfinity};
  return kValues[Below(sizeof(kValues) / sizeof(kValues[0]))];
}

float RandomCoordinate() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kOdd[] = {-kInfinity, kInfinity, 1e30f, -1e30f, 3.4e38f, std::numeric_limits<float>::quiet_NaN()};
  if (Below(40) == 0) return kOdd[Below(sizeof(kOdd) / sizeof(kOdd[0]))];
  return static_cast<float>(Below(800) - 200) / 2;
}

// Allocates exactly size + shift values and starts `shift` values into them, so that sanitizers detect out-of-bounds
// accesses at any alignment.
template <typename T>
class Array {
 public:
  Array(int64_t size, int64_t shift) : storage_(new T[size + shift]), data_(storage_.get() + shift), size_(size) {}
  T* data() { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }

 private:
  std::unique_ptr<T[]> storage_;
  T* data_;
  int64_t size_;
};

template <typename T>
struct Case {
  RoiPoolShape shape;
  float spatial_scale;
  Array<T> features;
  Array<float> rois;

  int64_t outputs() const { return shape.batch * shape.rois * shape.bins() * shape.channels; }
};

template <typename T>
Case<T> RandomCase(int64_t shift) {
  const RoiPoolShape shape = {1 + Below(2), 1 + Below(12), 1 + Below(12), 1 + Below(Below(4) == 0 ? 300 : 70),
                              1 + Below(4), 1 + Below(5),  1 + Below(5)};
  Case<T> random = {shape, Below(2) == 0 ? 1.0f / 16 : 0.3f,
                    Array<T>(shape.batch * shape.cells() * shape.channels, shift),
                    Array<float>(shape.batch * shape.rois * 4, shift)};
  for (int64_t i = 0; i < random.features.size(); ++i) Set(RandomFeature(), &random.features[i]);
  for (int64_t i = 0; i < random.rois.size(); ++i) random.rois[i] = RandomCoordinate();
  return random;
}

// The offset of one output's maximum from the start of the features; -1 if its bin is empty.
template <typename T>
int64_t NaiveMaximum(Case<T>& input, int64_t output) {
  const RoiPoolShape& shape = input.shape;
  const int64_t channel = output % shape.channels, bin = output / shape.channels % shape.bins();
  const int64_t roi = output / shape.channels / shape.bins();
  RoiAxis vertical, horizontal;
  if (!vertical.Set(input.rois[roi * 4], input.rois[roi * 4 + 2], input.spatial_scale, shape.output_height) ||
      !horizontal.Set(input.rois[roi * 4 + 1], input.rois[roi * 4 + 3], input.spatial_scale, shape.output_width)) {
    return -1;
  }
  const Span rows = vertical.Bin(bin / shape.output_width, shape.height);
  const Span columns = horizontal.Bin(bin % shape.output_width, shape.width);
  int64_t best = -1;
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    for (int64_t x = columns.begin; x < columns.end; ++x) {
      const int64_t cell = roi / shape.rois * shape.cells() + y * shape.width + x;
      const int64_t place = cell * shape.channels + channel;
      if (best < 0 || ToDouble(input.features[place]) > ToDouble(input.features[best])) best = place;
    }
  }
  return best;
}

void Fail(const char* what, InstructionSet instruction_set, const RoiPoolShape& shape, int64_t output) {
  std::printf("instruction set %d, %s: wrong at %lld of %lld x %lld x %lld x %lld\n", static_cast<int>(instruction_set),
              what, static_cast<long long>(output), static_cast<long long>(shape.batch),
              static_cast<long long>(shape.height), static_cast<long long>(shape.width),
              static_cast<long long>(shape.channels));
  std::exit(1);
}

template <typename T>
void CheckForward(Case<T>& input, InstructionSet instruction_set, bool stream, int64_t shift) {
  const RoiPoolShape& shape = input.shape;
  Array<T> pooled(input.outputs(), shift), pooled_too(input.outputs(), shift);
  Array<int32_t> argmax(input.outputs(), shift);
  const int64_t rois = shape.batch * shape.rois, half = rois / 2;
  for (const auto& [first, last] : {std::pair(int64_t{0}, half), std::pair(half, rois)}) {
    RoiPool<T>(instruction_set, shape, input.spatial_scale, input.features.data(), input.rois.data(), first, last,
               stream, pooled.data(), nullptr);
    RoiPool<T>(instruction_set, shape, input.spatial_scale, input.features.data(), input.rois.data(), first, last,
               stream, pooled_too.data(), argmax.data());
  }
  for (int64_t i = 0; i < input.outputs(); ++i) {
    const int64_t place = NaiveMaximum(input, i);
    const T expected = place < 0 ? T{} : input.features[place];
    if (std::memcmp(&pooled[i], &expected, sizeof(T)) != 0) Fail("pooled", instruction_set, shape, i);
    if (std::memcmp(&pooled_too[i], &expected, sizeof(T)) != 0) Fail("pooled with argmax", instruction_set, shape, i);
    const int64_t cell = place < 0 ? kNoCell : place / shape.channels % shape.cells();
    if (argmax[i] != cell) Fail("argmax", instruction_set, shape, i);
  }
}

// Checks the first image. The argmax includes cells that are not on the map, and the channels are split between two
// calls. The gradients are integers, so that their sums are exact in any order.
template <typename T>
void CheckGradient(Case<T>& input, InstructionSet instruction_set, int64_t shift) {
  const RoiPoolShape& shape = input.shape;
  Array<T> gradient(shape.rois * shape.bins() * shape.channels, shift);
  Array<int32_t> argmax(gradient.size(), shift);
  std::vector<T> expected(shape.cells() * shape.channels, T(0));
  for (int64_t i = 0; i < gradient.size(); ++i) {
    gradient[i] = static_cast<T>(Below(2000) - 1000);
    const int64_t place = NaiveMaximum(input, i);
    argmax[i] = place < 0 ? kNoCell : static_cast<int32_t>(place / shape.channels);
    if (Below(9) == 0) argmax[i] = Below(2) == 0 ? kNoCell : std::numeric_limits<int32_t>::max();
    if (argmax[i] >= 0 && argmax[i] < shape.cells()) {
      expected[argmax[i] * shape.channels + i % shape.channels] += gradient[i];
    }
  }
  const std::vector<int64_t> order = SortByLocation(shape, input.spatial_scale, input.rois.data());
  const int64_t cut = std::min(Below(3) * kGradientBlock, shape.channels);
  for (const auto& [first, last] : {std::pair(int64_t{0}, cut), std::pair(cut, shape.channels)}) {
    const int64_t count = last - first;
    Array<T> sums(shape.cells() * count, shift);
    for (int64_t i = 0; i < sums.size(); ++i) sums[i] = 0;
    RoiPoolGradient<T, T>(instruction_set, shape, input.spatial_scale, gradient.data() + first, argmax.data() + first,
                          input.rois.data(), order, count, sums.data())
        .Add();
    for (int64_t i = 0; i < sums.size(); ++i) {
      const int64_t block = i / (kGradientBlock * shape.cells()) * kGradientBlock;
      const int64_t width = std::min(kGradientBlock, count - block), within = i - block * shape.cells();
      const T sum = expected[within / width * shape.channels + first + block + within % width];
      if (sums[i] != sum) Fail("gradient", instruction_set, shape, i);
    }
  }
}

template <typename T>
void Check(InstructionSet instruction_set) {
  const int64_t shift = Below(2) * Below(16);
  Case<T> input = RandomCase<T>(shift);
  CheckForward(input, instruction_set, Below(2) == 0, shift);
  if constexpr (!std::is_same_v<T, Float16Bits>) CheckGradient(input, instruction_set, shift);
}

// A map of 2^33 values; only the pages that are touched take memory.
void CheckMoreThan32Bits(InstructionSet instruction_set) {
  const RoiPoolShape shape = {1, 4200, 32768, 64, 1, 1, 1};
  const int64_t size = shape.cells() * shape.channels;
  void* memory = mmap(nullptr, size * sizeof(Float16Bits), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::exit(2);
  auto* features = static_cast<Float16Bits*>(memory);
  const int64_t cell = 4095 * shape.width + 4000;
  for (int64_t c = 0; c < shape.channels; ++c) features[cell * shape.channels + c].bits = static_cast<uint16_t>(c + 1);
  const float roi[] = {4094, 3999, 4095, 4000};
  Float16Bits pooled[64];
  int32_t argmax[64];
  RoiPool<Float16Bits>(instruction_set, shape, 1.0f, features, roi, 0, 1, false, pooled, nullptr);
  for (int c = 0; c < 64; ++c) {
    if (pooled[c].bits != c + 1) Fail("pooled, large map", instruction_set, shape, c);
  }
  RoiPool<Float16Bits>(instruction_set, shape, 1.0f, features, roi, 0, 1, false, pooled, argmax);
  for (int c = 0; c < 64; ++c) {
    if (argmax[c] != cell) Fail("argmax, large map", instruction_set, shape, c);
  }
  munmap(memory, size * sizeof(Float16Bits));
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
  const int highest = static_cast<int>(ChooseInstructionSet());
  for (int i = 0; i <= highest; ++i) CheckMoreThan32Bits(static_cast<InstructionSet>(i));
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i <= highest; ++i) {
      const auto instruction_set = static_cast<InstructionSet>(i);
      Check<float>(instruction_set);
      Check<double>(instruction_set);
      Check<Float16Bits>(instruction_set);
    }
  }
  std::printf("%d rounds with %d instruction sets: all equal\n", rounds, highest + 1);
}
