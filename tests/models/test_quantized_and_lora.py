"""Detectors after Keras's `quantize` and `enable_lora`: detection, saving, training, compression."""

import keras
import numpy as np
import pytest
from naive_model import CLASSES, some_inputs, targets_for, with_large_predictors

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.inference.predictor import Predictor

PROPOSALS = np.float32([[0, 0, 1, 1], [0.1, 0.1, 0.6, 0.7], [0.3, 0.2, 0.9, 0.8], [0.0, 0.5, 0.4, 0.9]])
SETTINGS = frcnn.DetectionSettings(shorter_side=64, longer_side=96, score_threshold=0.01)


@pytest.fixture
def model(tiny_backbone):
    keras.utils.set_random_seed(0)
    return with_large_predictors(
        frcnn.fast_rcnn(tiny_backbone, CLASSES, stride=8, roi_output_size=3, fc_units=(16, 12), dropout=0.0)
    )


def detections(model):
    image = some_inputs(height=64, width=96)["images"][0].astype(np.uint8)
    return Predictor(model, settings=SETTINGS).detect(image, PROPOSALS)


def assert_same_detections(found, expected, **tolerance):
    assert len(found) == len(expected) > 3
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.scores, expected.scores, **tolerance)
    np.testing.assert_allclose(found.boxes, expected.boxes, **tolerance)


def saved_and_loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_an_int8_model_detects_and_is_saved(model, tmp_path):
    inputs = some_inputs()
    expected = model(inputs)["class_logits"]
    model.quantize("int8")
    quantized = model.get_layer("fc6")
    assert quantized.quantization_mode == "int8"
    error = np.abs(model(inputs)["class_logits"] - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()
    found = detections(model)
    assert_same_detections(detections(saved_and_loaded(model, tmp_path)), found, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_an_int8_model_is_not_compressed(model):
    model.quantize("int8")
    with pytest.raises(frcnn.InputError, match=r"^fc6: found a layer quantised to int8; expected weights as trained"):
        frcnn.compress(model, fc6=4)


@pytest.fixture
def with_lora(model):
    """LoRA in fc6 and fc7, trained for a few mini-batches: the layers' kernels stay, what is added to them does not."""
    for name in ("fc6", "fc7"):
        model.get_layer(name).enable_lora(2)
    kernels = [np.array(model.get_layer(name)._kernel) for name in ("fc6", "fc7")]
    inputs = some_inputs()
    before = model(inputs)["class_logits"]
    model.compile(keras.optimizers.SGD(0.02), frcnn.multi_task_loss(model), jit_compile=False)
    model.fit(inputs, targets_for(inputs), epochs=3, verbose=0)
    assert np.abs(model(inputs)["class_logits"] - before).max() > 1e-3
    for name, kernel in zip(("fc6", "fc7"), kernels, strict=True):
        np.testing.assert_array_equal(model.get_layer(name)._kernel, kernel)
        assert np.abs(np.asarray(model.get_layer(name).kernel) - kernel).max() > 1e-6
    return model


def test_a_lora_model_detects_and_is_saved(with_lora, tmp_path):
    expected = detections(with_lora)
    assert_same_detections(detections(saved_and_loaded(with_lora, tmp_path)), expected, atol=1e-5)


def test_a_lora_model_is_compressed_with_what_lora_added(with_lora):
    """With all singular values kept, nothing changes."""
    inputs = some_inputs()
    small = frcnn.compress(with_lora, fc6=16, fc7=12)
    assert not any(layer.lora_enabled for layer in small.layers if isinstance(layer, keras.layers.Dense))
    for name, expected in with_lora(inputs).items():
        np.testing.assert_allclose(small(inputs)[name], expected, rtol=1e-3, atol=1e-4)
    one = frcnn.compress(with_lora, fc6=16)
    np.testing.assert_allclose(one(inputs)["class_logits"], with_lora(inputs)["class_logits"], rtol=1e-3, atol=1e-4)
