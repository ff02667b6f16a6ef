"""Servers on the loopback for tests, what they serve and what they are asked."""

import asyncio
import concurrent.futures
import contextlib
import io
import os
import threading

import grpc
import numpy as np
import tensorflow as tf
from naive_detection import some_proposals
from PIL import Image
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from tf_fast_rcnn import DetectionSettings
from tf_fast_rcnn.serving.server import ServerSettings, embedded_server

CLASS_NAMES = ("cat", "dog", "ox")
SETTINGS = DetectionSettings(shorter_side=96, longer_side=144, max_detections=20)


class Served:
    """A server that runs: its model's name, ports and gRPC stubs."""

    def __init__(self, name, ports):
        self.name = name
        self.ports = ports
        self.channel = grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}")
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def url(self, path=""):
        """Of the model; `path` may begin with ":" or "/"."""
        return f"http://127.0.0.1:{self.ports['rest']}/v1/models/{self.name}{path}"

    def predict(self, inputs, signature="", timeout=60, **spec):
        """The outputs over gRPC, as arrays, of input arrays."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = spec.get("name", self.name), signature
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self.prediction.Predict(request, timeout=timeout)
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


@contextlib.contextmanager
def in_thread(server):
    """Runs an asynchronous context in a thread with its own event loop; yields the same value."""
    started, stop = concurrent.futures.Future(), threading.Event()

    async def main():
        async with server as value:
            started.set_result(value)
            await asyncio.to_thread(stop.wait)

    def run():
        try:
            asyncio.run(main())
        except Exception as error:
            started.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield started.result(timeout=120)
    finally:
        stop.set()
        thread.join(timeout=60)
        assert not thread.is_alive()


@contextlib.contextmanager
def served(name, directory, **settings):
    """Runs the embedded server: free ports, and soon ended."""
    settings = ServerSettings(**{"grpc_port": 0, "rest_port": 0, "poll_seconds": 0.05, "grace_seconds": 10} | settings)
    with in_thread(embedded_server(name, directory, settings)) as ports:
        yield Served(name, ports)


def save_example(directory, version):
    """A SavedModel with signatures of TensorFlow Serving's documentation, which appears when it is complete.

    `serving_default` is half_plus_two; `mixed` and `images` take the rows of its examples; `work` takes as long as its
    `steps`, and says its version; `wait` does when there is a file of the `path`.
    """
    module = tf.Module()
    module.version = tf.Variable(version)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")], autograph=False)
    def serving_default(x):
        return {"y": x / 2 + 2}

    specs = [
        tf.TensorSpec([None], tf.string, "tag"),
        tf.TensorSpec([None, 5], tf.int32, "signal"),
        tf.TensorSpec([None, 2, 2], tf.float32, "sensor"),
    ]

    @tf.function(input_signature=specs, autograph=False)
    def mixed(tag, signal, sensor):
        return {"tag": tag, "signal": tf.reduce_sum(signal, 1), "sensor": tf.transpose(sensor, [0, 2, 1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
    def images(image_bytes):
        return {"reversed_bytes": image_bytes, "length": tf.strings.length(image_bytes)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "steps")], autograph=False)
    def work(steps):
        last = tf.reduce_max(steps)
        done = tf.while_loop(lambda step: step < last, lambda step: step + 1, [tf.constant(0)], parallel_iterations=1)
        # The steps are taken before the version is said.
        with tf.control_dependencies(done):
            return {"version": tf.fill(tf.shape(steps), tf.identity(module.version))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "path")], autograph=False)
    def wait(path):
        def missing(step):
            # What depends on the step is looked for again in every step.
            pattern = tf.strings.join([path, tf.strings.substr(tf.as_string(step), 0, 0)])
            return tf.equal(tf.size(tf.io.matching_files(pattern)), 0)

        done = tf.while_loop(missing, lambda step: step + 1, [tf.constant(0)], parallel_iterations=1)
        with tf.control_dependencies(done):
            return {"version": tf.fill(tf.shape(path), tf.identity(module.version))}

    temporary = directory / f".{version}"
    functions = (serving_default, mixed, images, work, wait)
    signatures = {function.python_function.__name__: function for function in functions}
    tf.saved_model.save(module, str(temporary), signatures=signatures)
    os.rename(temporary, directory / str(version))


def encoded(image, kind="JPEG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def batch_of(images, rows):
    """Inputs of `serving_default`: encoded images, with as many proposals each."""
    proposals = np.stack([some_proposals(rows, seed) for seed in range(len(images))])
    counts = np.full(len(images), rows, np.int32)
    return {"image_bytes": np.array(images, object), "proposals": proposals, "num_proposals": counts}
