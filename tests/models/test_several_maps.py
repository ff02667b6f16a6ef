"""RoIs pooled from several feature maps: lateral convolutions, and the context of a RoI from the coarsest map."""

import keras
import numpy as np
import pytest
from naive_roi_pooling import naive_roi_pool

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.models.fast_rcnn import RoICorners
from tf_fast_rcnn.models.parts import stages

ROIS = np.float32([[[8, 16, 40, 56], [0, 0, 64, 96], [50, 60, 64, 96]]])
STRIDES, LATERAL, CONTEXT = (4, 8), 5, 2.0


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tiny_backbone):
    options = {"lateral_channels": LATERAL, "context": CONTEXT, "fc_units": (6,), "roi_output_size": (3, 3)}
    return frcnn.fast_rcnn(tiny_backbone, 2, stride=STRIDES, seed=1, **options)


def test_corners_are_enlarged_about_the_centre():
    # Centre (24, 36), sides 32 and 40; twice as long from (-8, -4) to (56, 76); the last pixel is one less.
    assert np.array_equal(RoICorners(2.0)(ROIS)[0, 0], [-8, -4, 55, 75])
    assert np.array_equal(RoICorners()(ROIS)[0, 0], [8, 16, 39, 55])


def test_each_map_is_pooled_as_the_naive_loop_does(model, images):
    parts = stages(model)
    fine, coarse = (np.asarray(each) for each in parts.convolve(images))
    assert fine.shape == (1, 16, 24, LATERAL)
    assert coarse.shape == (1, 8, 12, LATERAL)
    own = ROIS[0] - np.float32([0, 0, 1, 1])
    half = (ROIS[0, :, 2:] - ROIS[0, :, :2]) * (CONTEXT - 1) / 2
    surroundings = np.concatenate([ROIS[0, :, :2] - half, ROIS[0, :, 2:] + half - 1], axis=1)
    expected = np.concatenate(
        [
            naive_roi_pool(fine, own[None], (3, 3), 1 / 4)[0],
            naive_roi_pool(coarse, surroundings[None], (3, 3), 1 / 8)[0],
        ],
        axis=-1,
    )
    np.testing.assert_array_equal(parts.pool([fine, coarse], ROIS), expected)


def test_a_lateral_convolution_is_a_product_of_channels(model, images):
    layer = model.get_layer("lateral_4")
    kernel, bias = (np.asarray(each) for each in (layer.kernel, layer.bias))
    before = np.asarray(keras.Model(model.input["images"], layer.input)(images))
    after = np.asarray(keras.Model(model.input["images"], layer.output)(images))
    np.testing.assert_allclose(after, before @ kernel[0, 0] + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["native", "portable"])
def test_the_parts_give_what_the_model_gives(model, images, implementation):
    whole = model({"images": images, "rois": ROIS})
    parts = stages(model, implementation)
    in_parts = parts.classify(parts.pool(parts.convolve(images), ROIS))
    for name, value in whole.items():
        np.testing.assert_allclose(in_parts[name], value, rtol=1e-6, atol=1e-6)


def test_cells_are_those_of_the_context_where_the_context_is_pooled(model):
    # Right edge 57 or 58: pixel 56 and 57 are cell 14 of stride 4; of the context, pixels 77 and 79 are cells 9.625 and
    # 9.875 of stride 8, which both round to 10; the left edges, -5 and -6, are cells -0.625 and -0.75, both -1.
    # Right edge 60: pixel 59 is cell 14.75, that is 15; of the context, pixel 81 is cell 10.125 and -6 cell -0.75.
    rois = np.float32([[8, 16, 40, 57], [8, 16, 40, 58], [8, 16, 40, 60], [8, 16, 40, 72]])
    own, context = (np.asarray(each)[:, 3].tolist() for each in stages(model).cells(rois))
    assert own == [14, 14, 15, 18]
    # The pixels 77.5 - 1, 79 - 1, 82 - 1 and 100 - 1.
    assert context == [10, 10, 10, 12]


def test_it_survives_saving(model, images, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for name, value in model({"images": images, "rois": ROIS}).items():
        np.testing.assert_array_equal(loaded({"images": images, "rois": ROIS})[name], value)


def test_a_single_map_has_no_context_and_a_reused_head_no_lateral_convolution(tiny_backbone):
    single = frcnn.fast_rcnn(tiny_backbone, 2, stride=8, context=2.0)
    assert "roi_context" not in [layer.name for layer in single.layers]
    network = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(4, 3, 2, "same", name="conv"),
            keras.layers.MaxPooling2D(4, name="pool"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(8, name="fc"),
            keras.layers.Dense(3, name="predictions"),
        ]
    )
    reused = frcnn.fast_rcnn(network, 2, lateral_channels=3)
    assert not [layer.name for layer in reused.layers if layer.name.startswith("lateral")]
