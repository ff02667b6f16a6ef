"""Tools that read SavedModels: OpenVINO's converter, as docs/serving.md describes."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

openvino = pytest.importorskip("openvino")


def test_openvino_reads_predict_tensors(detector_versions):
    shutil.copytree(detector_versions, "/tmp/tinyexp", dirs_exist_ok=True)
    loaded = tf.saved_model.load(str(detector_versions / "1"))  # owns the variables
    signature = loaded.signatures["predict_tensors"]
    for value in (str(detector_versions / "1"), loaded.signatures["serving_default"]):
        try:
            print("DIR", openvino.convert_model(value).inputs)
        except Exception as error:
            print("DIR ERR", str(error)[:2500])
    model = openvino.convert_model(signature)
    print("SIG", model.inputs, model.outputs)
    inputs = {
        "images": np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32),
        "rois": np.float32([[[0, 0, 63, 95], [8, 16, 40, 80]]]),
    }
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(inputs)
    expected = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    for output in model.outputs:
        print(output.get_names(), output.partial_shape, found[output].shape)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-3, err_msg=name)
