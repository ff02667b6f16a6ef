"""Runs the TF Lite files that `export_tflite` writes."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.proposals import ProposalSettings
from tf_fast_rcnn.errors import InputError, missing_package
from tf_fast_rcnn.files import StrPath

# Padding value for images that do not fill the file's fixed size: about ImageNet's mean colour.
_GREY = 114


class TFLiteDetector:
    """A detector that `export_tflite` wrote.

    If the file has a fixed image size, images of other sizes are resized with their aspect ratio kept and padded with
    grey. Detections are always relative to the original image.

    Args:
        path: the file.
        threads: number of threads that compute; None for one per core.

    Attributes:
        class_names: names of the classes 1..K.
        proposals: the `ProposalSettings` of training; None if the file does not contain them.
        metadata: the file's metadata, a dict.

    Raises:
        InputError: if the file does not exist or was not written by `export_tflite`.

    Example:
        >>> detector = TFLiteDetector("cells.tflite")                                           # doctest: +SKIP
        >>> detections = detector.detect(image, compute_proposals(image, detector.proposals))        # doctest: +SKIP
    """

    def __init__(self, path: StrPath, threads: int | None = None) -> None:
        self.metadata = _read_metadata(path)
        self.class_names = tuple(self.metadata["class_names"])
        proposals = self.metadata["proposal_settings"]
        self.proposals = None if proposals is None else ProposalSettings.from_json(proposals)
        self._path = path
        self._interpreter = _interpreter_class()(str(path), num_threads=threads or os.cpu_count())
        self._run = self._interpreter.get_signature_runner("serving_default")

    def detect(self, image: np.ndarray, proposals: np.ndarray) -> Detections:
        """Finds the objects in one image.

        Args:
            image: uint8 `[H, W, 3]`, RGB.
            proposals: float32 `[R, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image.

        Returns:
            `Detections`, sorted by decreasing score.

        Raises:
            InputError: if there are more proposals than the file was exported for.
        """
        try:
            inputs, window = fit(image, proposals, self.metadata["image_size"], self.metadata["num_proposals"])
        except InputError as error:
            raise InputError(f"{self._path}: {error}") from None
        outputs = self._run(**inputs)
        count = int(outputs["num_detections"][0])
        found, scores, classes = (
            outputs[name][0, :count] for name in ("detection_boxes", "detection_scores", "detection_classes")
        )
        return Detections(boxes.clip(boxes.relative(found, *window)), scores, classes)

    def detect_each(
        self, images: Iterable[tuple[np.ndarray, np.ndarray]], progress: bool = True, total: int | None = None
    ) -> Iterator[Detections]:
        """Yields the `Detections` for each (image, proposals) pair; see `detect`."""
        for image, proposals in tqdm(images, desc="detect", unit="image", delay=2, total=total, disable=not progress):
            yield self.detect(image, proposals)

    def detect_dataset(self, dataset: DetectionDataset, progress: bool = True) -> Iterator[Detections]:
        """Yields the `Detections` of each image of a dataset with proposals, in order."""
        images = ((record.image(), record.proposals()) for record in dataset)
        return self.detect_each(images, progress, len(dataset))


def fit(
    image: np.ndarray,
    proposals: np.ndarray,
    image_size: Sequence[int] | None = None,
    num_proposals: int | None = None,
) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """Fits an image and its proposals to the inputs of a file's signature.

    Args:
        image: uint8 `[H, W, 3]`.
        proposals: float32 `[R, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image.
        image_size: the file's fixed (H, W) in pixels; None if it takes any.
        num_proposals: the file's fixed R; None if it takes any.

    Returns:
        Dict of the inputs, and the fraction of the input image that the resized image covers: (height, width), 0 to 1.

    Raises:
        InputError: if there are more than `num_proposals` proposals.
    """
    canvas, window = (image, (1.0, 1.0)) if image_size is None else _within(image, *image_size)
    rows = boxes.scale(np.asarray(proposals, np.float32).reshape(-1, 4), *window)
    count = len(rows)
    if num_proposals is not None:
        if count > num_proposals:
            raise InputError(
                f"proposals: found {count} for an image; expected at most {num_proposals}, the limit of the export; "
                "pass fewer, or export with more"
            )
        rows = np.pad(rows, ((0, num_proposals - count), (0, 0)))
    inputs = {"images": canvas[None], "proposals": rows[None], "num_proposals": np.array([count], np.int32)}
    return inputs, window


def _within(image, height, width):
    """The image resized to fit into height x width pixels and padded with grey, and the fraction it covers."""
    factor = min(height / image.shape[0], width / image.shape[1])
    rows, columns = (max(1, round(side * factor)) for side in image.shape[:2])
    if (rows, columns) != image.shape[:2]:
        image = _resize(image, rows, columns)
    canvas = np.pad(image, ((0, height - rows), (0, width - columns), (0, 0)), constant_values=_GREY)
    return canvas, (rows / height, columns / width)


def _resize(image, rows, columns):
    try:
        import cv2
    except ImportError as error:
        raise missing_package("TF Lite", error, "tflite") from None
    return cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)


def _read_metadata(path):
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected a TF Lite file that `export --format tflite` wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("metadata.json"))
    except (zipfile.BadZipFile, KeyError, ValueError):
        raise InputError(
            f"{path}: found no metadata.json in it; expected a TF Lite file that `export --format tflite` wrote"
        ) from None


def _interpreter_class():
    """The interpreter of LiteRT if that is installed, otherwise TensorFlow's older one."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        return tf.lite.Interpreter
    return Interpreter
