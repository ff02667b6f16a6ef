// TensorFlow kernels for every device: attributes, input checks and output allocation. A device supplies the
// computation as a class template of this form:
//
//     template <typename T>
//     struct Implementation {
//       // `argmax` may be null.
//       void Forward(OpKernelContext*, const RoiPoolShape&, float spatial_scale, const T* features, const float* rois,
//                    T* pooled, int32_t* argmax) const;
//       void Backward(OpKernelContext*, const RoiPoolShape&, float spatial_scale, const T* pooled_gradient,
//                     const int32_t* argmax, const float* rois, T* features_gradient) const;
//     };

#ifndef TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_OP_KERNELS_H_
#define TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_OP_KERNELS_H_

#include <cmath>
#include <limits>

#include "../invalid_argument.h"
#include "geometry.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/register_types.h"
#include "tensorflow/core/framework/tensor_shape.h"

namespace tf_fast_rcnn {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

inline absl::Status CheckCells(int64_t height, int64_t width) {
  if (height < 1 || width < 1) {
    return InvalidArgument("features: H x W is ", height, " x ", width, "; expected at least 1 x 1");
  }
  if (height > std::numeric_limits<int32_t>::max() / width) {
    return InvalidArgument("features: H x W is ", height, " x ", width, "; expected fewer than 2^31 cells");
  }
  return absl::OkStatus();
}

inline absl::Status CheckRois(const Tensor& rois, int64_t images) {
  if (rois.dims() != 3 || rois.dim_size(2) != 4) {
    return InvalidArgument("rois: shape is ", rois.shape().DebugString(), "; expected [B, R, 4]");
  }
  if (rois.dim_size(0) != images) {
    return InvalidArgument("rois: batch size is ", rois.dim_size(0), "; expected ", images, ", that of the features");
  }
  return absl::OkStatus();
}

inline absl::Status ReadSpatialScale(OpKernelConstruction* context, float* spatial_scale) {
  TF_RETURN_IF_ERROR(context->GetAttr("spatial_scale", spatial_scale));
  if (!std::isfinite(*spatial_scale) || *spatial_scale <= 0) {
    return InvalidArgument("spatial_scale: value is ", *spatial_scale, "; expected a positive finite number");
  }
  return absl::OkStatus();
}

template <template <typename> class Implementation, typename T, bool with_argmax>
class RoiPoolOp : public OpKernel {
 public:
  explicit RoiPoolOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("output_height", &output_height_));
    OP_REQUIRES_OK(context, context->GetAttr("output_width", &output_width_));
    OP_REQUIRES_OK(context, ReadSpatialScale(context, &spatial_scale_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& features = context->input(0);
    const Tensor& rois = context->input(1);
    OP_REQUIRES(context, features.dims() == 4,
                InvalidArgument("features: shape is ", features.shape().DebugString(), "; expected [B, H, W, C]"));
    OP_REQUIRES_OK(context, CheckRois(rois, features.dim_size(0)));
    OP_REQUIRES_OK(context, CheckCells(features.dim_size(1), features.dim_size(2)));
    const RoiPoolShape shape = {features.dim_size(0), features.dim_size(1), features.dim_size(2), features.dim_size(3),
                                rois.dim_size(1),     output_height_,       output_width_};
    TensorShape pooled_shape;
    OP_REQUIRES_OK(
        context, TensorShape::BuildTensorShape({shape.batch, shape.rois, output_height_, output_width_, shape.channels},
                                               &pooled_shape));
    Tensor* pooled = nullptr;
    Tensor* argmax = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, pooled_shape, &pooled));
    if (with_argmax) OP_REQUIRES_OK(context, context->allocate_output(1, pooled_shape, &argmax));
    if (pooled->NumElements() == 0) return;
    implementation_.Forward(context, shape, spatial_scale_, features.flat<T>().data(), rois.flat<float>().data(),
                            pooled->flat<T>().data(), with_argmax ? argmax->flat<int32_t>().data() : nullptr);
  }

 private:
  int64_t output_height_, output_width_;
  float spatial_scale_;
  const Implementation<T> implementation_{};
};

template <template <typename> class Implementation, typename T>
class RoiPoolGradOp : public OpKernel {
 public:
  explicit RoiPoolGradOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, ReadSpatialScale(context, &spatial_scale_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& pooled_gradient = context->input(0);
    const Tensor& argmax = context->input(1);
    const Tensor& rois = context->input(2);
    TensorShape features_shape;
    OP_REQUIRES_OK(context, FeaturesShape(context->input(3), &features_shape));
    OP_REQUIRES_OK(context, CheckRois(rois, features_shape.dim_size(0)));
    OP_REQUIRES(context, pooled_gradient.dims() == 5 && pooled_gradient.shape() == argmax.shape(),
                InvalidArgument("pooled_gradient: shape is ", pooled_gradient.shape().DebugString(),
                                ", that of argmax is ", argmax.shape().DebugString(),
                                "; expected the same shape [B, R, output_height, output_width, C]"));
    OP_REQUIRES(
        context,
        pooled_gradient.dim_size(0) == features_shape.dim_size(0) && pooled_gradient.dim_size(1) == rois.dim_size(1) &&
            pooled_gradient.dim_size(4) == features_shape.dim_size(3),
        InvalidArgument("pooled_gradient: shape is ", pooled_gradient.shape().DebugString(), ", features_shape is ",
                        features_shape.DebugString(), ", that of rois is ", rois.shape().DebugString(),
                        "; expected equal batch sizes, RoI counts and channel counts"));
    Tensor* gradient = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, features_shape, &gradient));
    if (gradient->NumElements() == 0) return;
    const RoiPoolShape shape = {features_shape.dim_size(0), features_shape.dim_size(1),  features_shape.dim_size(2),
                                features_shape.dim_size(3), pooled_gradient.dim_size(1), pooled_gradient.dim_size(2),
                                pooled_gradient.dim_size(3)};
    implementation_.Backward(context, shape, spatial_scale_, pooled_gradient.flat<T>().data(),
                             argmax.flat<int32_t>().data(), rois.flat<float>().data(), gradient->flat<T>().data());
  }

 private:
  static absl::Status FeaturesShape(const Tensor& sizes, TensorShape* shape) {
    if (sizes.dims() != 1 || sizes.NumElements() != 4) {
      return InvalidArgument("features_shape: shape is ", sizes.shape().DebugString(), "; expected [4]");
    }
    TF_RETURN_IF_ERROR(tensorflow::TensorShapeUtils::MakeShape(sizes.vec<int32_t>(), shape));
    return CheckCells(shape->dim_size(1), shape->dim_size(2));
  }

  float spatial_scale_;
  const Implementation<T> implementation_{};
};

// Registers the kernels of one device for type T. `features_shape` is always in host memory.
#define TF_FAST_RCNN_REGISTER_ROI_POOL(device, Implementation, T)                                        \
  REGISTER_KERNEL_BUILDER(Name("TfFastRcnn>RoiPool").Device(device).TypeConstraint<T>("T"),              \
                          RoiPoolOp<Implementation, T, false>);                                          \
  REGISTER_KERNEL_BUILDER(Name("TfFastRcnn>RoiPoolWithArgmax").Device(device).TypeConstraint<T>("T"),    \
                          RoiPoolOp<Implementation, T, true>);                                           \
  REGISTER_KERNEL_BUILDER(                                                                               \
      Name("TfFastRcnn>RoiPoolGrad").Device(device).HostMemory("features_shape").TypeConstraint<T>("T"), \
      RoiPoolGradOp<Implementation, T>);

}  // namespace tf_fast_rcnn

#endif  // TF_FAST_RCNN_CUSTOM_OPS_CC_KERNELS_ROI_POOL_OP_KERNELS_H_
