// The instruction set that the CPU kernels use, chosen at run time.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_INSTRUCTION_SET_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_INSTRUCTION_SET_H_

namespace tf_fast_rcnn {

// The instruction sets that the kernels are compiled for, each a superset of the previous one.
enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

// The best instruction set of this CPU, or a lower one named by the environment variable TF_FAST_RCNN_CPU (baseline,
// avx2 or avx512).
InstructionSet ChooseInstructionSet();

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_INSTRUCTION_SET_H_
