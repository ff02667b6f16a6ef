// Code that does not depend on the instruction set: dividing the work, and calling the kernel of the selected one.

#include "instruction_sets.h"

namespace tf_fast_rcnn {
namespace {

// A part has this many outputs per tap, so that adding up the parts takes little time, and this many rows, since
// neighbouring parts read some rows of the images twice.
constexpr int64_t kOutputsPerTap = 16, kMinRows = 8;
// Few enough channels that the rows in use fit in L2, and a multiple of every block of channels.
constexpr int64_t kMaxChannels = 256, kChannelMultiple = 32;

int64_t Divide(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

}  // namespace

WorkUnits::WorkUnits(const DepthwiseConvShape& shape)
    : rows_(shape.images * shape.rows.output), channels_(shape.channels) {
  const int64_t outputs_of_row = std::max<int64_t>(1, shape.columns.output);
  rows_of_part_ = std::max(kMinRows, Divide(kOutputsPerTap * shape.taps(), outputs_of_row));
  row_parts_ = Divide(rows_, rows_of_part_);
  channels_of_group_ = Divide(Divide(channels_, Divide(channels_, kMaxChannels)), kChannelMultiple) * kChannelMultiple;
  channel_groups_ = Divide(channels_, channels_of_group_);
}

WorkUnits::Unit WorkUnits::operator[](int64_t index) const {
  const int64_t part = index / channel_groups_, group = index % channel_groups_;
  const int64_t row = part * rows_of_part_, channel = group * channels_of_group_;
  return {part, row, std::min(row + rows_of_part_, rows_), channel, std::min(channel + channels_of_group_, channels_)};
}

void SumUnit(InstructionSet instruction_set, const DepthwiseConvShape& shape, const WorkUnits::Unit& unit,
             const float* images, const float* gradients, float* sums) {
#ifdef __x86_64__
  if (instruction_set == InstructionSet::kAvx2) return avx2::SumUnit(shape, unit, images, gradients, sums);
  if (instruction_set == InstructionSet::kAvx512) return avx512::SumUnit(shape, unit, images, gradients, sums);
#else
  (void)instruction_set;
#endif
  baseline::SumUnit(shape, unit, images, gradients, sums);
}

}  // namespace tf_fast_rcnn
