"""Trains and tests the detectors of the tables. Each result is saved to a file, and existing results are reused.

DIR/settings.json                     settings that all results depend on
DIR/seed-0/full/run/                  RUN of a training
DIR/seed-0/full/training.json         seconds per mini-batch
DIR/seed-0/full/as-trained.json       mAP and other results of a measurement
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.files import write_json
from tf_fast_rcnn.inference.predictor import Predictor
from tf_fast_rcnn.inference.settings import EVALUATION_SCORE_THRESHOLD, DetectionSettings
from tf_fast_rcnn.models.parts import denormalization_layer, stages
from tf_fast_rcnn.models.pretrained import copy_weights
from tf_fast_rcnn.models.truncated_svd import compress, fully_connected_names
from tf_fast_rcnn.tables.definitions import TABLES, measurements
from tf_fast_rcnn.tables.linear_svms import linear_svc, with_linear_svms
from tf_fast_rcnn.tables.proposals import ProposalChoice, proposal_facts
from tf_fast_rcnn.tables.trainings import TRAININGS, five_scales, train_detector
from tf_fast_rcnn.training.run_folder import load_run
from tf_fast_rcnn.training.settings import with_current_names

if TYPE_CHECKING:
    from tf_fast_rcnn.tables.definitions import Measurement
    from tf_fast_rcnn.tables.trainings import Setup

_TIMED_ROIS, _TIMED_ROUNDS = 300, 10


def measure_tables(setup: Setup, names: Sequence[str], seeds: int) -> None:
    """Measures all rows of some tables.

    Args:
        setup: the `Setup`.
        names: keys of `TABLES`.
        seeds: number of seeds, starting at 0. They run one after another, so each finished seed completes the tables.

    Raises:
        InputError: for unknown tables, data without objects, a folder with results of other settings, and SVMs without
            scikit-learn.
    """
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise InputError(f"tables: found {unknown[0]!r}; expected one of {', '.join(TABLES)}; fix the name")
    for dataset in (setup.train, setup.test):
        if not any(len(record.boxes) for record in dataset):
            raise InputError(f"{dataset.name}: found no objects; expected annotated images; check the split")
    wanted = [(seed, measurement) for seed in range(seeds) for measurement in measurements(names)]
    if any(measurement.change == "svms" for _, measurement in wanted):
        linear_svc()  # now, and not after days of training
    _open_folder(setup)
    with tqdm(total=len(wanted), desc="tables", unit="result", disable=not setup.progress) as bar:
        for seed, measurement in wanted:
            path = result_path(setup.out, measurement, seed)
            if not path.exists():
                folder = train_detector(setup, measurement.training, seed)
                write_json(path, measure(setup, measurement, folder, seed))
            bar.update()


def result_path(out: Path, measurement: Measurement, seed: int) -> Path:
    """The result file of a measurement in the folder of all results."""
    return out / f"seed-{seed}" / measurement.training / f"{measurement.name}.json"


def _open_folder(setup):
    """Writes settings.json into a new folder, or compares it with that of earlier results."""
    settings = {
        "train": setup.train.name,
        "test": setup.test.name,
        "class_names": list(setup.train.class_names),
        "recipe": dataclasses.asdict(setup.recipe),
        "backbone": setup.backbone if isinstance(setup.backbone, str) else setup.backbone.name,
        "weights": setup.weights,
        "protocol": setup.protocol,
    }
    settings = json.loads(json.dumps(settings))
    path = setup.out / "settings.json"
    if not path.exists():
        if setup.out.exists() and (not setup.out.is_dir() or any(setup.out.iterdir())):
            raise InputError(f"{setup.out}: not empty and not a folder of tables; choose another --out")
        setup.out.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    found = json.loads(path.read_text())
    if isinstance(found.get("recipe"), dict):
        found["recipe"] = with_current_names(found["recipe"])
    different = [key for key in settings if found.get(key) != settings[key]]
    if different:
        raise InputError(
            f"{setup.out}: found results with another {', '.join(different)}; expected a new folder or the same "
            "options as before; choose another --out"
        )


def measure(setup: Setup, measurement: Measurement, folder: Path, seed: int) -> dict[str, Any]:
    """Tests a detector in one way.

    Args:
        setup: the `Setup`.
        measurement: how to test it.
        folder: RUN of its training.
        seed: random seed for choosing proposals.

    Returns:
        A JSON dict: `mean_ap` (0 to 1), `classes` (AP by name), `seconds_per_image`, `fc_milliseconds`, and the values
        of `proposal_facts`.
    """
    training_source = TRAININGS[measurement.training].source
    dataset = setup.store.of(setup.test, measurement.proposals or ProposalChoice(training_source), seed)
    settings = _detection_settings(setup, measurement)
    model = load_run(folder).model
    if not measurement.boxes:
        model = without_boxes(model)
    if measurement.change == "svms":
        train = setup.store.of(setup.train, ProposalChoice(training_source))
        model = with_linear_svms(model, train, settings, setup.progress)
        settings = dataclasses.replace(settings, scores="sigmoid")
    elif measurement.change == "svd":
        model = _compressed(model)
    detections, seconds = _timed_detections(model, dataset, settings, setup.progress)
    result = score_detections(dataset, detections, setup.protocol)
    return {
        "mean_ap": result.mean_ap,
        "classes": result.to_json()["classes"],
        "seconds_per_image": seconds,
        "fc_milliseconds": fully_connected_milliseconds(model),
        **proposal_facts(dataset),
    }


def _detection_settings(setup, measurement):
    sampling = setup.recipe.sampling
    sides, longer_side = sampling.shorter_sides[0], sampling.longer_side
    if measurement.scales > 1:
        sides, longer_side = five_scales(setup.recipe)
    return DetectionSettings(
        sides,
        longer_side,
        score_threshold=EVALUATION_SCORE_THRESHOLD,
        nms_iou_threshold=setup.recipe.nms_iou_threshold,
        screening_rank=setup.recipe.screening_rank,
        box_refinement_steps=measurement.box_refinement_steps,
    )


def _timed_detections(model, dataset, settings, progress):
    """The detections of all images, and seconds per image without the first, which waits for TensorFlow's graph."""
    detections, moments = [], []
    for found in Predictor(model, settings=settings).detect_each(dataset, progress=progress):
        detections.append(found)
        moments.append(time.perf_counter())
    return detections, (moments[-1] - moments[0]) / max(1, len(moments) - 1)


def without_boxes(model: keras.Model) -> keras.Model:
    """A copy of a detector with zero box regression: its boxes are the proposals."""
    copy = keras.models.clone_model(model)
    copy_weights(model, copy)
    box_deltas = denormalization_layer(copy)
    box_deltas.mean, box_deltas.std = np.zeros_like(box_deltas.mean), np.zeros_like(box_deltas.std)
    return copy


def _compressed(model):
    """The model after truncated SVD, with the paper's shares of singular values: 1024 of 4096 in fc6, 256 in fc7."""
    names = fully_connected_names(model)
    shares = (("fc6", 4), ("fc7", 16))
    ranks = {
        argument: max(1, model.get_layer(name).units // share)
        for (argument, share), name in zip(shares, names, strict=False)
    }
    return compress(model, **ranks)


def fully_connected_milliseconds(model: keras.Model) -> float:
    """Time of the fully connected layers for 300 pooled RoIs, in milliseconds: the median of ten runs."""
    classify = stages(model).classify
    run = tf.function(lambda pooled: classify(pooled, training=False), autograph=False)
    pooled = tf.random.stateless_normal([1, _TIMED_ROIS, *classify.input.shape[2:]], [0, 0])
    seconds = []
    for _ in range(1 + _TIMED_ROUNDS):
        started = time.perf_counter()
        run(pooled)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[1:])


def results_of(out: Path, measurement: Measurement) -> dict[int, dict[str, Any]]:
    """The results of the finished seeds: dict from seed to the JSON dict of `measure`, plus `seconds_per_batch`."""
    found = {}
    for folder in sorted(out.glob("seed-*"), key=lambda folder: int(folder.name.removeprefix("seed-"))):
        seed = int(folder.name.removeprefix("seed-"))
        path = result_path(out, measurement, seed)
        if path.exists():
            costs = path.with_name("training.json")
            found[seed] = json.loads(path.read_text()) | (json.loads(costs.read_text()) if costs.exists() else {})
    return found
