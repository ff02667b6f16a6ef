"""Where detection's time goes, before and after truncated SVD (the paper's figure 2), beside PyTorch and OpenVINO."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import boxes
from tf_fast_rcnn.benchmarks.measure import median_seconds
from tf_fast_rcnn.benchmarks.roi_pooling import random_rois
from tf_fast_rcnn.data.images import read_image
from tf_fast_rcnn.data.network_input import network_size, resize_to_network
from tf_fast_rcnn.data.proposals import compute_proposals, proposal_settings
from tf_fast_rcnn.demo.digits import generate_digits
from tf_fast_rcnn.inference.graph import DetectionSettings, Detector
from tf_fast_rcnn.models.parts import PREDICTOR_LAYERS, stages
from tf_fast_rcnn.models.truncated_svd import fully_connected_names, with_factors

CLASSES = 20
PARTS = ("decode and resize", "convolutions", "RoI pooling", "fc6", "fc7", "predictor layers", "NMS")
_IMAGE_SIZE = (480, 640)


def measure_detection(
    network: str, dtype: str, proposals: Sequence[int], shorter_side: int, rounds: int, threads: int
) -> dict[str, Any]:
    """Times every part of detecting the objects of one image, and the whole, in turn with the same parts in the peers.

    To be called in a fresh process. The network is random, and so are the factors that stand for its fully connected
    layers' truncated SVD, of a quarter and a sixteenth of their outputs (VGG16: 1024 and 256, as in the paper): they
    take as long as others. The peers get pooled RoIs, whose making counts as nothing.

    Args:
        network: see `fast_rcnn`'s backbone.
        dtype: "float32" or "bfloat16", weights included; OpenVINO has it as a hint.
        proposals: numbers of proposals, random over the image.
        shorter_side: of the image in the network.
        rounds: how often each part is timed.
        threads: of every contestant.

    Returns:
        Dict: "image", height and width in the network; "selective_search", seconds for all proposals of the image file;
        "rows", a list of dicts with "contestant" ("ours", "ours, SVD", "PyTorch", "OpenVINO"), "proposals", "parts"
        (seconds of those of `PARTS` that it has), "total" (seconds of `detect` from a file; for peers the sum of the
        parts) and, of "ours", "bare" (seconds of the network alone, in one graph); "missing", why peers are left out.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = frcnn.fast_rcnn(network, CLASSES, weights=None)
    settings = DetectionSettings(shorter_side, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        path, selective_search = _image_file(Path(folder))
        ours = {
            "ours": _Ours(model, settings, path, proposals),
            "ours, SVD": _Ours(_compressed(model), settings, path, proposals),
        }
        contestants: dict[str, _Ours | _Peer] = {**ours}
        missing = {}
        for name, peer in (("PyTorch", _PyTorch), ("OpenVINO", _OpenVINO)):
            try:
                contestants[name] = peer(model, ours["ours"], dtype, threads)
            except ImportError as error:
                missing[name] = str(error)
        # Part by part: the machine's speed changes within a round.
        functions = {
            (name, *part): contestants[name].functions[part]
            for part in ours["ours"].functions
            for name in contestants
            if part in contestants[name].functions and (part[0], name) != ("bare", "ours, SVD")
        }
        seconds = median_seconds(functions, rounds)
    rows = [_row(name, number, seconds) for number in proposals for name in contestants]
    size = network_size(_IMAGE_SIZE, shorter_side).numpy().tolist()
    return {"image": size, "selective_search": selective_search, "rows": rows, "missing": missing}


def _compressed(model):
    ranks = zip(fully_connected_names(model), (4, 16), strict=False)
    return with_factors(model, {name: max(1, model.get_layer(name).units // share) for name, share in ranks})


def _hidden_layers(model):
    """Names of the fully connected layers before the predictor layers; of two factors the second."""
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    return [name for name in names if name not in PREDICTOR_LAYERS and not name.endswith("_v")]


def _head(classify):
    """The fully connected layers one by one: names of parts and models."""
    # A layer's `output` is that in the graph that it was first used in.
    outputs = {node.operation.name: node.outputs[0] for nodes in classify._nodes_by_depth.values() for node in nodes}
    hidden = [outputs[name] for name in _hidden_layers(classify)]
    names = [f"fc{number}" for number, _ in enumerate(hidden, start=6)]
    ends = zip([classify.input, *hidden], [*hidden, classify.output], strict=True)
    return {name: keras.Model(*pair) for name, pair in zip([*names, "predictor layers"], ends, strict=True)}


def _row(name, number, seconds):
    parts = {part: seconds[name, part, of] for part in PARTS for of in (number, None) if (name, part, of) in seconds}
    row = {"contestant": name, "proposals": number, "parts": parts, "total": sum(parts.values())}
    return row | {part: seconds[name, part, number] for part in ("total", "bare") if (name, part, number) in seconds}


def _image_file(folder):
    """`(path, seconds)`: a JPEG file of a generated picture, and what its proposals take."""
    generate_digits(folder, {"test": 1})
    (source,) = (folder / "JPEGImages").iterdir()
    path = folder / "image.jpg"
    Image.open(source).resize(_IMAGE_SIZE[::-1]).save(path, quality=90)
    image, settings = read_image(path), proposal_settings("selective-search", dataset=())
    started = time.perf_counter()
    compute_proposals(image, settings)
    return path, time.perf_counter() - started


class _Ours:
    """Our network. `functions` has what is timed by `(part, number of proposals)`, None for what knows of none."""

    def __init__(self, model, settings, path, proposals):
        self.detector = detector = Detector(model, settings)
        self.image, self.pooled = _resized(path, settings), {}
        convolve = _compiled(functools.partial(detector.stages.convolve, training=False))
        self._features, self._pool = convolve(self.image), _compiled(detector.stages.pool)
        self._suppress, self._bare = _compiled(self._decode_and_suppress), _compiled(self._network)
        self._head = _compiled_parts(detector.stages.classify)
        self.functions = {
            ("decode and resize", None): functools.partial(_resized, path, settings),
            ("convolutions", None): functools.partial(convolve, self.image),
        }
        for number in proposals:
            relative = random_rois(number, np.random.default_rng(0), 1, 1)
            self._add_regions(number, tf.constant(relative))
            self.functions["total", number] = functools.partial(frcnn.detect, model, path, relative[0], settings)

    def _add_regions(self, number, proposals):
        rois = boxes.scale(proposals, *map(float, self.image.shape[1:3]))
        self.pooled[number] = vectors = self._pool(self._features, rois)
        self.functions["RoI pooling", number] = functools.partial(self._pool, self._features, rois)
        for part, layers in self._head.items():
            self.functions[part, number] = functools.partial(layers, vectors)
            vectors = layers(vectors)
        self.functions["NMS", number] = functools.partial(self._suppress, vectors, proposals)
        self.functions["bare", number] = functools.partial(self._bare, self.image, rois)

    def _decode_and_suppress(self, outputs, proposals):
        decoded = boxes.decode(tf.expand_dims(proposals, 2), outputs["box_deltas"])
        return self.detector.suppress(self.detector.to_scores(outputs["class_logits"]), boxes.clip(decoded))

    def _network(self, image, rois):
        parts = self.detector.stages
        return parts.classify(parts.pool(parts.convolve(image, training=False), rois), training=False)


def _compiled(function):
    return tf.function(function, autograph=False, reduce_retracing=True)


def _compiled_parts(classify):
    return {part: _compiled(functools.partial(layers, training=False)) for part, layers in _head(classify).items()}


def _resized(path, settings):
    return resize_to_network(read_image(path), settings.shorter_side, settings.longer_side)[None]


class _Peer:
    """Another framework's network, `functions` as those of `_Ours`; `_network` makes one of a Keras model."""

    def __init__(self, model, ours):
        parts = stages(model)
        convolve, image = self._network(parts.convolve, ours.image.shape), self._array(ours.image)
        self.functions = {("convolutions", None): functools.partial(convolve, image)}
        head = {part: self._network(layers, layers.input.shape) for part, layers in _head(parts.classify).items()}
        for number, pooled in ours.pooled.items():
            vectors = self._array(pooled)
            for part, run in head.items():
                self.functions[part, number] = functools.partial(run, vectors)
                vectors = run(vectors)


class _PyTorch(_Peer):
    def __init__(self, model, ours, dtype, threads):
        import torch

        self._torch, self._dtype = torch, getattr(torch, dtype)
        torch.set_num_threads(threads)
        super().__init__(model, ours)

    def _network(self, network, _):
        from tf_fast_rcnn.benchmarks.pytorch_network import PyTorchNetwork

        return self._torch.inference_mode()(PyTorchNetwork(network).to(self._dtype).eval())

    def _array(self, tensor):
        # Images come as float32 to the first layer, which knows its type.
        array = self._torch.from_numpy(tf.cast(tensor, tf.float32).numpy())
        return array if tensor.shape.rank == 4 else array.to(self._dtype)


class _OpenVINO(_Peer):
    def __init__(self, model, ours, dtype, threads):
        import openvino

        self._openvino = openvino
        precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        # It would bind threads to cores, those of other contestants too.
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False,
        }
        super().__init__(model, ours)

    def _network(self, network, shape):
        function = _compiled(functools.partial(network, training=False)).get_concrete_function(
            tf.TensorSpec([1, *shape[1:]])
        )
        converted = self._openvino.convert_model(function)
        compiled = self._openvino.compile_model(converted, "CPU", self._settings)

        def run(array):
            found = compiled([array], share_inputs=True, share_outputs=True)
            return found[0]

        return run

    def _array(self, tensor):
        return tf.cast(tensor, tf.float32).numpy()
