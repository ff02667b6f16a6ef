// Loops that the compiler vectorises, compiled for several levels of instructions; the CPU's own is taken when the
// library is loaded. All arithmetic is on integers or single float operations, so every level gives the same bits.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_VECTOR_LOOPS_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_VECTOR_LOOPS_H_

// Sanitizers start after the functions that choose a level would run.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define TF_FAST_RCNN_VECTOR_LOOPS __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define TF_FAST_RCNN_VECTOR_LOOPS
#endif

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_VECTOR_LOOPS_H_
