// CPU kernels of the RoI pooling ops: they check shapes and share the work of roi_pool.h among threads.

#include <functional>
#include <limits>
#include <numeric>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "roi_pool.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/register_types.h"
#include "tensorflow/core/framework/tensor_shape.h"
#include "tensorflow/core/lib/core/threadpool.h"

namespace tf_fast_rcnn {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

template <typename... Parts>
absl::Status InvalidArgument(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// Rough cycles to pool one value (its bin has some ten cells, several channels are compared at a time): it only decides
// how finely the work is cut.
constexpr int64_t kCyclesPerPooledValue = 2;

// What RoiPool orders values of type T as.
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

// Gradients of 16 bits are summed in 32: hundreds of overlapping RoIs meet in one cell.
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

// Outputs of this size are taken as too large for what this process has of the last-level cache, whose whole size says
// little: on a virtual machine it is that of all its neighbours too.
constexpr int64_t kStreamedBytes = int64_t{32} << 20;

bool IsStreamed(const Tensor& output) { return output.TotalBytes() >= static_cast<size_t>(kStreamedBytes); }

absl::Status CheckCells(int64_t height, int64_t width) {
  if (height < 1 || width < 1) {
    return InvalidArgument("features have ", height, " x ", width, " cells; expected at least one");
  }
  if (height > std::numeric_limits<int32_t>::max() / width) {
    return InvalidArgument("features have ", height, " x ", width, " cells; expected fewer than 2^31");
  }
  return absl::OkStatus();
}

absl::Status CheckInputs(const Tensor& features, const Tensor& rois) {
  if (features.dims() != 4) {
    return InvalidArgument("features have shape ", features.shape().DebugString(), "; expected [B, H, W, C]");
  }
  if (rois.dims() != 3 || rois.dim_size(2) != 4) {
    return InvalidArgument("rois have shape ", rois.shape().DebugString(), "; expected [B, R, 4]");
  }
  if (features.dim_size(0) != rois.dim_size(0)) {
    return InvalidArgument("features hold ", features.dim_size(0), " images and rois ", rois.dim_size(0),
                           "; expected as many");
  }
  return CheckCells(features.dim_size(1), features.dim_size(2));
}

using Scheduling = tensorflow::thread::ThreadPool::SchedulingParams;

tensorflow::thread::ThreadPool* Threads(OpKernelContext* context) {
  return context->device()->tensorflow_cpu_worker_threads()->workers;
}

template <typename T, bool with_argmax>
class RoiPoolOp : public OpKernel {
 public:
  explicit RoiPoolOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("output_height", &output_height_));
    OP_REQUIRES_OK(context, context->GetAttr("output_width", &output_width_));
    OP_REQUIRES_OK(context, context->GetAttr("spatial_scale", &spatial_scale_));
    OP_REQUIRES(context, std::isfinite(spatial_scale_) && spatial_scale_ > 0,
                InvalidArgument("spatial_scale is ", spatial_scale_, "; expected a positive number"));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& features = context->input(0);
    const Tensor& rois = context->input(1);
    OP_REQUIRES_OK(context, CheckInputs(features, rois));
    const RoiPoolShape shape = {features.dim_size(0), features.dim_size(1), features.dim_size(2), features.dim_size(3),
                                rois.dim_size(1),     output_height_,       output_width_};
    TensorShape pooled_shape;
    OP_REQUIRES_OK(context, TensorShape::BuildTensorShape(
                                {shape.batch, shape.rois, output_height_, output_width_, shape.channels},
                                &pooled_shape));
    Tensor* pooled = nullptr;
    Tensor* argmax = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, pooled_shape, &pooled));
    if (with_argmax) OP_REQUIRES_OK(context, context->allocate_output(1, pooled_shape, &argmax));
    if (pooled->NumElements() == 0) return;
    Pool(context, shape, features, rois, pooled, argmax);
  }

 private:
  void Pool(OpKernelContext* context, const RoiPoolShape& shape, const Tensor& features, const Tensor& rois,
            Tensor* pooled, Tensor* argmax) const {
    using Value = typename Ordered<T>::Type;
    const auto* features_data = reinterpret_cast<const Value*>(features.flat<T>().data());
    const float* rois_data = rois.flat<float>().data();
    auto* pooled_data = reinterpret_cast<Value*>(pooled->flat<T>().data());
    int32_t* argmax_data = with_argmax ? argmax->flat<int32_t>().data() : nullptr;
    const bool stream = IsStreamed(*pooled);
    const auto cost = Scheduling::Adaptive(shape.bins() * shape.channels * kCyclesPerPooledValue);
    Threads(context)->ParallelFor(shape.batch * shape.rois, cost, [&](int64_t first, int64_t last) {
      RoiPool(level_, shape, spatial_scale_, features_data, rois_data, first, last, stream, pooled_data, argmax_data);
    });
  }

  int64_t output_height_, output_width_;
  float spatial_scale_;
  const CpuLevel level_ = ChooseCpuLevel();
};

template <typename T>
class RoiPoolGradOp : public OpKernel {
 public:
  explicit RoiPoolGradOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& pooled_gradient = context->input(0);
    const Tensor& argmax = context->input(1);
    TensorShape features_shape;
    OP_REQUIRES_OK(context, FeaturesShape(context->input(2), &features_shape));
    OP_REQUIRES(context, pooled_gradient.dims() == 5 && pooled_gradient.shape() == argmax.shape(),
                InvalidArgument("pooled_gradient has shape ", pooled_gradient.shape().DebugString(), ", argmax ",
                                argmax.shape().DebugString(), "; expected [B, R, P, Q, C] of both"));
    OP_REQUIRES(context,
                pooled_gradient.dim_size(0) == features_shape.dim_size(0) &&
                    pooled_gradient.dim_size(4) == features_shape.dim_size(3),
                InvalidArgument("pooled_gradient has shape ", pooled_gradient.shape().DebugString(),
                                ", the features have ", features_shape.DebugString(),
                                "; expected as many images and channels"));
    Tensor* gradient = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, features_shape, &gradient));
    if (gradient->NumElements() == 0) return;
    const RoiPoolShape shape = {features_shape.dim_size(0),  features_shape.dim_size(1),  features_shape.dim_size(2),
                                features_shape.dim_size(3),  pooled_gradient.dim_size(1), pooled_gradient.dim_size(2),
                                pooled_gradient.dim_size(3)};
    AddGradients(context, shape, pooled_gradient, argmax, gradient);
  }

 private:
  static absl::Status FeaturesShape(const Tensor& sizes, TensorShape* shape) {
    if (sizes.dims() != 1 || sizes.NumElements() != 4) {
      return InvalidArgument("features_shape has shape ", sizes.shape().DebugString(), "; expected [4]");
    }
    TF_RETURN_IF_ERROR(tensorflow::TensorShapeUtils::MakeShape(sizes.vec<int32_t>(), shape));
    return CheckCells(shape->dim_size(1), shape->dim_size(2));
  }

  // Each unit of work is some blocks of channels of one image: as many units as can be shared fairly.
  void AddGradients(OpKernelContext* context, const RoiPoolShape& shape, const Tensor& pooled_gradient,
                    const Tensor& argmax, Tensor* gradient) const {
    using Sum = typename SumOf<T>::Type;
    Tensor sums;
    OP_REQUIRES_OK(context,
                   context->allocate_temp(tensorflow::DataTypeToEnum<Sum>::value, gradient->shape(), &sums));
    const T* pooled_data = pooled_gradient.flat<T>().data();
    const int32_t* argmax_data = argmax.flat<int32_t>().data();
    T* gradient_data = gradient->flat<T>().data();
    Sum* sums_data = sums.flat<Sum>().data();
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
        AddRoiPoolGradient(level_, shape, pooled_data + offset, argmax_data + offset, count, unit_sums);
        CopySums(shape, unit_sums, count, gradient_data + of_image * shape.channels + channel);
      }
    });
  }

  // From the blocks of AddRoiPoolGradient to the layout of the features.
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

  const CpuLevel level_ = ChooseCpuLevel();
};

#define REGISTER_ROI_POOL(T)                                                                     \
  REGISTER_KERNEL_BUILDER(                                                                       \
      Name("TfFastRcnn>RoiPool").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"),          \
      RoiPoolOp<T, false>);                                                                      \
  REGISTER_KERNEL_BUILDER(                                                                       \
      Name("TfFastRcnn>RoiPoolWithArgmax").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"), \
      RoiPoolOp<T, true>);                                                                       \
  REGISTER_KERNEL_BUILDER(                                                                       \
      Name("TfFastRcnn>RoiPoolGrad").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"),      \
      RoiPoolGradOp<T>);

REGISTER_ROI_POOL(Eigen::half);
REGISTER_ROI_POOL(Eigen::bfloat16);
REGISTER_ROI_POOL(float);
REGISTER_ROI_POOL(double);

#undef REGISTER_ROI_POOL

}  // namespace
}  // namespace tf_fast_rcnn
