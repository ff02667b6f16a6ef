"""Trains a detector in a single stage that fine-tunes all layers together (section 2.3 of the paper)."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

import tf_fast_rcnn
from tf_fast_rcnn.data.batches.hierarchical import hierarchical_batches
from tf_fast_rcnn.data.prepared.examples import input_errors
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.losses import multi_task_loss
from tf_fast_rcnn.training import run_folder
from tf_fast_rcnn.training.averaging import averaged_weights, keep_raw_weights
from tf_fast_rcnn.training.callbacks import BestModel, Checkpoints, LossLog, Position, ProgressBar, RunLog
from tf_fast_rcnn.training.initial_model import initial_model
from tf_fast_rcnn.training.precision import set_precision
from tf_fast_rcnn.training.recipes import small_data
from tf_fast_rcnn.training.schedules import optimizer_of
from tf_fast_rcnn.training.settings import BACKGROUND
from tf_fast_rcnn.training.training_data import TrainingData, training_data

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.training.settings import Recipe


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """The result of a training run.

    Attributes:
        run: RUN, the folder of the run.
        steps: number of mini-batches.
        seconds: training time of this call, without that of an interrupted run before it.
        loss: the last loss in the log, if there is one.
        validation_map: the validation mAP of the model, if it was measured.
    """

    run: str
    steps: int
    seconds: float
    loss: float | None
    validation_map: float | None


def train(
    train_dataset: DetectionDataset | TrainingData,
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
    """Trains a detector and writes RUN; continues an interrupted run with the same arguments.

    Args:
        train_dataset: `DetectionDataset`; or `TrainingData`, which has the recipe and the proposals.
        out: RUN, a new folder or that of an interrupted run.
        recipe: `Recipe`; None for `small_data()`.
        proposals: `ProposalSettings` or `FileProposals`; None for those of a prepared dataset, or else of the recipe.
        backbone: see `fast_rcnn`; None for that of the recipe.
        weights: weights of the backbone ("imagenet", None or a weights file), or the folder of another run, whose
            detector is fine-tuned further (layers without a counterpart of equal name and shape are initialised).
        roi_pooling: see `RoIPooling`.
        seed: seed for initial weights, dropout and mini-batches.
        workers: number of processes that compute proposals; None for one per core.
        cache_dir: folder in which proposals are cached.
        progress: whether to show a progress bar on standard error.
        skip_bad: skip images that cannot be read, instead of stopping.
        class_map: the argument of `with_classes` that made the dataset, if it was used: RUN stores it for `evaluate`.
        callbacks: additional Keras callbacks, such as `evaluation.models.ValidationMap`.

    Returns:
        `TrainingSummary`. `load_run(out)` reads the model.

    Raises:
        InputError: if the data do not fit the recipe, the folder is in use, or the loss is not finite.

    Example:
        >>> train(load_dataset("voc:cells@trainval"), "runs/cells").loss          # doctest: +SKIP
        0.38
    """
    data = train_dataset
    if not isinstance(data, TrainingData):
        options: dict[str, Any] = {"workers": workers, "cache_dir": cache_dir, "progress": progress}
        data = training_data(
            data,
            recipe or small_data(),
            proposals,
            backbone=backbone,
            weights=weights,
            seed=seed,
            skip_bad=skip_bad,
            **options,
        )
    train_dataset, recipe = data.dataset, data.recipe
    backbone = backbone or recipe.backbone
    description = _description(train_dataset, recipe, weights, roi_pooling, seed, data.proposals, class_map)
    folder = run_folder.open_run(out, description)

    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    steps_per_epoch = max(1, len(train_dataset) // recipe.sampling.images_per_batch)
    steps = recipe.steps or (recipe.epochs or 1) * steps_per_epoch
    model, step = _first_or_saved_model(folder, train_dataset, recipe, backbone, weights, roi_pooling, seed, steps)
    position, log = Position(step), RunLog(folder, step)
    best = BestModel(folder, log, recipe.early_stopping) if recipe.early_stopping else None
    callbacks = [position, *callbacks, LossLog(log, position), *([best] if best else []), Checkpoints(folder, position)]
    if progress:
        # Printed only after all checks, so that an error in the options is the only line.
        for line in data.reasons:
            print(line, file=sys.stderr)
        callbacks.append(ProgressBar(steps, step))
    segments = [] if best and best.has_ended else _segments(step, steps, steps_per_epoch)
    _fit(model, train_dataset, recipe, segments, position, seed, callbacks)
    _finish(folder, model, best)
    return _summary(folder, log, position.step, time.monotonic() - started, best)


def _first_or_saved_model(folder, dataset, recipe, backbone, weights, roi_pooling, seed, steps):
    """The compiled model to train and its step: that of the last checkpoint, or the initial model at step 0."""
    checkpoint = run_folder.last_checkpoint(folder)
    model = initial_model(dataset, recipe, backbone, None if checkpoint else weights, roi_pooling, seed)
    if checkpoint:
        _check_checkpoint(folder, checkpoint[0], model)
        return checkpoint
    _compile(model, recipe, dataset, steps)
    return model, 0


def _check_checkpoint(folder, model, expected):
    """Raises InputError if the model of a checkpoint differs from the initial model of this run."""

    def classes(model):
        outputs = model.output if isinstance(model.output, dict) else {}
        return outputs["class_logits"].shape[-1] - 1 if "class_logits" in outputs else 0

    def shapes(model):
        # Without names, because their numbers differ if the user's network is created again.
        return sorted(tuple(weight.shape) for weight in model.weights)

    # A model that was never compiled has no optimizer attribute.
    if shapes(model) != shapes(expected) or getattr(model, "optimizer", None) is None:
        raise InputError(
            f"{folder}/checkpoints: found the checkpoint of another model, with {classes(model)} classes and "
            f"{model.count_params():,} weights; expected one of this run, with {classes(expected)} classes, "
            f"{expected.count_params():,} weights and an optimiser; remove it, or choose another --out"
        )


def _description(train_dataset, recipe, weights, roi_pooling, seed, proposals, class_map):
    """The content of run.json: everything that the run depends on."""
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
    # On a GPU, Keras would use XLA, which recompiles for every image shape.
    model.compile(optimizer=optimizer_of(recipe, model, steps), loss=loss, jit_compile=False)


def _train_only(model, names):
    known = [layer.name for layer in model.layers if layer.weights]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"only_layers: found {unknown[0]!r}; expected layers of the model: {', '.join(known)}")
    for layer in model.layers:
        if layer.name not in names:
            layer.trainable = False


def _fit(model, dataset, recipe, segments, position, seed, callbacks):
    """Trains from the current position on. Epochs begin at multiples of their steps, even after an interruption."""
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
    """`(epochs, steps of each)` from `step` to `steps`: the rest of an epoch, full epochs, and a partial last epoch."""
    segments = []
    to_boundary = min(-step % steps_per_epoch, steps - step)
    if to_boundary > 0:
        segments.append((1, to_boundary))
        step += to_boundary
    whole, rest = divmod(max(0, steps - step), steps_per_epoch)
    return segments + [segment for segment in [(whole, steps_per_epoch), (1, rest)] if all(segment)]


def _finish(folder, model, best):
    """Saves the last or the best model as model.keras, and removes the checkpoints."""
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
