"""Runs the TF Lite files of `export_tflite`: an image and its proposals in, detections out."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.proposals import ProposalSettings
from tf_fast_rcnn.data.records import DetectionDataset
from tf_fast_rcnn.errors import InputError, missing_package
from tf_fast_rcnn.files import StrPath

# Behind an image that does not fill a file's fixed size: about ImageNet's mean colour.
_GREY = 114


class TFLiteDetector:
    """A detector that `export_tflite` wrote.

    An image of another size than the file's, where that is fixed, is resized with its shape kept, and grey fills the
    rest; its detections are relative to the image itself.

    Args:
        path: the file.
        threads: that compute; None for as many as there are cores.

    Attributes:
        class_names: of the labels 1..K.
        proposals: `ProposalSettings` with which the model was trained; None where the file does not tell.
        metadata: what the file says of itself, a dict.

    Raises:
        InputError: where the file is no such file.

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
            `Detections`, sorted by falling score.

        Raises:
            InputError: where there are more proposals than the file has room for.
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
        """Yields the `Detections` of each of `images`, pairs of what `detect` takes."""
        for image, proposals in tqdm(images, desc="detect", unit="image", delay=2, total=total, disable=not progress):
            yield self.detect(image, proposals)

    def detect_dataset(self, dataset: DetectionDataset, progress: bool = True) -> Iterator[Detections]:
        """Yields the `Detections` of each image of a data set with proposals, in order."""
        images = ((record.image(), record.proposals()) for record in dataset)
        return self.detect_each(images, progress, len(dataset))


def fit(
    image: np.ndarray,
    proposals: np.ndarray,
    image_size: Sequence[int] | None = None,
    num_proposals: int | None = None,
) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """The inputs of a file's signature for an image and its proposals.

    Args:
        image: uint8 `[H, W, 3]`.
        proposals: float32 `[R, 4]`, relative to the image.
        image_size: (H, W) that the file has; None for any.
        num_proposals: R that the file has; None for any.

    Returns:
        Dict of the inputs, and the part of the file's image that the image takes: (height, width), 1 where it fills it.
    """
    canvas, window = (image, (1.0, 1.0)) if image_size is None else _within(image, *image_size)
    rows = boxes.scale(np.asarray(proposals, np.float32).reshape(-1, 4), *window)
    count = len(rows)
    if num_proposals is not None:
        if count > num_proposals:
            raise InputError(
                f"proposals: found {count} for an image; expected {num_proposals} at most, for which it was exported; "
                "give fewer, or export with more"
            )
        rows = np.pad(rows, ((0, num_proposals - count), (0, 0)))
    inputs = {"images": canvas[None], "proposals": rows[None], "num_proposals": np.array([count], np.int32)}
    return inputs, window


def _within(image, height, width):
    """The image resized to fit into height x width pixels, on grey, and the part of these that it takes."""
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
        raise InputError(f"{path}: found no such file; expected a TF Lite file of `export --format tflite`")
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("metadata.json"))
    except (zipfile.BadZipFile, KeyError, ValueError):
        raise InputError(
            f"{path}: found no metadata.json in it; expected a TF Lite file of `export --format tflite`"
        ) from None


def _interpreter_class():
    """LiteRT's interpreter where it is installed, else TensorFlow's older one."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        return tf.lite.Interpreter
    return Interpreter
