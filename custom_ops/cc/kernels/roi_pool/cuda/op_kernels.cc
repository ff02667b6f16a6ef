// CUDA kernels of the RoI pooling ops; setup.py leaves them out where it finds no nvcc. They are compiled against a
// TensorFlow that may itself know nothing of CUDA, so the stream is all that is asked of it.

#include "../op_kernels.h"

#include "roi_pool.h"
#include "tensorflow/core/util/determinism.h"
#include "xla/stream_executor/stream.h"

namespace tf_fast_rcnn {
namespace {

// How the kernels call values of type T.
template <typename T>
struct OnDevice {
  using Type = T;
};
template <>
struct OnDevice<Eigen::half> {
  using Type = cuda::Half;
};
template <>
struct OnDevice<Eigen::bfloat16> {
  using Type = cuda::Bfloat16;
};

template <typename T>
const typename OnDevice<T>::Type* Device(const T* values) {
  return reinterpret_cast<const typename OnDevice<T>::Type*>(values);
}

template <typename T>
typename OnDevice<T>::Type* Device(T* values) {
  return reinterpret_cast<typename OnDevice<T>::Type*>(values);
}

cudaStream_t Stream(OpKernelContext* context) {
  return static_cast<cudaStream_t>(context->op_device_context()->stream()->platform_specific_handle().stream);
}

// `error` is null where all is well.
absl::Status LaunchStatus(const char* error) {
  if (error == nullptr) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("RoI pooling on the GPU: CUDA says: ", error));
}

template <typename T>
class OnCuda {
 public:
  void Pool(OpKernelContext* context, const RoiPoolShape& shape, float spatial_scale, const T* features,
            const float* rois, T* pooled, int32_t* argmax) const {
    OP_REQUIRES_OK(context, LaunchStatus(cuda::RoiPool(shape, spatial_scale, Device(features), rois, Device(pooled),
                                                       argmax, Stream(context))));
  }

  void Differentiate(OpKernelContext* context, const RoiPoolShape& shape, float spatial_scale, const T* pooled_gradient,
                     const int32_t* argmax, const float* rois, T* features_gradient) const {
    if (tensorflow::OpDeterminismRequired()) {
      OP_REQUIRES_OK(context,
                     LaunchStatus(cuda::RoiPoolGradientInOrder(shape, spatial_scale, Device(pooled_gradient), argmax,
                                                               rois, Device(features_gradient), Stream(context))));
      return;
    }
    if constexpr (std::is_same_v<T, Sum>) {
      AddUp(context, shape, pooled_gradient, argmax, features_gradient, features_gradient);
    } else {
      Tensor sums;
      OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DataTypeToEnum<Sum>::value,
                                                     TensorShape({shape.batch, shape.cells(), shape.channels}), &sums));
      AddUp(context, shape, pooled_gradient, argmax, sums.flat<Sum>().data(), features_gradient);
    }
  }

 private:
  using Sum = typename cuda::SumOf<typename OnDevice<T>::Type>::Type;

  static void AddUp(OpKernelContext* context, const RoiPoolShape& shape, const T* pooled_gradient,
                    const int32_t* argmax, Sum* sums, T* features_gradient) {
    OP_REQUIRES_OK(context, LaunchStatus(cuda::RoiPoolGradient(shape, Device(pooled_gradient), argmax, sums,
                                                               Device(features_gradient), Stream(context))));
  }
};

TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_GPU, OnCuda, Eigen::half)
TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_GPU, OnCuda, Eigen::bfloat16)
TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_GPU, OnCuda, float)
TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_GPU, OnCuda, double)

}  // namespace
}  // namespace tf_fast_rcnn

// For native.py, which looks whether these kernels can run before it chooses them. A library without them lacks these.
#define TF_FAST_RCNN_EXPORT extern "C" __attribute__((visibility("default")))

// CUDA versions as 12050 for 12.5; the driver's is 0 where there is none.
TF_FAST_RCNN_EXPORT int tf_fast_rcnn_cuda_runtime() { return tf_fast_rcnn::cuda::RuntimeVersion(); }
TF_FAST_RCNN_EXPORT int tf_fast_rcnn_cuda_driver() { return tf_fast_rcnn::cuda::DriverVersion(); }

// The oldest compute capability that they are compiled for, as 80 for 8.0.
TF_FAST_RCNN_EXPORT int tf_fast_rcnn_cuda_oldest_architecture() { return TF_FAST_RCNN_OLDEST_CUDA_ARCHITECTURE; }
