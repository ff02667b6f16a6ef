// Definitions of the RoI pooling ops: types, attributes and shape functions. The kernels are in ../kernels/roi_pool.

#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tf_fast_rcnn {
namespace {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Every output has the shape [B, R, output_height, output_width, C].
absl::Status RoiPoolShape(InferenceContext* context) {
  ShapeHandle features, rois;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, &features));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(1), 3, &rois));
  DimensionHandle batch, coordinates;
  TF_RETURN_IF_ERROR(context->Merge(context->Dim(features, 0), context->Dim(rois, 0), &batch));
  TF_RETURN_IF_ERROR(context->WithValue(context->Dim(rois, 2), 4, &coordinates));
  int64_t output_height, output_width;
  TF_RETURN_IF_ERROR(context->GetAttr("output_height", &output_height));
  TF_RETURN_IF_ERROR(context->GetAttr("output_width", &output_width));
  const ShapeHandle pooled = context->MakeShape({batch, context->Dim(rois, 1), context->MakeDim(output_height),
                                                 context->MakeDim(output_width), context->Dim(features, 3)});
  for (int i = 0; i < context->num_outputs(); ++i) context->set_output(i, pooled);
  return absl::OkStatus();
}

absl::Status RoiPoolGradShape(InferenceContext* context) {
  ShapeHandle pooled, rois, features;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 5, &pooled));
  TF_RETURN_IF_ERROR(context->Merge(pooled, context->input(1), &pooled));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(2), 3, &rois));
  TF_RETURN_IF_ERROR(context->MakeShapeFromShapeTensor(3, &features));
  TF_RETURN_IF_ERROR(context->WithRank(features, 4, &features));
  context->set_output(0, features);
  return absl::OkStatus();
}

}  // namespace

REGISTER_OP("TfFastRcnn>RoiPool")
    .Input("features: T")
    .Input("rois: float")
    .Output("pooled: T")
    .Attr("T: {half, bfloat16, float, double}")
    .Attr("output_height: int >= 1")
    .Attr("output_width: int >= 1")
    .Attr("spatial_scale: float")
    .SetShapeFn(RoiPoolShape)
    .Doc(R"doc(
RoI max pooling (Fast R-CNN, section 2.1) for inference.

features: [B, H, W, C].
rois: [B, R, 4], [y1, x1, y2, x2] in pixels of the network's input; the bottom-right pixel is included.
pooled: [B, R, output_height, output_width, C].
spatial_scale: feature-map cells per input pixel, i.e. 1 / total stride.
)doc");

REGISTER_OP("TfFastRcnn>RoiPoolWithArgmax")
    .Input("features: T")
    .Input("rois: float")
    .Output("pooled: T")
    .Output("argmax: int32")
    .Attr("T: {half, bfloat16, float, double}")
    .Attr("output_height: int >= 1")
    .Attr("output_width: int >= 1")
    .Attr("spatial_scale: float")
    .SetShapeFn(RoiPoolShape)
    .Doc(R"doc(
RoI max pooling for training: also returns the location of each maximum.

argmax: y * W + x of the cell of the maximum, the first in row-major order if several are equal; -1 if the bin is empty.
)doc");

REGISTER_OP("TfFastRcnn>RoiPoolGrad")
    .Input("pooled_gradient: T")
    .Input("argmax: int32")
    .Input("rois: float")
    .Input("features_shape: int32")
    .Output("features_gradient: T")
    .Attr("T: {half, bfloat16, float, double}")
    .Attr("spatial_scale: float")
    .SetShapeFn(RoiPoolGradShape)
    .Doc(R"doc(
Gradient of RoI max pooling with respect to the features (Fast R-CNN, equation 4).

argmax: the output of RoiPoolWithArgmax for these RoIs. The result is unspecified for a cell that is not in its bin.
rois, spatial_scale: the arguments of that call; they determine which bins contain a cell.
features_shape: the shape [B, H, W, C] of the features.
)doc");

}  // namespace tf_fast_rcnn
