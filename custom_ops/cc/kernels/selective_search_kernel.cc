// CPU kernel of the selective search op. A batch is parallelised over its images; for a single image, the threads share
// its colour spaces, segmentations and hierarchies.

#include <algorithm>
#include <exception>
#include <string>

#include "../selective_search/selective_search.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/lib/core/threadpool.h"

namespace tf_fast_rcnn {
namespace {

using selective_search::FastMode;
using selective_search::Options;
using selective_search::ParallelFor;
using selective_search::Proposals;
using selective_search::QualityMode;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::thread::ThreadPool;

ParallelFor OnThreads(ThreadPool* threads) {
  return selective_search::Rethrowing([threads](int64_t count, const std::function<void(int64_t)>& work) {
    threads->ParallelFor(count, ThreadPool::SchedulingParams::Fixed(1), [&work](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) work(i);
    });
  });
}

void RunSerially(int64_t count, const std::function<void(int64_t)>& work) {
  for (int64_t i = 0; i < count; ++i) work(i);
}

class SelectiveSearchOp : public tensorflow::OpKernel {
 public:
  explicit SelectiveSearchOp(OpKernelConstruction* context) : OpKernel(context) {
    std::string mode;
    int64_t seed;
    float min_size;
    OP_REQUIRES_OK(context, context->GetAttr("mode", &mode));
    OP_REQUIRES_OK(context, context->GetAttr("max_proposals", &options_.max_boxes));
    OP_REQUIRES_OK(context, context->GetAttr("seed", &seed));
    OP_REQUIRES_OK(context, context->GetAttr("max_side", &options_.max_side));
    OP_REQUIRES_OK(context, context->GetAttr("min_size", &min_size));
    options_.mode = mode == "quality" ? &QualityMode() : &FastMode();
    options_.seed = static_cast<uint64_t>(seed);
    options_.min_size = min_size;
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& images = context->input(0);
    OP_REQUIRES(
        context, images.dims() == 4 && images.dim_size(3) == 3,
        absl::InvalidArgumentError("images: shape is " + images.shape().DebugString() + "; expected [B, H, W, 3]"));
    const int64_t batch = images.dim_size(0), height = images.dim_size(1), width = images.dim_size(2);
    OP_REQUIRES(context, height >= 1 && width >= 1 && height <= selective_search::kMaxPixels / width,
                absl::InvalidArgumentError("images: shape is " + images.shape().DebugString() +
                                           "; expected images of 1 to 2^30 pixels"));
    Tensor *boxes, *counts;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({batch, options_.max_boxes, 4}), &boxes));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({batch}), &counts));
    try {
      SearchAll(context, images, boxes, counts);
    } catch (const std::exception& error) {
      context->SetStatus(absl::ResourceExhaustedError(std::string("selective search: ") + error.what()));
    }
  }

 private:
  void SearchAll(OpKernelContext* context, const Tensor& images, Tensor* boxes, Tensor* counts) const {
    const int64_t batch = images.dim_size(0), height = images.dim_size(1), width = images.dim_size(2);
    const auto search = [&](int64_t i, int threads, const ParallelFor& parallel_for) {
      const uint8_t* image = images.flat<uint8_t>().data() + i * height * width * 3;
      const Proposals found = SelectiveSearch({image, height, width}, options_, threads, parallel_for);
      const auto count = static_cast<int64_t>(found.boxes.size());
      float* of_image = boxes->flat<float>().data() + i * options_.max_boxes * 4;
      WriteRelative(found, of_image);
      std::fill(of_image + count * 4, of_image + options_.max_boxes * 4, 0.0f);
      counts->flat<int32_t>()(i) = static_cast<int32_t>(count);
    };
    ThreadPool* threads = context->device()->tensorflow_cpu_worker_threads()->workers;
    if (batch == 1) return search(0, threads->NumThreads(), OnThreads(threads));
    OnThreads(threads)(batch, [&](int64_t i) { search(i, 1, RunSerially); });
  }

  Options options_;
};

REGISTER_KERNEL_BUILDER(Name("TfFastRcnn>SelectiveSearch").Device(tensorflow::DEVICE_CPU), SelectiveSearchOp);

}  // namespace
}  // namespace tf_fast_rcnn
