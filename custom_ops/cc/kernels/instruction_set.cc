// Selects the instruction set of the CPU kernels at run time.

#include "instruction_set.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace tf_fast_rcnn {
namespace {

InstructionSet HighestSupported() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return InstructionSet::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return InstructionSet::kAvx2;
#endif
  return InstructionSet::kBaseline;
}

InstructionSet HighestAllowed() {
  const char* name = std::getenv("TF_FAST_RCNN_CPU");
  if (name == nullptr) return InstructionSet::kAvx512;
  if (std::strcmp(name, "baseline") == 0) return InstructionSet::kBaseline;
  if (std::strcmp(name, "avx2") == 0) return InstructionSet::kAvx2;
  return InstructionSet::kAvx512;
}

}  // namespace

InstructionSet ChooseInstructionSet() { return std::min(HighestSupported(), HighestAllowed()); }

}  // namespace tf_fast_rcnn
