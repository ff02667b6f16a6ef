// Definitions of the depthwise convolution and its gradients: types, attributes and shape functions. The kernels are in
// ../kernels/depthwise_conv.

#include <string>

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

// The size of the output along one axis, if it is known.
absl::Status OutputSize(InferenceContext* context, int image_axis, int kernel_axis, const char* stride_name, bool same,
                        DimensionHandle* output) {
  const DimensionHandle input = context->Dim(context->input(0), image_axis);
  const DimensionHandle kernel = context->Dim(context->input(1), kernel_axis);
  *output = context->UnknownDim();
  if (!context->ValueKnown(input) || (!same && !context->ValueKnown(kernel))) return absl::OkStatus();
  int64_t stride;
  TF_RETURN_IF_ERROR(context->GetAttr(stride_name, &stride));
  const int64_t windows = same ? context->Value(input) : context->Value(input) - context->Value(kernel) + 1;
  *output = context->MakeDim(windows <= 0 ? 0 : (windows + stride - 1) / stride);
  return absl::OkStatus();
}

absl::Status ConvShape(InferenceContext* context) {
  ShapeHandle images, kernel, bias;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, &images));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(1), 4, &kernel));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(2), 1, &bias));
  DimensionHandle channels, one, rows, columns;
  TF_RETURN_IF_ERROR(context->Merge(context->Dim(images, 3), context->Dim(kernel, 2), &channels));
  TF_RETURN_IF_ERROR(context->Merge(channels, context->Dim(bias, 0), &channels));
  TF_RETURN_IF_ERROR(context->WithValue(context->Dim(kernel, 3), 1, &one));
  std::string padding;
  TF_RETURN_IF_ERROR(context->GetAttr("padding", &padding));
  TF_RETURN_IF_ERROR(OutputSize(context, 1, 0, "stride_rows", padding == "SAME", &rows));
  TF_RETURN_IF_ERROR(OutputSize(context, 2, 1, "stride_columns", padding == "SAME", &columns));
  context->set_output(0, context->MakeShape({context->Dim(images, 0), rows, columns, channels}));
  return absl::OkStatus();
}

absl::Status InputGradShape(InferenceContext* context) {
  ShapeHandle images, other;
  TF_RETURN_IF_ERROR(context->MakeShapeFromShapeTensor(0, &images));
  TF_RETURN_IF_ERROR(context->WithRank(images, 4, &images));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(1), 4, &other));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(2), 4, &other));
  context->set_output(0, images);
  return absl::OkStatus();
}

}  // namespace

REGISTER_OP("TfFastRcnn>DepthwiseConv")
    .Input("images: float")
    .Input("kernel: float")
    .Input("bias: float")
    .Output("output: float")
    .Attr("stride_rows: int >= 1 = 1")
    .Attr("stride_columns: int >= 1 = 1")
    .Attr("padding: {'SAME', 'VALID'} = 'SAME'")
    .Attr("activation: {'linear', 'relu', 'relu6'} = 'linear'")
    .SetShapeFn(ConvShape)
    .Doc(R"doc(
Depthwise convolution (multiplier 1, dilation 1), bias and activation.

images: [N, H, W, C].
kernel: [KH, KW, C, 1].
bias: [C].
output: [N, OH, OW, C].
)doc");

REGISTER_OP("TfFastRcnn>DepthwiseConvInputGrad")
    .Input("images_shape: int32")
    .Input("kernel: float")
    .Input("gradients: float")
    .Output("images_gradient: float")
    .Attr("stride_rows: int >= 1 = 1")
    .Attr("stride_columns: int >= 1 = 1")
    .Attr("padding: {'SAME', 'VALID'} = 'SAME'")
    .SetShapeFn(InputGradShape)
    .Doc(R"doc(
Gradient of a depthwise convolution (multiplier 1, dilation 1) with respect to its input.

images_shape: [4], the shape of the input: N, H, W, C.
kernel: [KH, KW, C, 1].
gradients: [N, OH, OW, C], the gradient with respect to the convolution's output.
images_gradient: [N, H, W, C].
)doc");

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
