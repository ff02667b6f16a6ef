"""Evaluation of a model on a dataset, once or during training."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from tf_fast_rcnn.data.drawing import draw_detections
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.detection_files import read_matched
from tf_fast_rcnn.inference.detect import detect_dataset
from tf_fast_rcnn.inference.predictor import Predictor
from tf_fast_rcnn.inference.settings import EVALUATION_SCORE_THRESHOLD, DetectionSettings
from tf_fast_rcnn.inference.sources import Source
from tf_fast_rcnn.training.averaging import averaged_weights
from tf_fast_rcnn.visualization.drawing import draw_boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.evaluation.results import EvaluationResult
    from tf_fast_rcnn.files import StrPath

# Longer side, in pixels, of the PNGs written for TensorBoard in each epoch; about 200 kB each.
_PICTURE_SIDE = 400
_DRAWN_SCORE = 0.5


def evaluate(
    model: keras.Model | Predictor,
    dataset: DetectionDataset,
    protocol: str = "voc07",
    *,
    proposals: ProposalSettings | FileProposals | None = None,
    settings: DetectionSettings | None = None,
    cache_dir: StrPath | None = None,
    workers: int | None = None,
    progress: bool = True,
    iou_threshold: float = 0.5,
    max_detections: int | None = None,
) -> EvaluationResult:
    """Detects objects in every image of a dataset and scores the detections.

    Args:
        model: a model created by `fast_rcnn`, or a `Predictor`.
        dataset: `DetectionDataset` with the classes that the model was trained on.
        protocol: "voc07" (11-point average precision), "voc10" (area under the curve) or "coco".
        proposals: `ProposalSettings`, preferably those of training, or `FileProposals`; used if the dataset has no
            proposals. None for those of the predictor, or `default_proposals()`, which do not depend on the dataset's
            annotations.
        settings: `DetectionSettings`; None for those of the predictor, or the defaults, with a score threshold of 0.01.
            Exported models and servers keep their own.
        cache_dir, workers: see `cached_proposals`.
        progress: whether to show a progress bar on standard error.
        iou_threshold: see `score_detections`.
        max_detections: detections per image that the model keeps, if its settings can be changed, and detections per
            image and class that count under "coco"; None for those of the settings, and COCO's 100.

    Returns:
        `EvaluationResult`.

    Raises:
        InputError: if the model and the dataset have different numbers of classes.

    Example:
        >>> print(evaluate(model, load_dataset("voc:cells@test")).table())      # doctest: +SKIP
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    if settings is None:
        predictor = for_evaluation(predictor, max_detections)
    else:
        chosen = {} if max_detections is None else {"max_detections": max_detections}
        predictor = predictor.with_settings(**dataclasses.asdict(settings) | chosen)
    _check_classes(predictor, dataset)
    options: dict[str, Any] = {"cache_dir": cache_dir, "workers": workers, "progress": progress}
    detections = list(predictor.detect_each(dataset, proposals, **options))
    return score_detections(dataset, detections, protocol, iou_threshold, max_detections)


def for_evaluation(predictor: Predictor, max_detections: int | None = None) -> Predictor:
    """The predictor with a score threshold of 0.01, if its settings can be changed: average precision looks at the
    whole curve. `max_detections`: detections per image; None for the predictor's."""
    if not predictor.adjustable:
        return predictor
    chosen = {} if max_detections is None else {"max_detections": max_detections}
    return predictor.with_settings(score_threshold=EVALUATION_SCORE_THRESHOLD, **chosen)


def _check_classes(predictor: Predictor, dataset: DetectionDataset) -> None:
    found, expected = len(dataset.class_names), predictor.num_classes
    if expected is not None and found != expected:
        raise InputError(
            f"{dataset.name}: found {found} classes; expected the model's {expected}; load the dataset with the class "
            "names of training"
        )


class _FileSource(Source):
    """Detections that are in files, of a dataset only."""

    takes_proposals = False

    def __init__(self, path: StrPath, category_ids: Mapping[str, int] | int | None, images_by: str | None) -> None:
        super().__init__(str(path), description={"detections": str(path)})
        self._path, self._category_ids, self._images_by = path, category_ids, images_by

    def detect_dataset(self, dataset: DetectionDataset, batch_size: int, progress: bool) -> Iterator[Detections]:
        detections, matched = read_matched(self._path, dataset, self._category_ids, self._images_by)
        print(matched, file=sys.stderr)
        return iter(detections)


def file_predictor(
    path: StrPath, category_ids: Mapping[str, int] | int | None = None, images_by: str | None = None
) -> Predictor:
    """A `Predictor` that reads the detections of a dataset from files; arguments as those of `read_detections`.

    It reports on standard error how the images of the files were matched with those of the dataset.
    """
    return Predictor(_FileSource(path, category_ids, images_by))


class ValidationMap(keras.callbacks.Callback):
    """Evaluates on validation images at the end of each epoch, with the averaged weights if the optimizer keeps them.

    The mAP is added to the Keras logs as "mean_ap" and the AP of each class as "ap/NAME". `train` writes them to its
    log and for TensorBoard; in your own `fit`, put `keras.callbacks.TensorBoard` after this callback. The AP of classes
    without objects is omitted.

    Args:
        dataset: `DetectionDataset` with proposals.
        settings: `DetectionSettings`; the score threshold is replaced by 0.01.
        protocol: see `evaluate`.
        progress: whether to print the mAP on standard error.
        tensorboard: log folder for TensorBoard pictures of some images, with detections of a score of at least 0.5 and
            the ground truth as dashed boxes; None for no pictures. Created at the end of the first epoch.
        pictures: number of images drawn, evenly spaced in the dataset.

    Example:
        >>> validation = ValidationMap(val, DetectionSettings(), tensorboard="logs/validation")     # doctest: +SKIP
        >>> model.fit(batches, callbacks=[validation, keras.callbacks.TensorBoard("logs")])         # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        settings: DetectionSettings,
        protocol: str = "voc07",
        progress: bool = True,
        tensorboard: StrPath | None = None,
        pictures: int = 4,
    ) -> None:
        super().__init__()
        self._dataset, self._protocol, self._progress = dataset, protocol, progress
        self._settings = dataclasses.replace(settings, score_threshold=EVALUATION_SCORE_THRESHOLD)
        self._folder, self._board, self._step = tensorboard, None, 0
        self._drawn = sorted(set(np.linspace(0, len(dataset) - 1, pictures).astype(int).tolist()))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # A resumed run starts with the step count of its optimizer.
        optimizer = self.model.optimizer
        counted = int(optimizer.iterations) * (optimizer.gradient_accumulation_steps or 1)
        self._step = max(self._step, counted)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._step += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        with averaged_weights(self.model):
            detections = list(detect_dataset(self.model, self._dataset, self._settings, progress=False))
        result = score_detections(self._dataset, detections, self._protocol)
        figures = {"mean_ap": result.mean_ap} | {f"ap/{of_class.name}": of_class.ap for of_class in result.classes}
        logs.update({name: value for name, value in figures.items() if not math.isnan(value)})
        if self._folder is not None:
            self._write_pictures(detections)
        if self._progress:
            tqdm.write(f"validation mAP ({result.rule()}): {result.mean_ap:.3f}", file=sys.stderr)

    def _write_pictures(self, detections):
        if self._board is None:
            self._board = tf.summary.create_file_writer(str(self._folder))
        with self._board.as_default(step=self._step):
            for index in self._drawn:
                record = self._dataset[index]
                picture = Image.fromarray(record.image())
                picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
                picture = draw_boxes(picture, record.boxes, [""] * len(record.boxes))
                picture = draw_detections(picture, detections[index], self._dataset.class_names, _DRAWN_SCORE)
                tf.summary.image(f"detections/{record.image_id}", np.asarray(picture)[None])
        self._board.flush()
