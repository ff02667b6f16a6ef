"""The detectors that the tables compare: each is a variation of one recipe, trained once per seed."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.files import write_json
from tf_fast_rcnn.models.backbone_split import cut_at_roi_pooling
from tf_fast_rcnn.models.backbones import load_backbone
from tf_fast_rcnn.tables import proposals
from tf_fast_rcnn.tables.proposals import ProposalChoice
from tf_fast_rcnn.training.recipes import recipe as named_recipe
from tf_fast_rcnn.training.run import train
from tf_fast_rcnn.training.settings import Recipe, with_changes

# The five scales of section 5.2 (480, 576, 688, 864, 1200), relative to the single scale of 600.
_FIVE_SCALES = (480 / 600, 576 / 600, 688 / 600, 864 / 600, 1200 / 600)
# Each RoI of an RoI-centric mini-batch comes from a different image; this many images are processed at once.
_IMAGES_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Setup:
    """Settings that all detectors of the tables share.

    Attributes:
        train, test: datasets with the same classes.
        recipe: the `Recipe` that the trainings vary.
        backbone: see `fast_rcnn`.
        weights: weights of the backbone.
        out: folder of all results.
        protocol: see `score_detections`.
        store: `ProposalStore`.
        progress: whether to show progress bars on standard error.
    """

    train: DetectionDataset
    test: DetectionDataset
    recipe: Recipe
    backbone: str | keras.Model
    weights: str | None
    out: Path
    protocol: str
    store: proposals.ProposalStore
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Training:
    """The training of one detector.

    Attributes:
        changes: function from the `Setup` to the changes of its recipe, see `with_changes`.
        source: source of its proposals, see `ProposalChoice`.
        start: name of the training whose weights it starts from; None for the backbone's weights.
    """

    changes: Callable[[Setup], dict] = lambda setup: {}
    source: str = proposals.SELECTIVE_SEARCH
    start: str | None = None


def base_recipe(name: str, steps: int, shorter_side: int) -> Recipe:
    """The named recipe with a number of mini-batches and an image size, pooling from one layer as in the paper.

    Args:
        name: see `recipe`.
        steps: number of mini-batches.
        shorter_side: in pixels; the longer side keeps the recipe's proportion.
    """
    recipe = named_recipe(name, {"steps": steps, "network.stride": 16})
    sampling = recipe.sampling
    longer_side = round(shorter_side * sampling.longer_side / sampling.shorter_sides[0])
    return with_changes(recipe, {"sampling.shorter_side": shorter_side, "sampling.longer_side": longer_side})


def five_scales(recipe: Recipe) -> tuple[tuple[int, ...], int]:
    """`(shorter sides, longer side)` in pixels: the recipe's image size at the paper's five scales."""
    sides = tuple(round(recipe.sampling.shorter_sides[0] * scale) for scale in _FIVE_SCALES)
    return sides, 2 * recipe.sampling.longer_side


def _multi_scale(setup):
    sides, longer_side = five_scales(setup.recipe)
    return {"sampling.shorter_side": sides, "sampling.longer_side": longer_side}


def middle_layer(backbone: str | keras.Model, stride: int = 16) -> str:
    """The name of the first layer in the second half of the backbone's trainable layers.

    Args:
        backbone: see `fast_rcnn`.
        stride: stride of the feature map that RoI pooling uses, in pixels.
    """
    _, network, _ = load_backbone(backbone, weights=None)
    layers = cut_at_roi_pooling(network, stride).convolutions.layers
    learning = [
        layer.name
        for layer in layers
        if layer.trainable_weights and not isinstance(layer, keras.layers.BatchNormalization)
    ]
    return learning[len(learning) // 2]


def _middle(setup):
    return middle_layer(setup.backbone, setup.recipe.network.stride)


def _spatial_pyramid(setup):
    return {"network.finetune_from": "head", "network.roi_output_size": (1, 2, 3, 6)}


def _roi_centric(setup):
    """N = R, with gradients accumulated over parts of a mini-batch. `steps` counts the parts, so there are fewer
    updates; as many updates as with hierarchical mini-batches would cost many times as much."""
    at_once = min(_IMAGES_AT_ONCE, setup.recipe.sampling.rois_per_batch)
    return _spatial_pyramid(setup) | {
        "sampling.images_per_batch": at_once,
        "sampling.rois_per_batch": at_once,
        "optimizer.accumulation": setup.recipe.sampling.rois_per_batch // at_once,
    }


TRAININGS = {
    "full": Training(),
    "classification": Training(lambda setup: {"box_weight": 0.0}),
    "stage-wise": Training(lambda setup: {"only_layers": ("box_regression",)}, start="classification"),
    "later-convolutions": Training(lambda setup: {"network.finetune_from": _middle(setup)}),
    "frozen-convolutions": Training(lambda setup: {"network.finetune_from": "head"}),
    "spatial-pyramid": Training(_spatial_pyramid),
    "roi-centric": Training(_roi_centric),
    "five-scales": Training(_multi_scale),
    "all-sizes": Training(source=proposals.ALL_SIZES),
    "dense": Training(source=proposals.DENSE),
    "dense-grid": Training(source=proposals.DENSE_GRID),
    "strides-8-16": Training(lambda setup: {"network.stride": (8, 16)}, source=proposals.DENSE),
    "strides-8-16-32": Training(lambda setup: {"network.stride": (8, 16, 32)}, source=proposals.DENSE),
}


def run_folder_of(setup: Setup, name: str, seed: int) -> Path:
    """The folder RUN of a training and seed."""
    return setup.out / f"seed-{seed}" / name / "run"


def train_detector(setup: Setup, name: str, seed: int) -> Path:
    """Trains a detector, and the one that it starts from, unless RUN is already complete.

    Next to RUN, training.json contains `seconds_per_batch`, the median over the mini-batches since the last start. If
    gradients are accumulated, a mini-batch is all parts of one update.

    Args:
        setup: the `Setup`.
        name: a key of `TRAININGS`.
        seed: random seed of the training.

    Returns:
        The folder RUN.
    """
    training, folder = TRAININGS[name], run_folder_of(setup, name, seed)
    if (folder / "model.keras").exists():
        return folder
    start = train_detector(setup, training.start, seed) if training.start else setup.weights
    recipe = with_changes(setup.recipe, training.changes(setup))
    timer = BatchTimer()
    train(
        setup.store.of(setup.train, ProposalChoice(training.source)),
        folder,
        recipe=recipe,
        backbone=setup.backbone,
        weights=start,
        seed=seed,
        progress=setup.progress,
        callbacks=[timer],
    )
    accumulation = getattr(recipe.optimizer, "accumulation", 1)
    write_json(folder.parent / "training.json", {"seconds_per_batch": timer.median() * accumulation})
    return folder


class BatchTimer(keras.callbacks.Callback):
    """Seconds from the end of a mini-batch to the end of the next one."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds: list[float] = []
        self._last: float | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._last = None  # the time between epochs does not count

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self._seconds.append(now - self._last)
        self._last = now

    def median(self) -> float:
        return statistics.median(self._seconds) if self._seconds else float("nan")
