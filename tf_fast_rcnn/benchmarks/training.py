"""A training step (forward, backward, update) beside the same network's in PyTorch: time, its parts, and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.benchmarks.measure import median_seconds, peak_growth
from tf_fast_rcnn.benchmarks.roi_pooling import random_rois
from tf_fast_rcnn.models.parts import stages
from tf_fast_rcnn.training.precision import set_precision

IMAGES, ROIS, CLASSES = 2, 128, 20
PARTS = ("convolutions", "RoI pooling", "fully connected", "backward", "update")
# The network is random: at a rate that learns, its weights might grow beyond all numbers while they are timed.
_RATE = 1e-9


class MiniBatch(NamedTuple):
    """Random images float32 `[B, H, W, 3]`, rois `[B, R, 4]` in pixels, labels int32 `[B, R]` in 0..K, and regression
    targets float32 `[B, R, 4]`."""

    images: np.ndarray
    rois: np.ndarray
    labels: np.ndarray
    targets: np.ndarray


def measure_training(
    network: str, dtypes: Sequence[str], size: tuple[int, int], rounds: int, threads: int
) -> dict[str, Any]:
    """Times steps on N = 2 images with R = 128 RoIs, ours and PyTorch's in turn.

    To be called in a fresh process: TensorFlow's number of threads is set once. Ours is the step of `model.fit`.
    PyTorch runs eagerly, channels last, under autocast where the type is bfloat16; its RoI pooling counts as nothing.

    Args:
        network: see `fast_rcnn`'s backbone; its weights are random.
        dtypes: of "float32" and "bfloat16" (mixed precision: weights stay float32).
        size: height and width of the images.
        rounds: how often each contestant is timed.
        threads: of every contestant.

    Returns:
        Dict: "seconds" of a step, medians by contestant ("ours, float32", "PyTorch, float32", ...); "parts", by
        contestant the seconds of those of `PARTS` that it can tell apart; "missing", why PyTorch is left out, or "".
    """
    contestants: dict[str, _Contestant] = {}
    batch, missing = random_mini_batch(size), ""
    for dtype in dtypes:
        contestants[f"ours, {dtype}"] = _Ours(network, dtype, batch, threads)
    try:
        for dtype in dtypes:
            contestants[f"PyTorch, {dtype}"] = _PyTorch(network, dtype, batch, threads)
    except ImportError as error:
        missing = str(error)
    functions = {name: contestant.step for name, contestant in contestants.items()}
    functions |= {f"parts of {name}": contestant.timed_step for name, contestant in contestants.items()}
    walls = median_seconds({name: function for name, function in functions.items() if function}, rounds)
    parts = {name: contestant.median_parts() for name, contestant in contestants.items()}
    return {
        "seconds": {name: walls[name] if contestants[name].step else sum(parts[name].values()) for name in contestants},
        "parts": parts,
        "missing": missing,
    }


def measure_training_memory(network: str, contestant: str, dtype: str, size: tuple[int, int], threads: int) -> int:
    """Bytes by which a process grows at its peak in training, beyond what it holds with the weights loaded.

    To be called in a fresh process. Gradients, momentum, activations and scratch memory count.

    Args:
        contestant: "ours" or "PyTorch"; the others as in `measure_training`.
    """
    trained = {"ours": _Ours, "PyTorch": _PyTorch}[contestant](network, dtype, random_mini_batch(size), threads)
    step = trained.step or trained.timed_step
    return peak_growth(lambda: [step() for _ in range(2)])[1]


def random_mini_batch(size: tuple[int, int]) -> MiniBatch:
    """`MiniBatch` of images of a height and width, the same each time."""
    rng, rois = np.random.default_rng(0), ROIS // IMAGES
    return MiniBatch(
        rng.uniform(0, 255, (IMAGES, *size, 3)).astype(np.float32),
        np.concatenate([random_rois(rois, rng, *size) for _ in range(IMAGES)]),
        rng.integers(0, CLASSES + 1, (IMAGES, rois)).astype(np.int32),
        rng.normal(0, 0.1, (IMAGES, rois, 4)).astype(np.float32),
    )


def _model(network, dtype, threads):
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = frcnn.fast_rcnn(network, CLASSES, weights=None)
    set_precision(model, {"float32": "float32", "bfloat16": "mixed_bfloat16"}[dtype])
    return model


class _Contestant:
    """A network that trains: `step` once, or `timed_step` once with its parts' times kept.

    A contestant whose parts are timed without changing how it runs has no `step` of its own.
    """

    step: Callable[[], None] | None = None

    def __init__(self):
        self._parts = []

    def timed_step(self):
        raise NotImplementedError

    def median_parts(self):
        """Median seconds by part, without the first step."""
        return {part: statistics.median(step[part] for step in self._parts[1:]) for part in self._parts[0]}


class _Ours(_Contestant):
    def __init__(self, network, dtype, batch, threads):
        super().__init__()
        self._model = model = _model(network, dtype, threads)
        self._losses = frcnn.multi_task_loss(model)
        model.compile(frcnn.sgd(_RATE), loss=self._losses, jit_compile=False)
        self._inputs = {"images": tf.constant(batch.images), "rois": tf.constant(batch.rois)}
        targets = np.concatenate([batch.labels[..., None], batch.targets], axis=-1, dtype=np.float32)
        self._targets = {"class_logits": tf.constant(batch.labels), "box_deltas": tf.constant(targets)}
        self._stages = stages(model)
        self._graph = tf.function(self._step_with_times, autograph=False)

    def step(self):
        self._model.train_on_batch(self._inputs, self._targets)

    def timed_step(self):
        started = time.time()
        times = [started, *self._graph().numpy(), time.time()]
        self._parts.append(dict(zip(PARTS, np.diff(times).tolist(), strict=True)))

    def _step_with_times(self):
        """The times when each part but the last is done; parts that `fit` may run side by side run one by one."""
        with tf.GradientTape() as tape:
            features = self._stages.convolve(self._inputs["images"], training=True)
            convolved, features = _when_done(keras.tree.flatten(features))
            pooled, vectors = _when_done([self._stages.pool(features, self._inputs["rois"], training=True)])
            outputs = self._stages.classify(vectors[0], training=True)
            loss = sum(loss(self._targets[name], outputs[name]) for name, loss in self._losses.items())
            classified, (loss,) = _when_done([loss])
        variables = self._model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        differentiated, gradients = _when_done(gradients)
        self._model.optimizer.apply(gradients, variables)
        return tf.stack([convolved, pooled, classified, differentiated])


def _when_done(tensors):
    """The time when all tensors are there, and the tensors, which nothing uses before that."""
    with tf.control_dependencies(tensors):
        now = tf.timestamp()
    with tf.control_dependencies([now]):
        return now, [tf.identity(tensor) for tensor in tensors]


class _PyTorch(_Contestant):
    def __init__(self, network, dtype, batch, threads):
        super().__init__()
        import torch

        from tf_fast_rcnn.benchmarks.pytorch_training import PyTorchTraining

        torch.set_num_threads(threads)
        self._training = PyTorchTraining(_model(network, "float32", threads), _RATE, half=dtype == "bfloat16")
        self._batch = batch

    def timed_step(self):
        self._parts.append(self._training.step(*self._batch))
