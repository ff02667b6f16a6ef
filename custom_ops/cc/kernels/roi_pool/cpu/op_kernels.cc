// CPU kernels of the RoI pooling ops: run the functions of roi_pool.h on TensorFlow's thread pool.

#include "../op_kernels.h"

#include <numeric>
#include <vector>

#include "roi_pool.h"
#include "tensorflow/core/lib/core/threadpool.h"

namespace tf_fast_rcnn {
namespace {

// A rough estimate (a bin has about ten cells, and several channels are compared at a time). It only determines how the
// work is split.
constexpr int64_t kCyclesPerPooledValue = 2;

// The type by which RoiPool compares values of type T.
template <typename T>
struct Ordered {
  using Type = T;
};
template <>
struct Ordered<Eigen::half> {
  using Type = Float16Bits;
};
template <>
struct Ordered<Eigen::bfloat16> {
  using Type = Float16Bits;
};

// 16-bit gradients are accumulated in float32, since hundreds of overlapping RoIs can add to one cell.
template <typename T>
struct SumOf {
  using Type = T;
};
template <>
struct SumOf<Eigen::half> {
  using Type = float;
};
template <>
struct SumOf<Eigen::bfloat16> {
  using Type = float;
};

// Outputs of at least this size bypass the cache. An estimate of this process's share of the last-level cache: its
// total size is no guide, since a virtual machine shares it with its neighbours.
constexpr int64_t kStreamedBytes = int64_t{32} << 20;

using Scheduling = tensorflow::thread::ThreadPool::SchedulingParams;

tensorflow::thread::ThreadPool* Threads(OpKernelContext* context) {
  return context->device()->tensorflow_cpu_worker_threads()->workers;
}

template <typename T>
class CpuRoiPool {
 public:
  void Forward(OpKernelContext* context, const RoiPoolShape& shape, float spatial_scale, const T* features,
               const float* rois, T* pooled, int32_t* argmax) const {
    using Value = typename Ordered<T>::Type;
    const auto* features_data = reinterpret_cast<const Value*>(features);
    auto* pooled_data = reinterpret_cast<Value*>(pooled);
    const int64_t all_rois = shape.batch * shape.rois, values_of_roi = shape.bins() * shape.channels;
    const bool stream = all_rois * values_of_roi * static_cast<int64_t>(sizeof(T)) >= kStreamedBytes;
    const auto cost = Scheduling::Adaptive(values_of_roi * kCyclesPerPooledValue);
    Threads(context)->ParallelFor(all_rois, cost, [&](int64_t first, int64_t last) {
      RoiPool(instruction_set_, shape, spatial_scale, features_data, rois, first, last, stream, pooled_data, argmax);
    });
  }

  // Each unit of work is a range of channel blocks of one image. If there are enough channels, the number of units is a
  // multiple of the number of threads.
  void Backward(OpKernelContext* context, const RoiPoolShape& shape, float spatial_scale, const T* pooled_gradient,
                const int32_t* argmax, const float* rois, T* features_gradient) const {
    using Sum = typename SumOf<T>::Type;
    Tensor sums;
    OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DataTypeToEnum<Sum>::value,
                                                   TensorShape({shape.batch, shape.cells(), shape.channels}), &sums));
    Sum* sums_data = sums.flat<Sum>().data();
    std::vector<std::vector<int64_t>> orders;
    for (int64_t image = 0; image < shape.batch; ++image) {
      orders.push_back(SortByLocation(shape, spatial_scale, rois + image * shape.rois * 4));
    }
    const int64_t threads = Threads(context)->NumThreads();
    const int64_t parts = threads / std::gcd(threads, shape.batch);
    const int64_t blocks = (shape.channels + kGradientBlock - 1) / kGradientBlock;
    const int64_t channels_of_unit = (blocks + parts - 1) / parts * kGradientBlock;
    const int64_t units_of_image = (shape.channels + channels_of_unit - 1) / channels_of_unit;
    Threads(context)->ParallelFor(shape.batch * units_of_image, Scheduling::Fixed(1), [&](int64_t first, int64_t last) {
      for (int64_t unit = first; unit < last; ++unit) {
        const int64_t image = unit / units_of_image;
        const int64_t channel = unit % units_of_image * channels_of_unit;
        const int64_t count = std::min(channels_of_unit, shape.channels - channel);
        const int64_t of_image = image * shape.cells();
        const int64_t offset = image * shape.rois * shape.bins() * shape.channels + channel;
        Sum* unit_sums = sums_data + of_image * shape.channels + channel * shape.cells();
        std::fill_n(unit_sums, shape.cells() * count, Sum(0));
        RoiPoolGradient<T, Sum>(instruction_set_, shape, spatial_scale, pooled_gradient + offset, argmax + offset,
                                rois + image * shape.rois * 4, orders[image], count, unit_sums)
            .Add();
        CopySums(shape, unit_sums, count, features_gradient + of_image * shape.channels + channel);
      }
    });
  }

 private:
  // Copies the channel blocks of RoiPoolGradient::Add into the NHWC layout of the features.
  template <typename Sum>
  static void CopySums(const RoiPoolShape& shape, const Sum* sums, int64_t count, T* gradient) {
    for (int64_t c = 0; c < count; c += kGradientBlock) {
      const int64_t channels = std::min(kGradientBlock, count - c);
      for (int64_t cell = 0; cell < shape.cells(); ++cell, sums += channels) {
        T* to = gradient + cell * shape.channels + c;
        for (int64_t i = 0; i < channels; ++i) to[i] = static_cast<T>(sums[i]);
      }
    }
  }

  const InstructionSet instruction_set_ = ChooseInstructionSet();
};

TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_CPU, CpuRoiPool, Eigen::half)
TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_CPU, CpuRoiPool, Eigen::bfloat16)
TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_CPU, CpuRoiPool, float)
TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_CPU, CpuRoiPool, double)

}  // namespace
}  // namespace tf_fast_rcnn
