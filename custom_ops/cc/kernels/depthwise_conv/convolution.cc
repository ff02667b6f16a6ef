// The sums that make up a convolution and its gradient, and the call of the kernel of the selected instruction set.

#include "convolution.h"

#include <limits>

#include "instruction_sets.h"

namespace tf_fast_rcnn {
namespace {

// Output o of a convolution adds the input at o * stride - padding + k for tap k: one part.
std::vector<AxisPart> OutputParts(const ConvAxis& axis) {
  AxisPart part{};
  part.step = 1;
  part.count = axis.output;
  part.taps = axis.kernel;
  part.kernel_step = part.offset_step = 1;
  part.source = axis.input;
  part.stride = axis.stride;
  part.offset = -axis.padding;
  return {part};
}

// The gradient of input i adds the gradients of the outputs (i + padding - k) / stride for all taps k for which this is
// a whole number. They are the same taps for every stride-th input: one part for each remainder.
std::vector<AxisPart> InputParts(const ConvAxis& axis) {
  std::vector<AxisPart> parts;
  for (int64_t first = 0; first < axis.stride; ++first) {
    AxisPart part{};
    part.first = first;
    part.step = part.kernel_step = axis.stride;
    part.count = first < axis.input ? (axis.input - 1 - first) / axis.stride + 1 : 0;
    part.first_kernel = (first + axis.padding) % axis.stride;
    part.taps = part.first_kernel < axis.kernel ? (axis.kernel - 1 - part.first_kernel) / axis.stride + 1 : 0;
    part.source = axis.output;
    part.stride = 1;
    part.offset = (first + axis.padding - part.first_kernel) / axis.stride;
    part.offset_step = -1;
    parts.push_back(part);
  }
  return parts;
}

}  // namespace

DepthwiseSums OutputSums(const DepthwiseConvShape& shape, const float* images, const float* kernel, const float* bias,
                         float lowest, float highest, float* output) {
  const ConvAxis &rows = shape.rows, &columns = shape.columns;
  return {shape.images,
          shape.channels,
          columns.kernel,
          rows.input,
          columns.input,
          rows.output,
          columns.output,
          OutputParts(rows),
          OutputParts(columns),
          images,
          kernel,
          bias,
          lowest,
          highest,
          output};
}

DepthwiseSums ImagesGradientSums(const DepthwiseConvShape& shape, const float* gradients, const float* kernel,
                                 float* images_gradient) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const ConvAxis &rows = shape.rows, &columns = shape.columns;
  return {shape.images, shape.channels, columns.kernel,   rows.output,         columns.output,
          rows.input,   columns.input,  InputParts(rows), InputParts(columns), gradients,
          kernel,       nullptr,        -kInfinity,       kInfinity,           images_gradient};
}

void ComputeRows(InstructionSet instruction_set, const DepthwiseSums& sums, int64_t first, int64_t end) {
#ifdef __x86_64__
  if (instruction_set == InstructionSet::kAvx2) return avx2::ComputeRows(sums, first, end);
  if (instruction_set == InstructionSet::kAvx512) return avx512::ComputeRows(sums, first, end);
#else
  (void)instruction_set;
#endif
  baseline::ComputeRows(sums, first, end);
}

}  // namespace tf_fast_rcnn
