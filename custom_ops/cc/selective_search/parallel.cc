#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace tf_fast_rcnn {
namespace selective_search {

ParallelFor Rethrowing(ParallelFor parallel_for) {
  return [parallel_for = std::move(parallel_for)](int64_t count, const std::function<void(int64_t)>& work) {
    std::mutex mutex;
    std::exception_ptr error;
    parallel_for(count, [&](int64_t i) {
      try {
        work(i);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        error = std::current_exception();
      }
    });
    if (error) std::rethrow_exception(error);
  };
}

ParallelFor StartThreads(int threads) {
  return Rethrowing([threads](int64_t count, const std::function<void(int64_t)>& work) {
    std::atomic<int64_t> next{0};
    const auto work_until_done = [&] {
      for (int64_t i; (i = next++) < count;) work(i);
    };
    std::vector<std::thread> others;
    for (int64_t i = 1; i < std::min<int64_t>(threads, count); ++i) others.emplace_back(work_until_done);
    work_until_done();
    for (std::thread& other : others) other.join();
  });
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn
