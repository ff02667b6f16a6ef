// Compares depthwise convolutions and their gradients, for every instruction set that this CPU has, with naive loops,
// on random shapes at unaligned addresses. tests/ops/test_depthwise_conv.py compiles it together with the kernels under
// sanitizers, without TensorFlow.
//
//     depthwise_conv_fuzz [ROUNDS]

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "../cc/kernels/depthwise_conv/convolution.h"
#include "../cc/kernels/depthwise_conv/filter_gradient.h"

namespace {

using namespace tf_fast_rcnn;

std::mt19937 random_bits(0);

int64_t Below(int64_t limit) { return static_cast<int64_t>(random_bits() % static_cast<uint64_t>(limit)); }

// Allocates exactly size + shift values and starts `shift` values into them, so that sanitizers detect out-of-bounds
// accesses at any alignment. The values are integers, so that their sums are exact in any order.
class Array {
 public:
  Array(int64_t size, int64_t shift) : storage_(new float[size + shift]), data_(storage_.get() + shift) {
    for (int64_t i = 0; i < size; ++i) data_[i] = static_cast<float>(Below(21) - 10);
  }
  float* data() { return data_; }
  float operator[](int64_t i) const { return data_[i]; }

 private:
  std::unique_ptr<float[]> storage_;
  float* data_;
};

ConvAxis RandomAxis() {
  ConvAxis axis;
  axis.kernel = Below(2) == 0 ? 3 + 2 * Below(2) : 1 + Below(9);
  axis.stride = 1 + Below(4);
  axis.padding = Below(axis.kernel);
  axis.input = 1 + Below(30);
  axis.output = 1 + Below(axis.MaxOutput());
  return axis;
}

// The sum for one element of the kernel, numbered as in [kernel rows, kernel columns, channels].
float NaiveSum(const DepthwiseConvShape& shape, const Array& images, const Array& gradients, int64_t element) {
  const ConvAxis &rows = shape.rows, &columns = shape.columns;
  const int64_t channel = element % shape.channels, tap = element / shape.channels;
  float sum = 0;
  for (int64_t image = 0; image < shape.images; ++image) {
    for (int64_t p = 0; p < rows.output; ++p) {
      for (int64_t q = 0; q < columns.output; ++q) {
        const int64_t y = p * rows.stride + tap / columns.kernel - rows.padding;
        const int64_t x = q * columns.stride + tap % columns.kernel - columns.padding;
        if (y < 0 || y >= rows.input || x < 0 || x >= columns.input) continue;
        sum += images[((image * rows.input + y) * columns.input + x) * shape.channels + channel] *
               gradients[((image * rows.output + p) * columns.output + q) * shape.channels + channel];
      }
    }
  }
  return sum;
}

void CheckFilterGradient(InstructionSet instruction_set, const DepthwiseConvShape& shape) {
  const int64_t shift = Below(2) * Below(16), size = shape.taps() * shape.channels;
  Array images(shape.images * shape.rows.input * shape.columns.input * shape.channels, shift);
  Array gradients(shape.images * shape.rows.output * shape.columns.output * shape.channels, shift);
  const WorkUnits units(shape);
  Array parts(units.row_parts() * size, shift);
  for (int64_t i = 0; i < units.count(); ++i) {
    const WorkUnits::Unit unit = units[i];
    SumUnit(instruction_set, shape, unit, images.data(), gradients.data(), parts.data() + unit.row_part * size);
  }
  for (int64_t i = 0; i < size; ++i) {
    float sum = 0;
    for (int64_t part = 0; part < units.row_parts(); ++part) sum += parts[part * size + i];
    if (sum == NaiveSum(shape, images, gradients, i)) continue;
    std::printf("instruction set %d: wrong at %lld of %lld x %lld x %lld\n", static_cast<int>(instruction_set),
                static_cast<long long>(i), static_cast<long long>(shape.rows.kernel),
                static_cast<long long>(shape.columns.kernel), static_cast<long long>(shape.channels));
    std::exit(1);
  }
}

// Adds the products of one tap of one output to the output, or to the gradient of the pixel that it reads.
template <typename Add>
void ForEachProduct(const DepthwiseConvShape& shape, const Add& add) {
  const ConvAxis &rows = shape.rows, &columns = shape.columns;
  for (int64_t i = 0; i < shape.images * rows.output * columns.output * shape.taps(); ++i) {
    const int64_t tap = i % shape.taps(), output = i / shape.taps();
    const int64_t q = output % columns.output, p = output / columns.output % rows.output;
    const int64_t image = output / columns.output / rows.output;
    const int64_t y = p * rows.stride + tap / columns.kernel - rows.padding;
    const int64_t x = q * columns.stride + tap % columns.kernel - columns.padding;
    if (y < 0 || y >= rows.input || x < 0 || x >= columns.input) continue;
    for (int64_t c = 0; c < shape.channels; ++c) {
      add(((image * rows.input + y) * columns.input + x) * shape.channels + c, tap * shape.channels + c,
          output * shape.channels + c);
    }
  }
}

// Computes the rows in pieces of random size.
void ComputeAll(InstructionSet instruction_set, const DepthwiseSums& sums) {
  for (int64_t first = 0; first < sums.row_count();) {
    const int64_t end = std::min(sums.row_count(), first + 1 + Below(9));
    ComputeRows(instruction_set, sums, first, end);
    first = end;
  }
}

void CheckConvolution(InstructionSet instruction_set, const DepthwiseConvShape& shape) {
  const ConvAxis &rows = shape.rows, &columns = shape.columns;
  const int64_t shift = Below(2) * Below(16), channels = shape.channels;
  const int64_t inputs = shape.images * rows.input * columns.input * channels;
  const int64_t outputs = shape.images * rows.output * columns.output * channels;
  Array images(inputs, shift), kernel(shape.taps() * channels, shift), bias(channels, shift);
  Array found(outputs, shift), gradients(outputs, shift), of_images(inputs, shift);
  const bool has_bias = Below(2) == 0, is_limited = Below(2) == 0;
  const float infinity = std::numeric_limits<float>::infinity();
  const float lowest = is_limited ? 0 : -infinity, highest = is_limited ? 6 : infinity;
  ComputeAll(instruction_set, OutputSums(shape, images.data(), kernel.data(), has_bias ? bias.data() : nullptr, lowest,
                                         highest, found.data()));
  ComputeAll(instruction_set, ImagesGradientSums(shape, gradients.data(), kernel.data(), of_images.data()));
  std::vector<float> expected(outputs), expected_of_images(inputs);
  for (int64_t i = 0; i < outputs; ++i) expected[i] = has_bias ? bias[i % channels] : 0;
  ForEachProduct(shape, [&](int64_t input, int64_t weight, int64_t output) {
    expected[output] += images[input] * kernel[weight];
    expected_of_images[input] += gradients[output] * kernel[weight];
  });
  bool equal = true;
  for (int64_t i = 0; i < outputs; ++i) equal &= found[i] == std::min(highest, std::max(lowest, expected[i]));
  for (int64_t i = 0; i < inputs; ++i) equal &= of_images[i] == expected_of_images[i];
  if (equal) return;
  std::printf("instruction set %d: wrong convolution of %lld x %lld by %lld x %lld, stride %lld x %lld\n",
              static_cast<int>(instruction_set), static_cast<long long>(rows.input),
              static_cast<long long>(columns.input), static_cast<long long>(rows.kernel),
              static_cast<long long>(columns.kernel), static_cast<long long>(rows.stride),
              static_cast<long long>(columns.stride));
  std::exit(1);
}

// An axis whose output has the size that "SAME" or "VALID" give.
ConvAxis ConvolutionAxis() {
  ConvAxis axis = RandomAxis();
  const bool same = Below(2) == 0;
  axis.output = same                       ? (axis.input - 1) / axis.stride + 1
                : axis.input < axis.kernel ? 0
                                           : (axis.input - axis.kernel) / axis.stride + 1;
  axis.padding = same ? std::max<int64_t>(0, (axis.output - 1) * axis.stride + axis.kernel - axis.input) / 2 : 0;
  return axis;
}

void Check(InstructionSet instruction_set) {
  const int64_t channels = 1 + Below(Below(9) == 0 ? 600 : 70);
  CheckFilterGradient(instruction_set, {1 + Below(3), RandomAxis(), RandomAxis(), channels});
  CheckConvolution(instruction_set, {1 + Below(3), ConvolutionAxis(), ConvolutionAxis(), channels});
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
  const int highest = static_cast<int>(ChooseInstructionSet());
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i <= highest; ++i) Check(static_cast<InstructionSet>(i));
  }
  std::printf("%d rounds with %d instruction sets: all equal\n", rounds, highest + 1);
}
