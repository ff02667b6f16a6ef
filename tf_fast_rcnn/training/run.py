"""A training run: one stage in which all layers are fine-tuned together (section 2.3 of the paper)."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import keras

import tf_fast_rcnn
from tf_fast_rcnn.data.batches.hierarchical import hierarchical_batches
from tf_fast_rcnn.data.prepared.examples import input_errors
from tf_fast_rcnn.data.prepared.write import cached_proposals
from tf_fast_rcnn.data.proposals import proposal_settings
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.losses import multi_task_loss
from tf_fast_rcnn.training import run_folder
from tf_fast_rcnn.training.averaging import averaged_weights, keep_raw_weights
from tf_fast_rcnn.training.callbacks import BestModel, Checkpoints, LossLog, Position, ProgressBar, RunLog
from tf_fast_rcnn.training.choices import settle
from tf_fast_rcnn.training.initial_model import initial_model
from tf_fast_rcnn.training.optimizers import optimizer_of
from tf_fast_rcnn.training.precision import set_precision
from tf_fast_rcnn.training.recipes import small_data
from tf_fast_rcnn.training.settings import BACKGROUND, check_classes

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.data.records import DetectionDataset
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.training.settings import Recipe


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """What a training run gave: its folder, mini-batches, seconds (of this sitting), last loss, and the validation mAP
    of its model."""

    run: str
    steps: int
    seconds: float
    loss: float | None
    validation_map: float | None


def train(
    train_dataset: DetectionDataset,
    out: StrPath,
    *,
    recipe: Recipe | None = None,
    proposals: ProposalSettings | FileProposals | None = None,
    backbone: str | keras.Model | None = None,
    weights: StrPath | None = "imagenet",
    roi_pooling: str = "auto",
    seed: int = 0,
    workers: int | None = None,
    cache_dir: StrPath | None = None,
    progress: bool = True,
    skip_bad: bool = False,
    class_map: Mapping[str, Sequence[str]] | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> TrainingSummary:
    """Trains a detector and writes RUN; goes on where an interrupted run of the same arguments stopped.

    Args:
        train_dataset: `DetectionDataset`.
        out: RUN, a new folder or that of an interrupted run.
        recipe: `Recipe`; None for `small_data()`.
        proposals: `ProposalSettings` or `FileProposals`; None for those of a prepared data set, else of the recipe.
        backbone: see `fast_rcnn`; None for the recipe's.
        weights: of the backbone ("imagenet", None or a weights file), or the folder of another run, whose detector is
            tuned further (layers that fit neither in name nor shape start anew).
        roi_pooling: see `RoIPooling`.
        seed: of initial weights, dropout and mini-batches.
        workers: processes that compute proposals; None for one a core.
        cache_dir: where proposals are cached.
        progress: whether to show a progress bar on standard error.
        skip_bad: leave out images that cannot be read, instead of stopping.
        class_map: what `with_classes` was given to make the data set, if it was: RUN keeps it for `evaluate`.
        callbacks: further Keras callbacks, such as `evaluation.models.ValidationMap`.

    Returns:
        `TrainingSummary`. The model is read with `load_run(out)`.

    Raises:
        InputError: for data that do not fit, a folder in use, or a loss that is not finite.

    Example:
        >>> train(load_dataset("voc:cells@trainval"), "runs/cells").loss          # doctest: +SKIP
        0.38
    """
    if not any(len(record.boxes) for record in train_dataset):
        raise InputError(f"{train_dataset.name}: found no objects; expected annotated images; check the split")
    recipe = recipe or small_data()
    backbone = backbone or recipe.backbone
    recipe = dataclasses.replace(recipe, backbone=backbone if isinstance(backbone, str) else backbone.name)
    check_classes(recipe, train_dataset)
    recipe, reasons = settle(recipe, train_dataset, backbone)
    if progress:
        print(*reasons, sep="\n", file=sys.stderr)
    proposals = train_dataset.proposals or proposals or proposal_settings(recipe.proposals, train_dataset)
    description = _description(train_dataset, recipe, weights, roi_pooling, seed, proposals, class_map)
    folder = run_folder.open_run(out, description)
    if train_dataset.proposals is None:
        train_dataset = cached_proposals(
            train_dataset, proposals, cache_dir=cache_dir, workers=workers, progress=progress, skip_bad=skip_bad
        )

    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    steps_per_epoch = max(1, len(train_dataset) // recipe.sampling.images_per_batch)
    steps = recipe.steps or (recipe.epochs or 1) * steps_per_epoch
    checkpoint = run_folder.last_checkpoint(folder)
    model, step = initial_model(train_dataset, recipe, backbone, None if checkpoint else weights, roi_pooling, seed), 0
    if checkpoint:
        _check_checkpoint(folder, checkpoint[0], model)
        model, step = checkpoint
    else:
        _compile(model, recipe, train_dataset, steps)
    position, log = Position(step), RunLog(folder, step)
    best = BestModel(folder, log, recipe.early_stopping) if recipe.early_stopping else None
    callbacks = [position, *callbacks, LossLog(log, position), *([best] if best else []), Checkpoints(folder, position)]
    if progress:
        callbacks.append(ProgressBar(steps, step))
    segments = [] if best and best.has_ended else _segments(step, steps, steps_per_epoch)
    _fit(model, train_dataset, recipe, segments, position, seed, callbacks)
    _finish(folder, model, best)
    return _summary(folder, log, position.step, time.monotonic() - started, best)


def _check_checkpoint(folder, model, expected):
    """InputError where a checkpoint's model is not like the one that the run would begin with."""

    def classes(model):
        outputs = model.output if isinstance(model.output, dict) else {}
        return outputs["class_logits"].shape[-1] - 1 if "class_logits" in outputs else 0

    def shapes(model):
        # Without names: they are numbered anew where the user's network is made again.
        return sorted(tuple(weight.shape) for weight in model.weights)

    # A model that was never compiled has no optimiser at all.
    if shapes(model) != shapes(expected) or getattr(model, "optimizer", None) is None:
        raise InputError(
            f"{folder}/checkpoints: found the checkpoint of another model, with {classes(model)} classes and "
            f"{model.count_params():,} weights; expected one of this run, with {classes(expected)} and "
            f"{expected.count_params():,}, and an optimiser; remove it, or give another --out"
        )


def _description(train_dataset, recipe, weights, roi_pooling, seed, proposals, class_map):
    """What run.json says: everything that the run depends on."""
    return {
        "package_version": tf_fast_rcnn.__version__,
        "train": train_dataset.name,
        "class_names": list(train_dataset.class_names),
        "classes": class_map,
        "backbone": recipe.backbone,
        "weights": None if weights is None else str(weights),
        "roi_pooling": roi_pooling,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "proposals": proposals.to_json(),
    }


def _compile(model, recipe, dataset, steps):
    set_precision(model, recipe.dtype)
    if recipe.only_layers is not None:
        _train_only(model, recipe.only_layers)
    class_weights = None
    if recipe.class_weights:
        class_weights = [recipe.class_weights.get(name, 1.0) for name in (BACKGROUND, *dataset.class_names)]
    loss = multi_task_loss(model, recipe.box_weight, class_weights)
    # Keras would take XLA on a GPU, which compiles anew for every shape of image.
    model.compile(optimizer=optimizer_of(recipe, model, steps), loss=loss, jit_compile=False)


def _train_only(model, names):
    known = [layer.name for layer in model.layers if layer.weights]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"only_layers: found {unknown[0]!r}; expected layers of the model; known: {', '.join(known)}")
    for layer in model.layers:
        if layer.name not in names:
            layer.trainable = False


def _fit(model, dataset, recipe, segments, position, seed, callbacks):
    """Fits from the position on; epochs begin at multiples of an epoch's steps, also after an interruption."""
    keep_raw_weights(model)
    for epochs, epoch_steps in segments:
        batches = hierarchical_batches(dataset, seed=seed, start=position.step, **dataclasses.asdict(recipe.sampling))
        with input_errors(dataset):
            model.fit(
                batches, epochs=epochs, steps_per_epoch=epoch_steps, callbacks=callbacks, verbose=0, shuffle=False
            )
        if model.stop_training:
            break


def _segments(step, steps, steps_per_epoch):
    """`(epochs, steps of each)` that lead from `step` to `steps`: the rest of an epoch, whole epochs, the last part."""
    segments = []
    to_boundary = min(-step % steps_per_epoch, steps - step)
    if to_boundary > 0:
        segments.append((1, to_boundary))
        step += to_boundary
    whole, rest = divmod(max(0, steps - step), steps_per_epoch)
    return segments + [segment for segment in [(whole, steps_per_epoch), (1, rest)] if all(segment)]


def _finish(folder, model, best):
    """Leaves model.keras, the last or the best model, and no checkpoints."""
    if best:
        os.replace(run_folder.best_model_path(folder), folder / "model.keras")
    else:
        with averaged_weights(model):
            run_folder.save_model(model, folder / "model.keras")
    run_folder.remove_checkpoints(folder)


def _summary(folder, log, steps, seconds, best):
    def last(name):
        return next((row[name] for row in reversed(log.rows) if row.get(name) is not None), None)

    mean_ap = best.mean_ap if best else last("mean_ap")
    return TrainingSummary(str(folder), steps, round(seconds, 1), last("loss"), mean_ap)
