"""Tools that read SavedModels: OpenVINO's converter, as docs/serving.md describes."""

import numpy as np
import pytest
import tensorflow as tf

openvino = pytest.importorskip("openvino")


def test_openvino_reads_predict_tensors_and_not_the_signatures_of_files(detector_versions):
    with pytest.raises(openvino.frontend.OpConversionFailure, match="DecodeJpeg"):
        openvino.convert_model(str(detector_versions / "1"))  # serving_default
    loaded = tf.saved_model.load(str(detector_versions / "1"))  # owns the variables
    signature = loaded.signatures["predict_tensors"]
    model = openvino.compile_model(openvino.convert_model(signature), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inputs = {
        "images": np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32),
        "rois": np.float32([[[0, 0, 63, 95], [8, 16, 40, 80]]]),
    }
    found = model(inputs)
    expected = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    np.testing.assert_allclose(found["class_probabilities"], expected["class_probabilities"], atol=1e-4)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.05)  # in pixels
