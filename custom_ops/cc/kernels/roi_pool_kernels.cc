// CPU kernels of the RoI pooling ops: they check shapes and share the work of roi_pool.h among threads.

#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

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

// Rough cycles to pool one value (its bin has some ten cells, several channels are compared at a time), and to pass one
// gradient on: they only decide how finely the work is cut.
constexpr int64_t kCyclesPerPooledValue = 5;
constexpr int64_t kCyclesPerGradient = 3;

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

void ParallelFor(OpKernelContext* context, int64_t total, int64_t cost,
                 const std::function<void(int64_t, int64_t)>& work) {
  using Scheduling = tensorflow::thread::ThreadPool::SchedulingParams;
  context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(total, Scheduling::Adaptive(cost), work);
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
    ParallelFor(context, shape.batch * shape.rois, shape.bins() * shape.channels * kCyclesPerPooledValue,
                [&](int64_t first, int64_t last) {
                  RoiPool(shape, spatial_scale_, features_data, rois_data, first, last, pooled_data, argmax_data);
                });
  }

  int64_t output_height_, output_width_;
  float spatial_scale_;
};

template <typename T>
class RoiPoolGradOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

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

  // Each unit of work is one block of channels of one image.
  static void AddGradients(OpKernelContext* context, const RoiPoolShape& shape, const Tensor& pooled_gradient,
                           const Tensor& argmax, Tensor* gradient) {
    const T* pooled_data = pooled_gradient.flat<T>().data();
    const int32_t* argmax_data = argmax.flat<int32_t>().data();
    T* gradient_data = gradient->flat<T>().data();
    const int64_t blocks = (shape.channels + kChannelBlock - 1) / kChannelBlock;
    const int64_t bins = shape.rois * shape.bins();
    const int64_t cells = shape.height * shape.width;
    ParallelFor(context, shape.batch * blocks, (bins + cells) * kChannelBlock * kCyclesPerGradient,
                [&](int64_t first, int64_t last) {
                  for (int64_t unit = first; unit < last; ++unit) {
                    const int64_t image = unit / blocks;
                    const int64_t channel = unit % blocks * kChannelBlock;
                    const int64_t offset = image * bins * shape.channels + channel;
                    AddBlock(shape, pooled_data + offset, argmax_data + offset,
                             std::min<int64_t>(kChannelBlock, shape.channels - channel),
                             gradient_data + image * cells * shape.channels + channel);
                  }
                });
  }

  static void AddBlock(const RoiPoolShape& shape, const T* pooled_gradient, const int32_t* argmax, int64_t count,
                       T* gradient) {
    using Sum = typename SumOf<T>::Type;
    const int64_t cells = shape.height * shape.width;
    if constexpr (std::is_same_v<T, Sum>) {
      for (int64_t cell = 0; cell < cells; ++cell) std::fill_n(gradient + cell * shape.channels, count, T(0));
      AddRoiPoolGradient(shape, pooled_gradient, argmax, count, shape.channels, gradient);
    } else {
      std::vector<Sum> sums(cells * count, Sum(0));
      AddRoiPoolGradient(shape, pooled_gradient, argmax, count, count, sums.data());
      for (int64_t cell = 0; cell < cells; ++cell) {
        for (int64_t c = 0; c < count; ++c) gradient[cell * shape.channels + c] = T(sums[cell * count + c]);
      }
    }
  }
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
