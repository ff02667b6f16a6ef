// Definition of the selective search op. The kernel is in ../kernels, the search itself in ../selective_search.

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tf_fast_rcnn {
namespace {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status SelectiveSearchShape(InferenceContext* context) {
  ShapeHandle images;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, &images));
  DimensionHandle channels;
  TF_RETURN_IF_ERROR(context->WithValue(context->Dim(images, 3), 3, &channels));
  int64_t max_proposals;
  TF_RETURN_IF_ERROR(context->GetAttr("max_proposals", &max_proposals));
  const DimensionHandle batch = context->Dim(images, 0);
  context->set_output(0, context->MakeShape({batch, context->MakeDim(max_proposals), context->MakeDim(4)}));
  context->set_output(1, context->MakeShape({batch}));
  return absl::OkStatus();
}

}  // namespace

REGISTER_OP("TfFastRcnn>SelectiveSearch")
    .Input("images: uint8")
    .Output("boxes: float")
    .Output("counts: int32")
    .Attr("mode: {'fast', 'quality'} = 'fast'")
    .Attr("max_proposals: int >= 1 = 2000")
    .Attr("seed: int = 0")
    .Attr("max_side: int >= 0 = 1000")
    .Attr("min_size: float = 0.0")
    .SetShapeFn(SelectiveSearchShape)
    .Doc(R"doc(
Object proposals by selective search (Uijlings et al., IJCV 2013).

images: [B, H, W, 3], RGB.
boxes: [B, max_proposals, 4], [ymin, xmin, ymax, xmax] relative to the image, most likely objects first, padded with zeros.
counts: [B], the number of boxes found.
seed: seed of the random part of the order.
max_side: images whose longer side exceeds this many pixels are downscaled to it for the search; 0 disables downscaling.
min_size: boxes with a side shorter than this fraction of the image's shorter side are dropped.
)doc");

}  // namespace tf_fast_rcnn
