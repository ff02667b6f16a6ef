"""Time of each stage of detection, before and after truncated SVD (the paper's figure 2), against other libraries."""

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
from tf_fast_rcnn.inference.graph import Detector
from tf_fast_rcnn.inference.settings import DetectionSettings
from tf_fast_rcnn.models.parts import PREDICTOR_LAYERS, layer_outputs, stages
from tf_fast_rcnn.models.truncated_svd import fully_connected_names, with_factors

CLASSES = 20
PARTS = ("decode and resize", "convolutions", "RoI pooling", "fc6", "fc7", "predictor layers", "NMS")
_IMAGE_SIZE = (480, 640)


def measure_detection(
    network: str, dtype: str, proposals: Sequence[int], shorter_side: int, rounds: int, threads: int
) -> dict[str, Any]:
    """Times all parts of detecting the objects in one image, and the total, alternating with other libraries.

    Call it in a fresh process. The weights are random, and so are the factors that replace the fully connected layers
    after truncated SVD, with ranks of a quarter and a sixteenth of the outputs (VGG16: 1024 and 256, as in the paper);
    this does not affect the time. The other libraries receive pooled RoIs; the time to pool them is not counted.

    Args:
        network: see `backbone` of `fast_rcnn`.
        dtype: "float32" or "bfloat16", weights included; for OpenVINO it is a hint.
        proposals: numbers of proposals, random over the image.
        shorter_side: shorter side of the network input, in pixels.
        rounds: how often each part is timed.
        threads: number of threads of every contestant.

    Returns:
        A dict with these entries:

        - "image": height and width of the network input.
        - "selective_search": seconds for the proposals of the image file.
        - "rows": a list of dicts with "contestant" ("ours", "ours, SVD", "PyTorch", "OpenVINO"), "proposals", "parts"
          (seconds of the parts in `PARTS` that it has), "total" (seconds of `detect` from a file; for other libraries
          the sum of the parts) and, for "ours", "bare" (seconds of the network alone, in one graph).
        - "missing": the reason for each library that was skipped.
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
        # Alternate for each part, because the machine's speed changes within a round.
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
    """Names of the fully connected layers before the predictor layers; for two factors, that of the second one."""
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    return [name for name in names if name not in PREDICTOR_LAYERS and not name.endswith("_v")]


def _head(classify):
    """Dict from the name of a part to a model of it: each fully connected layer, and the predictor layers."""
    outputs = layer_outputs(classify)
    hidden = [outputs[name] for name in _hidden_layers(classify)]
    names = [f"fc{number}" for number, _ in enumerate(hidden, start=6)]
    ends = zip([classify.input, *hidden], [*hidden, classify.output], strict=True)
    return {name: keras.Model(*pair) for name, pair in zip([*names, "predictor layers"], ends, strict=True)}


def _row(name, number, seconds):
    parts = {part: seconds[name, part, of] for part in PARTS for of in (number, None) if (name, part, of) in seconds}
    row = {"contestant": name, "proposals": number, "parts": parts, "total": sum(parts.values())}
    return row | {part: seconds[name, part, number] for part in ("total", "bare") if (name, part, number) in seconds}


def _image_file(folder):
    """`(path, seconds)`: a generated JPEG file, and the time of selective search on it."""
    generate_digits(folder, {"test": 1})
    (source,) = (folder / "JPEGImages").iterdir()
    path = folder / "image.jpg"
    Image.open(source).resize(_IMAGE_SIZE[::-1]).save(path, quality=90)
    image, settings = read_image(path), proposal_settings("selective-search", dataset=())
    started = time.perf_counter()
    compute_proposals(image, settings)
    return path, time.perf_counter() - started


class _Ours:
    """Our network. `functions` maps `(part, number of proposals or None)` to the function that is timed."""

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
    """Another library's network; `functions` as in `_Ours`. `_network` converts a Keras model, `_array` a tensor."""

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
        # Images stay float32; the first layer casts them.
        array = self._torch.from_numpy(tf.cast(tensor, tf.float32).numpy())
        return array if tensor.shape.rank == 4 else array.to(self._dtype)


class _OpenVINO(_Peer):
    def __init__(self, model, ours, dtype, threads):
        import openvino

        self._openvino = openvino
        precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        # CPU pinning would also bind the threads of other contestants to cores.
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
