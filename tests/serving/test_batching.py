"""Batching of requests, and its parameters."""

import concurrent.futures

import numpy as np
import pytest
import tensorflow as tf
from naive_detection import some_image
from servers import batch_of, encoded, served

from tf_fast_rcnn import InputError
from tf_fast_rcnn.serving.batching import BatchingParameters, batched, read_batching_parameters

TOGETHER = BatchingParameters(max_batch_size=4, batch_timeout_micros=300_000, num_batch_threads=1)


def test_batches_give_what_requests_alone_give(detector, detector_versions):
    """Images of several sizes with 7 to 90 proposals: the server adds padding and removes it again."""
    images = [encoded(some_image(60 + 10 * seed, 90, seed)) for seed in range(4)]
    requests = [batch_of([image], rows) for image, rows in zip(images, (7, 40, 65, 90), strict=True)]
    with served("tiny", detector_versions, batching=TOGETHER) as server:
        for signature in ("serving_default", "regions"):
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                found = list(threads.map(lambda inputs, name=signature: server.predict(inputs, name), requests))
            for inputs, outputs in zip(requests, found, strict=True):
                expected = detector.predict(inputs, signature)
                assert {name: values.shape for name, values in outputs.items()} == {
                    name: values.shape for name, values in expected.items()
                }
                for name, values in outputs.items():
                    np.testing.assert_allclose(values, expected[name], atol=1e-5, err_msg=name)


def test_a_bad_image_fails_alone_or_with_its_batch_and_others_go_on(detector_versions):
    good = batch_of([encoded(some_image(60, 80, 0))], 10)
    bad = good | {"image_bytes": np.array([b"none"], object)}
    with served("tiny", detector_versions, batching=TOGETHER) as server:
        with pytest.raises(Exception, match="INVALID_ARGUMENT"):
            server.predict(bad)
        assert server.predict(good)["num_detections"][0] > 0


def signature_of(function):
    """The SignatureDef of a concrete function without variables, as in a SavedModel."""
    with function.graph.as_default():
        info = tf.compat.v1.saved_model.build_tensor_info
        inputs = {tensor.op.name: info(tensor) for tensor in function.inputs}
        outputs = dict(zip(sorted(function.structured_outputs), map(info, function.outputs), strict=True))
    return tf.compat.v1.saved_model.signature_def_utils.build_signature_def(inputs, outputs)


def test_requests_of_several_threads_run_as_one():
    """The function returns the number of rows of its input."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")], autograph=False)
    def sizes(x):
        return {"rows": tf.zeros_like(x, tf.int32) + tf.size(x)}

    concrete = sizes.get_concrete_function()
    run = batched(concrete, signature_of(concrete), TOGETHER)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(
            threads.map(lambda value: run(x=tf.constant([value]))["rows"].numpy().tolist(), [1.0, 2.0, 3.0, 4.0])
        )
    assert found == [[4]] * 4


def test_signatures_whose_rows_are_not_free_run_alone():
    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, "x")], autograph=False)
    def grid(x):
        return {"y": x}

    concrete = grid.get_concrete_function()
    assert batched(concrete, signature_of(concrete), TOGETHER) is concrete


def test_parameters_of_a_file(tmp_path):
    path = tmp_path / "batching_parameters.txt"
    path.write_text(
        "# as TensorFlow Serving's guide has them\n"
        "max_batch_size { value: 16 }\nbatch_timeout_micros { value: 0 }  # none waits\n"
        "max_enqueued_batches { value: 1000 }\nnum_batch_threads { value: 8 }\n"
        "allowed_batch_sizes: 4\nallowed_batch_sizes: 16 pad_variable_length_inputs: true\n"
    )
    assert read_batching_parameters(path) == BatchingParameters(16, 0, 1000, 8, (4, 16), True)
    path.write_text("")
    assert read_batching_parameters(path) == BatchingParameters()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("max_batch_size { value: many }", "max_batch_size: many"),
        ("max_batch_size { value: 0 }", "max_batch_size: 0"),
        ("batch_size { value: 1 }", "batch_size"),
        ("max_batch_size", "max_batch_size"),
        ("pad_variable_length_inputs: 1", "pad_variable_length_inputs: 1"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", r"allowed_batch_sizes \[4\]"),
    ],
)
def test_parameters_that_are_refused(tmp_path, text, found):
    path = tmp_path / "batching_parameters.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{path}: found .{found}"):
        read_batching_parameters(path)
