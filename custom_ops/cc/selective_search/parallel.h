// Work that is shared among threads, whoever has them.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_PARALLEL_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_PARALLEL_H_

#include <cstdint>
#include <functional>

namespace tf_fast_rcnn {
namespace selective_search {

// Calls work(0) to work(count - 1), in any order, and returns when all have returned.
using ParallelFor = std::function<void(int64_t count, const std::function<void(int64_t)>& work)>;

// The same, but what a work throws is thrown again when all have returned.
ParallelFor Rethrowing(ParallelFor parallel_for);

// With threads that are started for each call, the calling one among them. Throws what a work throws.
ParallelFor StartThreads(int threads);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_PARALLEL_H_
