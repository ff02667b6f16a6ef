// Parallel loops, independent of the thread pool that runs them.

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_PARALLEL_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_PARALLEL_H_

#include <cstdint>
#include <functional>

namespace tf_fast_rcnn {
namespace selective_search {

// Calls work(0) to work(count - 1) in any order; returns when all calls have returned.
using ParallelFor = std::function<void(int64_t count, const std::function<void(int64_t)>& work)>;

// Wraps a ParallelFor: an exception thrown by `work` is rethrown once all calls have returned.
ParallelFor Rethrowing(ParallelFor parallel_for);

// Starts `threads` - 1 threads for each call; the calling thread works too. Rethrows exceptions of `work`.
ParallelFor StartThreads(int threads);

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_SELECTIVE_SEARCH_PARALLEL_H_
