"""Evaluation of a model on a data set, once or during training."""

import dataclasses
import math
import sys

import keras
from tqdm import tqdm

from tf_fast_rcnn.data.prepare import cached_proposals
from tf_fast_rcnn.detection import default_proposals, detect_dataset
from tf_fast_rcnn.detector import DetectionSettings
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.training.averaging import averaged_weights

# Average precision looks at the whole curve: detections that nobody would show count there too.
EVALUATION_SCORE_THRESHOLD = 0.01


def evaluate(
    model, dataset, protocol="voc07", *, proposals=None, settings=None, cache_dir=None, workers=None, progress=True
):
    """Detects on every image of a data set and scores the detections.

    Args:
        model: what `fast_rcnn` returned.
        dataset: `DetectionDataset` with the classes that the model was trained on.
        protocol: "voc07" (11-point average precision), "voc10" (area under the curve) or "coco".
        proposals: `ProposalSettings`, best those of training, or `FileProposals`, for a data set without; None for
            `default_proposals()`, which do not look at the data set's annotations.
        settings: `DetectionSettings`; None for the defaults with a score threshold of 0.01.
        cache_dir, workers: see `cached_proposals`.
        progress: whether to show a progress bar on standard error.

    Returns:
        `EvaluationResult`.

    Raises:
        InputError: where the model has another number of classes than the data set.

    Example:
        >>> print(evaluate(model, load_dataset("voc:cells@test")).table())      # doctest: +SKIP
    """
    detections = list(detections_on(model, dataset, proposals, settings, cache_dir, workers, progress))
    return score_detections(dataset, detections, protocol)


def detections_on(model, dataset, proposals=None, settings=None, cache_dir=None, workers=None, progress=True):
    """Yields the `Detections` of each image, computing and caching proposals where the data set has none."""
    num_classes = model.output["class_logits"].shape[-1] - 1
    if num_classes != len(dataset.class_names):
        raise InputError(
            f"{dataset.name}: found {len(dataset.class_names)} classes; expected the model's {num_classes}; read the "
            "data set with the class names of training"
        )
    if dataset.proposal_settings is None:
        proposals = proposals or default_proposals()
        dataset = cached_proposals(dataset, proposals, cache_dir, workers, progress)
    settings = settings or DetectionSettings(score_threshold=EVALUATION_SCORE_THRESHOLD)
    yield from detect_dataset(model, dataset, settings, progress)


class ValidationMap(keras.callbacks.Callback):
    """Adds the validation images' mAP to Keras's logs, as "mean_ap", at the end of each epoch; with the averaged
    weights where the optimiser keeps any.

    Args:
        dataset: `DetectionDataset` with proposals.
        settings: `DetectionSettings`.
        protocol: see `evaluate`.
        progress: whether to tell the mAP on standard error.
    """

    def __init__(self, dataset, settings, protocol="voc07", progress=True):
        super().__init__()
        self._dataset, self._protocol, self._progress = dataset, protocol, progress
        self._settings = dataclasses.replace(settings, score_threshold=EVALUATION_SCORE_THRESHOLD)

    def on_epoch_end(self, epoch, logs=None):
        with averaged_weights(self.model):
            detections = list(detect_dataset(self.model, self._dataset, self._settings, progress=False))
        result = score_detections(self._dataset, detections, self._protocol)
        if not math.isnan(result.mean_ap):
            logs["mean_ap"] = result.mean_ap
        if self._progress:
            tqdm.write(f"validation mAP ({result.rule()}): {result.mean_ap:.3f}", file=sys.stderr)
