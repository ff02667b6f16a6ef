"""Hierarchical against RoI-centric sampling (section 2.3): the cost of a mini-batch of R RoIs from N images."""

from __future__ import annotations

import resource
import statistics
import time
from typing import TYPE_CHECKING, Any

import keras

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.data.prepared.write import with_proposals
from tf_fast_rcnn.training.optimizers import FineTuningSGD

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath


def measure_sampling(
    spec: str,
    backbone: str | keras.Model,
    images: int,
    rois: int = 128,
    shorter_side: int = 600,
    images_at_once: int | None = None,
    steps: int = 3,
    cache_dir: StrPath | None = None,
) -> dict[str, Any]:
    """Times training on mini-batches of R RoIs from N images, including the input pipeline.

    Call it in a fresh process, whose memory is measured. A mini-batch of more than `images_at_once` images is processed
    in parts whose gradients are accumulated. The weights are random, which does not affect the time.

    Args:
        spec: the dataset (see `load_dataset`).
        backbone: see `fast_rcnn`.
        images: N.
        rois: R, a multiple of N.
        shorter_side: shorter side of the resized images, in pixels.
        images_at_once: most images processed at once; None for all.
        steps: number of mini-batches, or parts of one, that are timed, after a warm-up step.
        cache_dir: cache folder for proposals; None for the user's.

    Returns:
        A dict: the arguments; "parts" per mini-batch and "parts_timed"; "seconds" per mini-batch (median time of a part
        times the number of parts); "rois_per_second"; "memory_gb", the peak memory of the process.
    """
    at_once = min(images, images_at_once or images)
    parts = images // at_once
    dataset = with_proposals(frcnn.load_dataset(spec), cache_dir)
    batches = frcnn.hierarchical_batches(dataset, at_once, rois * at_once // images, shorter_side=shorter_side)
    model = frcnn.fast_rcnn(backbone, len(dataset.class_names), weights=None)
    optimizer = FineTuningSGD(0.0001, momentum=0.9, gradient_accumulation_steps=parts if parts > 1 else None)
    model.compile(optimizer, loss=frcnn.multi_task_loss(model), jit_compile=False)
    timer = _StepTimer()
    model.fit(batches, steps_per_epoch=steps + 1, epochs=1, shuffle=False, callbacks=[timer], verbose=0)
    seconds = statistics.median(timer.seconds[1:]) * parts
    return {
        "data": spec,
        "backbone": backbone,
        "images": images,
        "rois": rois,
        "shorter_side": shorter_side,
        "parts": parts,
        "parts_timed": steps,
        "seconds": seconds,
        "rois_per_second": rois / seconds,
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


class _StepTimer(keras.callbacks.Callback):
    """Seconds from the end of a step to the end of the next, including the wait for its data."""

    def on_train_begin(self, logs=None):
        self.seconds, self._last = [], time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
