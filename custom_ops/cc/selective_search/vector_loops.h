// Function multiversioning for loops that the compiler vectorises: compiled for several instruction sets, of which one
// is selected when the library is loaded. All arithmetic is on integers or is a single float operation, so the results
// are bitwise identical.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_VECTOR_LOOPS_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_VECTOR_LOOPS_H_

// Not with sanitizers: the functions that select an instruction set run before the sanitizer runtime is initialised.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define TF_FAST_RCNN_VECTOR_LOOPS __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define TF_FAST_RCNN_VECTOR_LOOPS
#endif

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_VECTOR_LOOPS_H_
