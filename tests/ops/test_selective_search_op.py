"""The op returns the same as the library without TensorFlow, in every way that TensorFlow can run it."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn import selective_search
from tf_fast_rcnn.ops import native
from tf_fast_rcnn.ops.native import native_ops

IMAGES = np.stack([cv2.resize(each, (96, 64)) for each in (skimage.data.astronaut(), skimage.data.coffee())])


def search(images, **attributes):
    return native_ops().tf_fast_rcnn_selective_search(images, **attributes)


def check_equal(found, image, count, **arguments):
    """`found`: (boxes, count) for one image."""
    boxes, number = (part.numpy() for part in found)
    expected = selective_search(image, implementation="native", **arguments)
    assert number == len(expected)
    np.testing.assert_array_equal(boxes[:number], expected)
    assert boxes.shape == (count, 4)
    assert not boxes[number:].any()


@pytest.mark.parametrize("mode", ["fast", "quality"])
@pytest.mark.parametrize("images", [IMAGES, IMAGES[:1]], ids=["batch", "one image"])
def test_the_op_and_the_library_agree(mode, images):
    arguments = {"mode": mode, "max_proposals": 90, "seed": -5, "max_side": 80, "min_size": 0.125}
    boxes, counts = search(images, **arguments)
    for i, image in enumerate(images):
        check_equal((boxes[i], counts[i]), image, 90, **arguments)


def test_defaults_are_those_of_the_python_function():
    boxes, counts = search(IMAGES[:1])
    check_equal((boxes[0], counts[0]), IMAGES[0], 2000)


def test_in_tf_data_on_several_threads():
    images = tf.data.Dataset.from_tensor_slices(np.tile(IMAGES, (4, 1, 1, 1)))
    searched = images.map(lambda image: search(image[None], max_proposals=50), num_parallel_calls=4)
    results = list(searched)
    assert len(results) == 8
    for i, (boxes, counts) in enumerate(results):
        check_equal((boxes[0], counts[0]), IMAGES[i % 2], 50, max_proposals=50)


def test_shapes_are_known_in_graphs():
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, None], tf.uint8)])
    def graph(images):
        boxes, counts = search(images, max_proposals=7)
        assert boxes.shape.as_list() == [None, 7, 4]
        assert counts.shape.as_list() == [None]
        return boxes, counts

    assert graph(np.zeros((0, 5, 6, 3), np.uint8))[0].shape == (0, 7, 4)
    np.testing.assert_array_equal(graph(np.zeros((2, 5, 6, 3), np.uint8))[1], [1, 1])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), max_size=5).map(tuple))
def test_any_shape(shape):
    """Checked while a graph is built, if the shape is known by then, and again when it runs."""

    @tf.function(input_signature=[tf.TensorSpec(None, tf.uint8)], autograph=False)
    def graph(images):
        return search(images, max_proposals=3)

    images = np.zeros(shape, np.uint8)
    if len(shape) == 4 and shape[3] == 3 and min(shape[1:]) > 0:
        assert graph(images)[0].shape == (shape[0], 3, 4)
    else:
        for attempt in (graph, lambda images: search(images, max_proposals=3)):
            with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
                attempt(images)


@pytest.mark.parametrize("attributes", [{"max_proposals": 0}, {"mode": "slow"}, {"max_side": -1}])
def test_impossible_attributes_are_refused(attributes):
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        search(IMAGES, **attributes)


RUN_BY_SESSION = """
import sys
import numpy as np
import tensorflow as tf

tf.load_op_library(sys.argv[2])
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], sys.argv[1])
    signature = loaded.signature_def["serving_default"]
    feed = {signature.inputs["image_bytes"].name: open(sys.argv[3], "rb").read()}
    np.save(sys.argv[4], session.run(signature.outputs["boxes"].name, feed))
"""


def test_in_a_saved_model_that_a_session_runs_without_the_package(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="image_bytes")])
    def serve(image_bytes):
        boxes, _ = search(tf.io.decode_png(image_bytes, channels=3)[None], max_proposals=20)
        return {"boxes": boxes[0]}

    module = tf.Module()
    options = tf.saved_model.SaveOptions(namespace_whitelist=["TfFastRcnn"])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=serve, options=options)
    (tmp_path / "image.png").write_bytes(tf.io.encode_png(IMAGES[0]).numpy())
    library = native.find_library(native._PACKAGE, tf.__version__)
    arguments = [tmp_path / "model", library, tmp_path / "image.png", tmp_path / "boxes.npy"]
    subprocess.run([sys.executable, "-c", RUN_BY_SESSION, *arguments], cwd=tmp_path, check=True, capture_output=True)
    expected = selective_search(IMAGES[0], max_proposals=20, implementation="native")
    np.testing.assert_array_equal(np.load(tmp_path / "boxes.npy"), expected)
