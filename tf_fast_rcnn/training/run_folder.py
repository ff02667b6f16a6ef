"""RUN, the folder that training writes and every later command reads.

RUN/
  run.json          class names, recipe, backbone, proposal settings, seed: everything that the run depends on
  model.keras       the trained model, once training has ended
  log.jsonl         one line every few mini-batches: step, losses, rate; validation mAP after each epoch
  losses.png        the same as curves
  tensorboard/      the same for TensorBoard
  checkpoints/      the last states, while training runs; the same command goes on from there
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

# Keras finds the layers, losses and optimisers of a saved model only where their modules have been imported.
import tf_fast_rcnn.models.losses
import tf_fast_rcnn.training.optimizers  # noqa: F401
from tf_fast_rcnn.data.batches.settings import detection_side
from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings, settings_from_json
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import remove_partial_files, replacing_path, write_json
from tf_fast_rcnn.training.precision import in_precision
from tf_fast_rcnn.training.settings import with_current_names

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_KEPT_CHECKPOINTS = 2
# In a checkpoint's archive beside what Keras writes: what Keras does not save.
_STATE_NAME = "training_state.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with all that is needed to use it.

    Attributes:
        folder: RUN.
        model: the Keras model.
        class_names: names of the classes 1..K.
        proposals: `ProposalSettings` of training, with which proposals of other images are computed; after training on
            proposals of a file, `FileProposals` that only say so: other images need proposals of their own.
        shorter_side, longer_side: the image size of training in pixels, which detection should use too; after
            multi-scale training its middle one.
        description: the content of run.json.
    """

    folder: Path
    model: keras.Model
    class_names: tuple
    proposals: ProposalSettings | FileProposals
    shorter_side: int
    longer_side: int
    description: dict


def load_run(folder: StrPath) -> Run:
    """Reads RUN.

    Raises:
        InputError: where the folder is no run, or its training has not ended.

    Example:
        >>> run = load_run("runs/cells")                                        # doctest: +SKIP
        >>> detect(run.model, "cells.jpg", run.proposals, detection_settings(run))      # doctest: +SKIP
    """
    folder = Path(folder)
    description = read_description(folder)
    model_file = folder / "model.keras"
    if not model_file.is_file():
        raise InputError(
            f"{folder}: found a run without model.keras; expected one whose training has ended; give its `train` "
            "command again to go on"
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
    """A Keras model from a .keras file; InputError where it is not readable."""
    try:
        # The archive's checksums find damage that Keras would load as weights.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise OSError(f"{damaged} is damaged")
        return keras.models.load_model(path)
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: found no readable model ({reason}); expected a .keras file of `train`") from None


def read_description(folder: StrPath) -> dict[str, Any]:
    """The content of RUN/run.json, its recipe with the names of this version."""
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
        raise InputError(f"{path}: found no JSON object; expected what `train` writes; train again")
    if isinstance(description.get("recipe"), dict):
        description["recipe"] = with_current_names(description["recipe"])
    return description


def validation_metrics(run: Run) -> dict[str, Any] | None:
    """The row of log.jsonl with the validation mAP ("mean_ap", "ap/CLASS", "step") of a run's model, or None."""
    path = run.folder / "log.jsonl"
    rows = map(json.loads, path.read_text().splitlines()) if path.is_file() else ()
    rows = [row for row in rows if "mean_ap" in row]
    if not rows:
        return None
    # With early stopping RUN's model is the best, the first of equals.
    return max(rows, key=lambda row: row["mean_ap"]) if run.description["recipe"].get("early_stopping") else rows[-1]


def open_run(folder: StrPath, description: Mapping[str, Any]) -> Path:
    """Makes RUN for a training run, or checks that RUN is an interrupted one of the same description.

    A run that was stopped before it had a checkpoint is begun anew, whatever its description.

    Raises:
        InputError: where the folder holds something else, a finished run, or one of another description.
    """
    folder = Path(folder)
    description = json.loads(json.dumps(description))
    if not (folder / "run.json").is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: found files that are no run; expected a new folder; give another --out")
        folder.mkdir(parents=True, exist_ok=True)
    remove_partial_files(folder)
    finished = (folder / "model.keras").exists()
    if not finished and not _checkpoints(folder):
        write_json(folder / "run.json", description)
        return folder
    found = read_description(folder)
    # An interrupted run may go on after an upgrade.
    compared = {*found, *description} - {"package_version"}
    different = sorted(key for key in compared if found.get(key) != description.get(key))
    if different:
        raise InputError(
            f"{folder}: found a run with another {', '.join(different)}; expected a new folder or the same command as "
            "before; give another --out"
        )
    if finished:
        raise InputError(
            f"{folder}: found a finished run; expected a new folder or an interrupted run; give another --out"
        )
    return folder


def save_model(model: keras.Model, path: StrPath) -> None:
    """Saves a model without its optimiser, and in float32, under a temporary name first."""
    with in_precision(model, "float32"):
        _save(keras.Model(model.input, model.output, name=model.name), Path(path))


def save_checkpoint(model: keras.Model, folder: StrPath, step: int) -> None:
    """Saves a model with its optimiser as the state after `step` mini-batches, and removes older states."""
    state = {"step": step, "random_states": [state.numpy().tolist() for state in _random_states(model)]}
    _save(model, Path(folder) / "checkpoints" / f"step-{step:08d}.keras", state)
    for old in _checkpoints(folder)[:-_KEPT_CHECKPOINTS]:
        old.unlink()


def last_checkpoint(folder: StrPath) -> tuple[keras.Model, int] | None:
    """`(compiled model, step)` of the last state that RUN holds, or None.

    Raises:
        InputError: where the file is damaged, or no state of a training run.
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
            f"{path}: found no state of training ({error}); expected a checkpoint of `train`; remove it to go on from "
            "the one before"
        ) from None


def best_model_path(folder: StrPath) -> Path:
    """Where a run with early stopping keeps the best model while it trains."""
    return Path(folder) / "checkpoints" / "best.keras"


def remove_checkpoints(folder: StrPath) -> None:
    """Removes the states of a run that has ended, and files that a kill left half written."""
    shutil.rmtree(Path(folder) / "checkpoints", ignore_errors=True)


def _checkpoints(folder):
    return sorted((Path(folder) / "checkpoints").glob("step-*.keras"))


def _random_states(model):
    """The variables from which dropout and other layers draw; Keras saves the seeds that they began with alone."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _save(model, path, state=None):
    with replacing_path(path) as temporary:
        model.save(temporary)
        if state is not None:
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(_STATE_NAME, json.dumps(state))
