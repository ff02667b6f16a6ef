// Definition of the depthwise convolution's kernel gradient: types, attributes and shape function. The kernel is in
// ../kernels/depthwise_conv.

#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tf_fast_rcnn {
namespace {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status FilterGradShape(InferenceContext* context) {
  ShapeHandle images, gradients;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, &images));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(1), 4, &gradients));
  ShapeHandle padding;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(2), 1, &padding));
  DimensionHandle batch, channels, two;
  TF_RETURN_IF_ERROR(context->WithValue(context->Dim(padding, 0), 2, &two));
  TF_RETURN_IF_ERROR(context->Merge(context->Dim(images, 0), context->Dim(gradients, 0), &batch));
  TF_RETURN_IF_ERROR(context->Merge(context->Dim(images, 3), context->Dim(gradients, 3), &channels));
  int64_t height, width;
  TF_RETURN_IF_ERROR(context->GetAttr("kernel_height", &height));
  TF_RETURN_IF_ERROR(context->GetAttr("kernel_width", &width));
  context->set_output(
      0, context->MakeShape({context->MakeDim(height), context->MakeDim(width), channels, context->MakeDim(1)}));
  return absl::OkStatus();
}

}  // namespace

REGISTER_OP("TfFastRcnn>DepthwiseConvFilterGrad")
    .Input("images: float")
    .Input("gradients: float")
    .Input("padding: int32")
    .Output("kernel_gradient: float")
    .Attr("kernel_height: int >= 1")
    .Attr("kernel_width: int >= 1")
    .Attr("stride_rows: int >= 1 = 1")
    .Attr("stride_columns: int >= 1 = 1")
    .SetShapeFn(FilterGradShape)
    .Doc(R"doc(
Gradient of a depthwise convolution (multiplier 1, dilation 1) with respect to its kernel.

images: [N, H, W, C], the input of the convolution.
gradients: [N, OH, OW, C], the gradient with respect to its output.
kernel_gradient: [kernel_height, kernel_width, C, 1].
padding: [2], the zeros above the first row and left of the first column: fewer than the kernel's rows and columns. Not
  an attribute, since "SAME" depends on the size of the images.
)doc");

}  // namespace tf_fast_rcnn
