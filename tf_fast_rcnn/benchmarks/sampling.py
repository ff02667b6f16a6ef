"""Hierarchical against RoI-centric sampling (section 2.3): what a mini-batch of R RoIs costs by its images N."""

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
    """Trains with mini-batches of R RoIs from N images, and times them, the input pipeline included.

    To be called in a fresh process, whose memory is measured. A mini-batch of more than `images_at_once` images is
    taken in parts whose gradients are accumulated. The network starts at random, which takes as long.

    Args:
        spec: of the data set (see `load_dataset`).
        backbone: see `fast_rcnn`.
        images: N.
        rois: R, a multiple of N.
        shorter_side: of the resized images.
        images_at_once: None for all.
        steps: how many mini-batches, or parts of one, are timed, after one that is not.
        cache_dir: where proposals are cached.

    Returns:
        Dict: the arguments; "parts" of a mini-batch and "parts_timed"; "seconds" of a mini-batch (the median part's
        times the parts); "rois_per_second"; "memory_gb", the process's at its peak.
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
    """Seconds from the end of a step to the end of the next: with the wait for its data."""

    def on_train_begin(self, logs=None):
        self.seconds, self._last = [], time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
