// The TensorFlow kernel of the depthwise convolution's kernel gradient: attributes, input checks, and the units of
// filter_gradient.h on TensorFlow's thread pool.

#include <limits>

#include "absl/strings/str_cat.h"
#include "filter_gradient.h"
#include "tensorflow/core/framework/op_kernel.h"
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

// Reads one number; the limit keeps products of two numbers below 2^63.
absl::Status ReadSize(OpKernelConstruction* context, const char* name, int64_t smallest, int64_t* size) {
  TF_RETURN_IF_ERROR(context->GetAttr(name, size));
  if (*size < smallest || *size > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument(name, ": value is ", *size, "; expected ", smallest, " to 2^31 - 1");
  }
  return absl::OkStatus();
}

absl::Status ReadAxis(OpKernelConstruction* context, const char* kernel, const char* stride, const char* padding,
                      ConvAxis* axis) {
  TF_RETURN_IF_ERROR(ReadSize(context, kernel, 1, &axis->kernel));
  TF_RETURN_IF_ERROR(ReadSize(context, stride, 1, &axis->stride));
  TF_RETURN_IF_ERROR(ReadSize(context, padding, 0, &axis->padding));
  if (axis->padding >= axis->kernel) {
    return InvalidArgument(padding, ": value is ", axis->padding, "; expected less than ", kernel, ", which is ",
                           axis->kernel);
  }
  return absl::OkStatus();
}

// Every window must touch the images.
absl::Status CheckOutput(const char* name, const ConvAxis& axis) {
  if (axis.output > axis.MaxOutput()) {
    return InvalidArgument("gradients: ", name, " is ", axis.output, "; expected at most ", axis.MaxOutput(), " for ",
                           axis.input, " pixels, stride ", axis.stride, " and padding ", axis.padding);
  }
  return absl::OkStatus();
}

class DepthwiseConvFilterGradOp : public OpKernel {
 public:
  explicit DepthwiseConvFilterGradOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, ReadAxis(context, "kernel_height", "stride_rows", "padding_above", &rows_));
    OP_REQUIRES_OK(context, ReadAxis(context, "kernel_width", "stride_columns", "padding_left", &columns_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& images = context->input(0);
    const Tensor& gradients = context->input(1);
    DepthwiseConvShape shape;
    OP_REQUIRES_OK(context, ReadShape(images, gradients, &shape));
    TensorShape kernel_shape;
    OP_REQUIRES_OK(context,
                   TensorShape::BuildTensorShape({rows_.kernel, columns_.kernel, shape.channels, 1}, &kernel_shape));
    Tensor* kernel_gradient = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, kernel_shape, &kernel_gradient));
    float* sum = kernel_gradient->flat<float>().data();
    if (images.NumElements() == 0 || gradients.NumElements() == 0) {
      std::fill_n(sum, kernel_gradient->NumElements(), 0.0f);
      return;
    }
    OP_REQUIRES_OK(context, Sum(context, shape, images.flat<float>().data(), gradients.flat<float>().data(), sum));
  }

 private:
  absl::Status ReadShape(const Tensor& images, const Tensor& gradients, DepthwiseConvShape* shape) const {
    if (images.dims() != 4) {
      return InvalidArgument("images: shape is ", images.shape().DebugString(), "; expected [N, H, W, C]");
    }
    if (gradients.dims() != 4 || gradients.dim_size(0) != images.dim_size(0) ||
        gradients.dim_size(3) != images.dim_size(3)) {
      return InvalidArgument("gradients: shape is ", gradients.shape().DebugString(), "; expected [",
                             images.dim_size(0), ", OH, OW, ", images.dim_size(3), "] for images of shape ",
                             images.shape().DebugString());
    }
    *shape = {images.dim_size(0), rows_, columns_, images.dim_size(3)};
    shape->rows.input = images.dim_size(1);
    shape->columns.input = images.dim_size(2);
    shape->rows.output = gradients.dim_size(1);
    shape->columns.output = gradients.dim_size(2);
    TF_RETURN_IF_ERROR(CheckOutput("OH", shape->rows));
    return CheckOutput("OW", shape->columns);
  }

  // Each row part has its own sums, which are added in order.
  static absl::Status Sum(OpKernelContext* context, const DepthwiseConvShape& shape, const float* images,
                          const float* gradients, float* sum) {
    static const InstructionSet instruction_set = ChooseInstructionSet();
    const WorkUnits units(shape);
    const int64_t size = shape.taps() * shape.channels;
    Tensor other_parts;
    TF_RETURN_IF_ERROR(
        context->allocate_temp(tensorflow::DT_FLOAT, TensorShape({units.row_parts() - 1, size}), &other_parts));
    float* others = other_parts.flat<float>().data();
    auto* threads = context->device()->tensorflow_cpu_worker_threads()->workers;
    const auto one_by_one = tensorflow::thread::ThreadPool::SchedulingParams::Fixed(1);
    threads->ParallelFor(units.count(), one_by_one, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const WorkUnits::Unit unit = units[i];
        float* sums = unit.row_part == 0 ? sum : others + (unit.row_part - 1) * size;
        SumUnit(instruction_set, shape, unit, images, gradients, sums);
      }
    });
    for (int64_t part = 1; part < units.row_parts(); ++part, others += size) {
      for (int64_t i = 0; i < size; ++i) sum[i] += others[i];
    }
    return absl::OkStatus();
  }

  ConvAxis rows_{}, columns_{};
};

REGISTER_KERNEL_BUILDER(Name("TfFastRcnn>DepthwiseConvFilterGrad").Device(tensorflow::DEVICE_CPU),
                        DepthwiseConvFilterGradOp);

}  // namespace
}  // namespace tf_fast_rcnn
