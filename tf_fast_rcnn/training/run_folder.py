"""RUN, the folder that training writes and all later commands read.

RUN/
  run.json          class names, recipe, backbone, proposal settings, seed: everything that the run depends on
  model.keras       the trained model, after training has finished
  log.jsonl         one line every few mini-batches: step, losses, learning rate; validation mAP after each epoch
  losses.png        the same as curves
  tensorboard/      the same for TensorBoard
  checkpoints/      the last states, during training; the same command continues from there
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

import tf_fast_rcnn.models.fast_rcnn

# Keras finds the layers, losses and optimisers of a saved model only if their modules have been imported.
import tf_fast_rcnn.models.losses
import tf_fast_rcnn.training.optimizers  # noqa: F401
from tf_fast_rcnn.data.batches.settings import detection_side
from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings, settings_from_json
from tf_fast_rcnn.data.tiles import Tiles
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import remove_partial_files, replacing_path, write_json
from tf_fast_rcnn.training.precision import in_precision
from tf_fast_rcnn.training.settings import with_current_names

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_KEPT_CHECKPOINTS = 2
# A file that we add to the archive of a checkpoint, with the state that Keras does not save.
_STATE_NAME = "training_state.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with everything that is needed to use it.

    Attributes:
        folder: RUN.
        model: the Keras model.
        class_names: names of the classes 1..K.
        proposals: the `ProposalSettings` of training, used to compute proposals for other images; after training with
            proposals from a file, a `FileProposals` placeholder: proposals for other images must be supplied.
        shorter_side, longer_side: the image size in training, in pixels, which detection should use too; after
            multi-scale training, the middle size.
        description: the content of run.json.
    """

    folder: Path
    model: keras.Model
    class_names: tuple
    proposals: ProposalSettings | FileProposals
    shorter_side: int
    longer_side: int
    description: dict

    @property
    def nms_iou_threshold(self) -> float:
        """The recipe's threshold of non-maximum suppression. Runs of version 0.1 have the released system's 0.3."""
        return self.description["recipe"].get("nms_iou_threshold", 0.3)

    @property
    def screening_rank(self) -> int | None:
        """The recipe's rank of the first pass; see `DetectionSettings`. Runs of version 0.1 have none."""
        return self.description["recipe"].get("screening_rank")

    @property
    def tiles(self) -> Tiles | None:
        """The tiles of training, in which detection should see images too; None without tiles."""
        recipe = self.description["recipe"]
        if recipe.get("tile") is None:
            return None
        return Tiles(recipe["tile"], recipe["tile_overlap"], recipe["whole_image"])


def load_run(folder: StrPath) -> Run:
    """Reads RUN.

    Args:
        folder: RUN, the folder that `train` wrote.

    Raises:
        InputError: if the folder is not a training run, or its training has not finished.

    Example:
        >>> run = load_run("runs/cells")                                        # doctest: +SKIP
        >>> detect(run.model, "cells.jpg", run.proposals, detection_settings(run))      # doctest: +SKIP
    """
    folder = Path(folder)
    description = read_description(folder)
    model_file = folder / "model.keras"
    if not model_file.is_file():
        raise InputError(
            f"{folder}: found a run without model.keras; expected a finished run; repeat its `train` command to "
            "continue training"
        )
    model = load_model(model_file)
    try:
        sampling = description["recipe"]["sampling"]
        return Run(
            folder,
            model,
            tuple(description["class_names"]),
            settings_from_json(description["proposals"]),
            detection_side(sampling["shorter_side"]),
            sampling["longer_side"],
            description,
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{folder}/run.json: found no usable {error}; expected what `train` writes; train again"
        ) from None


def load_model(path: StrPath) -> keras.Model:
    """Loads a Keras model from a .keras file; raises InputError if it is not readable."""
    try:
        # The checksums of the archive detect damage that Keras would load as weights.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise OSError(f"{damaged} is damaged")
        return keras.models.load_model(path)
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: found no readable model ({reason}); expected a .keras file of `train`") from None


def read_description(folder: StrPath) -> dict[str, Any]:
    """The content of RUN/run.json, with the setting names of this version in its recipe.

    Raises:
        InputError: if the file is missing or damaged.
    """
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: found no run.json; expected a folder that `tf-fast-rcnn train` wrote; check the path"
        )
    try:
        description = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: found broken JSON ({error}); expected what `train` writes; train again") from None
    if not isinstance(description, dict):
        raise InputError(f"{path}: found JSON that is not an object; expected what `train` writes; train again")
    if isinstance(description.get("recipe"), dict):
        description["recipe"] = with_current_names(description["recipe"])
    return description


def validation_metrics(run: Run) -> dict[str, Any] | None:
    """The row of log.jsonl with the validation mAP of a run's model ("mean_ap", "ap/CLASS", "step"), or None."""
    path = run.folder / "log.jsonl"
    rows = map(json.loads, path.read_text().splitlines()) if path.is_file() else ()
    rows = [row for row in rows if "mean_ap" in row]
    if not rows:
        return None
    # With early stopping, the model is the one with the best mAP, the first if there are several.
    return max(rows, key=lambda row: row["mean_ap"]) if run.description["recipe"].get("early_stopping") else rows[-1]


def open_run(folder: StrPath, description: Mapping[str, Any]) -> Path:
    """Creates RUN for a training run, or checks that it is an interrupted run with the same description.

    A run that was interrupted before its first checkpoint starts again, whatever its description is.

    Raises:
        InputError: if the folder contains other files, a finished run, or a run with another description.
    """
    folder = Path(folder)
    description = json.loads(json.dumps(description))
    if not (folder / "run.json").is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: not empty and not a training run; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
    remove_partial_files(folder)
    finished = (folder / "model.keras").exists()
    if not finished and not _checkpoints(folder):
        write_json(folder / "run.json", description)
        return folder
    found = read_description(folder)
    # An interrupted run may continue after an upgrade.
    compared = {*found, *description} - {"package_version"}
    different = sorted(key for key in compared if found.get(key) != description.get(key))
    if different:
        raise InputError(
            f"{folder}: found a run with another {', '.join(different)}; expected a new folder or the same command as "
            "before; choose another --out"
        )
    if finished:
        raise InputError(
            f"{folder}: found a finished run; expected a new folder or an interrupted run; choose another --out"
        )
    return folder


def save_model(model: keras.Model, path: StrPath) -> None:
    """Saves a model in float32, without its optimiser; the file appears only when it is complete."""
    with in_precision(model, "float32"):
        _save(keras.Model(model.input, model.output, name=model.name), Path(path))


def save_checkpoint(model: keras.Model, folder: StrPath, step: int) -> None:
    """Saves a model with its optimiser as the state after `step` mini-batches, and removes old states."""
    state = {"step": step, "random_states": [state.numpy().tolist() for state in _random_states(model)]}
    _save(model, Path(folder) / "checkpoints" / f"step-{step:08d}.keras", state)
    for old in _checkpoints(folder)[:-_KEPT_CHECKPOINTS]:
        old.unlink()


def last_checkpoint(folder: StrPath) -> tuple[keras.Model, int] | None:
    """`(compiled model, step)` of the last state in RUN, or None.

    Raises:
        InputError: if the file is damaged, or is not a state of a training run.
    """
    checkpoints = _checkpoints(folder)
    if not checkpoints:
        return None
    path = checkpoints[-1]
    model = load_model(path)
    try:
        with zipfile.ZipFile(path) as archive:
            state = json.loads(archive.read(_STATE_NAME))
        for variable, value in zip(_random_states(model), state["random_states"], strict=True):
            variable.assign(value)
        return model, state["step"]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: found no training state ({error}); expected a checkpoint of `train`; remove it to continue from "
            "the previous one"
        ) from None


def best_model_path(folder: StrPath) -> Path:
    """The path at which a run with early stopping keeps the best model during training."""
    return Path(folder) / "checkpoints" / "best.keras"


def remove_checkpoints(folder: StrPath) -> None:
    """Removes the states of a finished run, and incomplete files of an interrupted one."""
    shutil.rmtree(Path(folder) / "checkpoints", ignore_errors=True)


def _checkpoints(folder):
    return sorted((Path(folder) / "checkpoints").glob("step-*.keras"))


def _random_states(model):
    """The random states of dropout and other layers; Keras saves only their initial seeds."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _save(model, path, state=None):
    with replacing_path(path) as temporary:
        model.save(temporary)
        if state is not None:
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(_STATE_NAME, json.dumps(state))
