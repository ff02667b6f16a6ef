// The TensorFlow kernels of depthwise convolutions and their gradients: attributes, input checks, and the work of
// convolution.h and filter_gradient.h on TensorFlow's thread pool.

#include <algorithm>
#include <limits>
#include <string>

#include "../invalid_argument.h"
#include "convolution.h"
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

// Reads one number; the limit keeps products of two numbers below 2^63.
absl::Status ReadSize(OpKernelConstruction* context, const char* name, int64_t* size) {
  TF_RETURN_IF_ERROR(context->GetAttr(name, size));
  if (*size < 1 || *size > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument(name, ": value is ", *size, "; expected 1 to 2^31 - 1");
  }
  return absl::OkStatus();
}

absl::Status ReadPadding(const Tensor& padding, ConvAxis* rows, ConvAxis* columns) {
  if (padding.dims() != 1 || padding.NumElements() != 2) {
    return InvalidArgument("padding: shape is ", padding.shape().DebugString(), "; expected [2]");
  }
  rows->padding = padding.vec<int32_t>()(0);
  columns->padding = padding.vec<int32_t>()(1);
  for (const ConvAxis* axis : {rows, columns}) {
    if (axis->padding < 0 || axis->padding >= axis->kernel) {
      return InvalidArgument("padding: value is ", axis->padding, "; expected 0 to ", axis->kernel - 1,
                             " for a kernel of ", axis->kernel);
    }
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
    OP_REQUIRES_OK(context, ReadSize(context, "kernel_height", &rows_.kernel));
    OP_REQUIRES_OK(context, ReadSize(context, "kernel_width", &columns_.kernel));
    OP_REQUIRES_OK(context, ReadSize(context, "stride_rows", &rows_.stride));
    OP_REQUIRES_OK(context, ReadSize(context, "stride_columns", &columns_.stride));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& images = context->input(0);
    const Tensor& gradients = context->input(1);
    DepthwiseConvShape shape;
    OP_REQUIRES_OK(context, ReadShape(images, gradients, context->input(2), &shape));
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
  absl::Status ReadShape(const Tensor& images, const Tensor& gradients, const Tensor& padding,
                         DepthwiseConvShape* shape) const {
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
    TF_RETURN_IF_ERROR(ReadPadding(padding, &shape->rows, &shape->columns));
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

  // The sizes that attributes give.
  ConvAxis rows_{}, columns_{};
};

// The sizes of a convolution that the attributes of DepthwiseConv and its input gradient give.
class ConvAttributes {
 public:
  absl::Status Read(OpKernelConstruction* context) {
    TF_RETURN_IF_ERROR(ReadSize(context, "stride_rows", &row_stride_));
    TF_RETURN_IF_ERROR(ReadSize(context, "stride_columns", &column_stride_));
    std::string padding;
    TF_RETURN_IF_ERROR(context->GetAttr("padding", &padding));
    same_ = padding == "SAME";
    return absl::OkStatus();
  }

  // The shape of a convolution of images [N, H, W, C] with a kernel [KH, KW, C, 1].
  absl::Status ReadShape(const TensorShape& images, const TensorShape& kernel, DepthwiseConvShape* shape) const {
    if (images.dims() != 4) {
      return InvalidArgument("images: shape is ", images.DebugString(), "; expected [N, H, W, C]");
    }
    if (kernel.dims() != 4 || kernel.dim_size(0) < 1 || kernel.dim_size(1) < 1 ||
        kernel.dim_size(2) != images.dim_size(3) || kernel.dim_size(3) != 1) {
      return InvalidArgument("kernel: shape is ", kernel.DebugString(), "; expected [KH, KW, ", images.dim_size(3),
                             ", 1] for images of shape ", images.DebugString());
    }
    *shape = {images.dim_size(0), Axis(images.dim_size(1), kernel.dim_size(0), row_stride_),
              Axis(images.dim_size(2), kernel.dim_size(1), column_stride_), images.dim_size(3)};
    return absl::OkStatus();
  }

 private:
  // The rule of TensorFlow: "SAME" adds half of the missing zeros before the input, rounded down.
  ConvAxis Axis(int64_t input, int64_t kernel, int64_t stride) const {
    const int64_t output = same_ ? (input + stride - 1) / stride : std::max<int64_t>(0, (input - kernel) / stride + 1);
    const int64_t missing = (output - 1) * stride + kernel - input;
    return {input, input < kernel && !same_ ? 0 : output, kernel, stride,
            same_ ? std::max<int64_t>(0, missing) / 2 : 0};
  }

  int64_t row_stride_ = 1, column_stride_ = 1;
  bool same_ = true;
};

absl::Status OutputShape(const DepthwiseConvShape& shape, TensorShape* output) {
  return TensorShape::BuildTensorShape({shape.images, shape.rows.output, shape.columns.output, shape.channels}, output);
}

// Computes all rows in parallel.
void Compute(OpKernelContext* context, const DepthwiseSums& sums) {
  static const InstructionSet instruction_set = ChooseInstructionSet();
  auto* threads = context->device()->tensorflow_cpu_worker_threads()->workers;
  // In clock cycles, roughly: a product of 8 numbers and a read or a write of 8 numbers each take one.
  const int64_t cost = std::max<int64_t>(1, sums.result_columns * sums.channels * (sums.taps() + 8) / 8);
  const auto by_cost = tensorflow::thread::ThreadPool::SchedulingParams::Adaptive(cost);
  threads->ParallelFor(sums.row_count(), by_cost,
                       [&](int64_t first, int64_t end) { ComputeRows(instruction_set, sums, first, end); });
}

class DepthwiseConvOp : public OpKernel {
 public:
  explicit DepthwiseConvOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, attributes_.Read(context));
    std::string activation;
    OP_REQUIRES_OK(context, context->GetAttr("activation", &activation));
    lowest_ = activation == "linear" ? -kInfinity : 0.0f;
    highest_ = activation == "relu6" ? 6.0f : kInfinity;
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &images = context->input(0), &kernel = context->input(1), &bias = context->input(2);
    DepthwiseConvShape shape;
    OP_REQUIRES_OK(context, attributes_.ReadShape(images.shape(), kernel.shape(), &shape));
    OP_REQUIRES(context, bias.dims() == 1 && bias.dim_size(0) == shape.channels,
                InvalidArgument("bias: shape is ", bias.shape().DebugString(), "; expected [", shape.channels, "]"));
    TensorShape output_shape;
    OP_REQUIRES_OK(context, OutputShape(shape, &output_shape));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, output_shape, &output));
    if (output->NumElements() == 0) return;
    tf_fast_rcnn::Compute(
        context, OutputSums(shape, images.flat<float>().data(), kernel.flat<float>().data(), bias.flat<float>().data(),
                            lowest_, highest_, output->flat<float>().data()));
  }

 private:
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  ConvAttributes attributes_;
  float lowest_, highest_;
};

class DepthwiseConvInputGradOp : public OpKernel {
 public:
  explicit DepthwiseConvInputGradOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, attributes_.Read(context));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &sizes = context->input(0), &kernel = context->input(1), &gradients = context->input(2);
    OP_REQUIRES(context, sizes.dims() == 1,
                InvalidArgument("images_shape: shape is ", sizes.shape().DebugString(), "; expected [4]"));
    TensorShape images_shape, expected;
    OP_REQUIRES_OK(context, tensorflow::TensorShapeUtils::MakeShape(sizes.vec<int32_t>(), &images_shape));
    DepthwiseConvShape shape;
    OP_REQUIRES_OK(context, attributes_.ReadShape(images_shape, kernel.shape(), &shape));
    OP_REQUIRES_OK(context, OutputShape(shape, &expected));
    OP_REQUIRES(context, gradients.shape() == expected,
                InvalidArgument("gradients: shape is ", gradients.shape().DebugString(), "; expected ",
                                expected.DebugString(), " for images of shape ", images_shape.DebugString()));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, images_shape, &output));
    if (output->NumElements() == 0) return;
    tf_fast_rcnn::Compute(context, ImagesGradientSums(shape, gradients.flat<float>().data(),
                                                      kernel.flat<float>().data(), output->flat<float>().data()));
  }

 private:
  ConvAttributes attributes_;
};

REGISTER_KERNEL_BUILDER(Name("TfFastRcnn>DepthwiseConv").Device(tensorflow::DEVICE_CPU), DepthwiseConvOp);
REGISTER_KERNEL_BUILDER(
    Name("TfFastRcnn>DepthwiseConvInputGrad").Device(tensorflow::DEVICE_CPU).HostMemory("images_shape"),
    DepthwiseConvInputGradOp);
REGISTER_KERNEL_BUILDER(Name("TfFastRcnn>DepthwiseConvFilterGrad").Device(tensorflow::DEVICE_CPU),
                        DepthwiseConvFilterGradOp);

}  // namespace
}  // namespace tf_fast_rcnn
