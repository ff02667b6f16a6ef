// GPU kernels of the RoI pooling ops; setup.py leaves this file out if it finds no nvcc. It is compiled against the
// headers of a TensorFlow that may be built without CUDA, so it uses nothing of TensorFlow's GPU support but the
// stream.

#include "../op_kernels.h"

#include "absl/strings/str_cat.h"
#include "roi_pool.h"
#include "tensorflow/core/util/determinism.h"
#include "xla/stream_executor/stream.h"

namespace tf_fast_rcnn {
namespace {

// The type that the CUDA kernels use for T.
template <typename T>
struct DeviceType {
  using Type = T;
};
template <>
struct DeviceType<Eigen::half> {
  using Type = cuda::Half;
};
template <>
struct DeviceType<Eigen::bfloat16> {
  using Type = cuda::Bfloat16;
};

template <typename T>
const typename DeviceType<T>::Type* ToDevice(const T* values) {
  return reinterpret_cast<const typename DeviceType<T>::Type*>(values);
}

template <typename T>
typename DeviceType<T>::Type* ToDevice(T* values) {
  return reinterpret_cast<typename DeviceType<T>::Type*>(values);
}

cudaStream_t Stream(OpKernelContext* context) {
  return static_cast<cudaStream_t>(context->op_device_context()->stream()->platform_specific_handle().stream);
}

// `error` is null on success.
absl::Status CudaStatus(const char* error) {
  if (error == nullptr) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("RoI pooling on the GPU: CUDA error: ", error));
}

template <typename T>
class CudaRoiPool {
 public:
  void Forward(OpKernelContext* context, const RoiPoolShape& shape, float spatial_scale, const T* features,
               const float* rois, T* pooled, int32_t* argmax) const {
    OP_REQUIRES_OK(context, CudaStatus(cuda::RoiPool(shape, spatial_scale, ToDevice(features), rois, ToDevice(pooled),
                                                     argmax, Stream(context))));
  }

  void Backward(OpKernelContext* context, const RoiPoolShape& shape, float spatial_scale, const T* pooled_gradient,
                const int32_t* argmax, const float* rois, T* features_gradient) const {
    if (tensorflow::OpDeterminismRequired()) {
      OP_REQUIRES_OK(context, CudaStatus(cuda::DeterministicRoiPoolGradient(
                                  shape, spatial_scale, ToDevice(pooled_gradient), argmax, rois,
                                  ToDevice(features_gradient), Stream(context))));
      return;
    }
    if constexpr (std::is_same_v<T, Sum>) {
      AddAtomically(context, shape, pooled_gradient, argmax, features_gradient, features_gradient);
    } else {
      Tensor sums;
      OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DataTypeToEnum<Sum>::value,
                                                     TensorShape({shape.batch, shape.cells(), shape.channels}), &sums));
      AddAtomically(context, shape, pooled_gradient, argmax, sums.flat<Sum>().data(), features_gradient);
    }
  }

 private:
  using Sum = typename cuda::SumOf<typename DeviceType<T>::Type>::Type;

  static void AddAtomically(OpKernelContext* context, const RoiPoolShape& shape, const T* pooled_gradient,
                            const int32_t* argmax, Sum* sums, T* features_gradient) {
    OP_REQUIRES_OK(context, CudaStatus(cuda::RoiPoolGradient(shape, ToDevice(pooled_gradient), argmax, sums,
                                                             ToDevice(features_gradient), Stream(context))));
  }
};

TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_GPU, CudaRoiPool, Eigen::half)
TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_GPU, CudaRoiPool, Eigen::bfloat16)
TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_GPU, CudaRoiPool, float)
TF_FAST_RCNN_REGISTER_ROI_POOL(tensorflow::DEVICE_GPU, CudaRoiPool, double)

}  // namespace
}  // namespace tf_fast_rcnn

// Used by native.py to check whether these kernels can run before it selects them. A library without CUDA does not
// export these symbols.
#define TF_FAST_RCNN_EXPORT extern "C" __attribute__((visibility("default")))

// CUDA's numbering: 12050 is 12.5. The driver's version is 0 without a driver.
TF_FAST_RCNN_EXPORT int tf_fast_rcnn_cuda_runtime() { return tf_fast_rcnn::cuda::RuntimeVersion(); }
TF_FAST_RCNN_EXPORT int tf_fast_rcnn_cuda_driver() { return tf_fast_rcnn::cuda::DriverVersion(); }

// The lowest compute capability that the kernels are compiled for: 80 is 8.0.
TF_FAST_RCNN_EXPORT int tf_fast_rcnn_cuda_oldest_architecture() { return TF_FAST_RCNN_OLDEST_CUDA_ARCHITECTURE; }
