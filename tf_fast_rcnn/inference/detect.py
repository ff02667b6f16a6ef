"""Runs the detection graph of `inference.graph` on one image, several images or a dataset."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.images import read_image
from tf_fast_rcnn.data.network_input import decode_image
from tf_fast_rcnn.data.prepared.examples import example_reader, input_errors
from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings, compute_proposals, proposal_settings
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.tiles import tile_fields
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.inference.graph import Detector
from tf_fast_rcnn.inference.settings import DetectionSettings
from tf_fast_rcnn.training.run_folder import Run

# What detection functions take as an image, and as its proposals.
Image = np.ndarray | str | Path
Proposals = np.ndarray | Sequence | ProposalSettings | FileProposals

# B images of any sizes: their flattened pixels, their sizes (height, width), and their proposals.
_IMAGES = (
    tf.RaggedTensorSpec([None, None], tf.uint8, ragged_rank=1),
    tf.TensorSpec([None, 2], tf.int32),
    tf.RaggedTensorSpec([None, None, 4], tf.float32, ragged_rank=1),
)


def detection_settings(run: Run, **changes: Any) -> DetectionSettings:
    """`DetectionSettings` with the image size and the tiles that a run was trained at, and the NMS threshold and the
    screening rank of its recipe.

    Args:
        run: a run that `load_run` read.
        **changes: other attributes of `DetectionSettings`, or other values of these.

    Raises:
        InputError: for a value out of range.

    Example:
        >>> settings = detection_settings(load_run("runs/cells"), max_detections=300)       # doctest: +SKIP
        >>> detect(run.model, "cell.jpg", settings=settings)                                # doctest: +SKIP
    """
    of_run = {
        name: getattr(run, name) for name in ("shorter_side", "longer_side", "nms_iou_threshold", "screening_rank")
    }
    return DetectionSettings(**{**of_run, **tile_fields(run.tiles), **changes})


class _Compiled:
    """A detector's graph. It is traced on the first call, which takes seconds."""

    def __init__(self, model, settings):
        # A Detector holds the model's layers but not the model itself: a strong reference to it would keep its entry
        # in the weak dictionary alive.
        self.detector = Detector(model, settings)
        self.detect = tf.function(self._detect, input_signature=_IMAGES, autograph=False)
        self.classify = tf.function(self._classify, input_signature=_IMAGES, autograph=False)

    def _detect(self, pixels, sizes, proposals):
        return self.detector.detect(_image_reader(pixels, sizes), proposals)

    def _classify(self, pixels, sizes, regions):
        return self.detector.regions(_image_reader(pixels, sizes), regions)[0].values


def _image_reader(pixels, sizes):
    return lambda index: tf.reshape(pixels[index], [sizes[index, 0], sizes[index, 1], 3])


# model -> settings -> `_Compiled`.
_compiled = weakref.WeakKeyDictionary()


def _compiled_for(model, settings):
    settings = settings or DetectionSettings()
    by_settings = _compiled.setdefault(model, {})
    if settings not in by_settings:
        by_settings[settings] = _Compiled(model, settings)
    by_settings[settings].detector.refresh(model)
    return by_settings[settings]


def _to_graph(images, proposals):
    """Converts lists of images and of their proposals to the tensors of `_IMAGES`."""
    flat = [image.reshape(-1) for image in images]
    # A single image, which may be huge, is not copied.
    flat_values = flat[0] if len(flat) == 1 else np.concatenate(flat)
    # Validation would take milliseconds.
    pixels = tf.RaggedTensor.from_row_lengths(flat_values, [image.size for image in images], validate=False)
    lengths = [len(each) for each in proposals]
    rows = tf.RaggedTensor.from_row_lengths(np.concatenate(proposals), lengths, validate=False)
    return pixels, np.array([image.shape[:2] for image in images], np.int32), rows


def default_proposals() -> ProposalSettings:
    """The default `ProposalSettings`: selective search plus dense boxes of common sizes."""
    return proposal_settings("selective-search+dense", dataset=())


def detect(
    model: keras.Model, image: Image, proposals: Proposals | None = None, settings: DetectionSettings | None = None
) -> Detections:
    """Finds the objects in one image.

    Args:
        model: what `fast_rcnn` returned.
        image: uint8 `[H, W, 3]`, RGB, or the path of an image file (its EXIF orientation is applied).
        proposals: float32 `[R, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image; or `ProposalSettings`, to compute
            them; or `FileProposals` (see `file_proposals`), which look them up by the image's file name. None:
            `default_proposals()`.
        settings: `DetectionSettings`; None for the defaults.

    Returns:
        `Detections`, sorted by decreasing score.

    Raises:
        InputError: if the image cannot be read, or the proposals are not valid boxes.

    Example:
        >>> detections = detect(model, "cells.jpg")                              # doctest: +SKIP
        >>> detections.class_ids[0], detections.scores[0], detections.boxes[0]               # doctest: +SKIP
        (2, 0.98, array([0.12, 0.4 , 0.31, 0.6 ], dtype=float32))
    """
    return detect_batch(model, [image], [proposals], settings)[0]


def detect_batch(
    model: keras.Model,
    images: Sequence[Image],
    proposals: Sequence[Proposals | None] | None = None,
    settings: DetectionSettings | None = None,
) -> list[Detections]:
    """Finds the objects in several images and classifies their RoIs together.

    Images may have different sizes. The backbone runs on each image at its own size, so the detections of an image do
    not depend on the rest of the batch.

    Args:
        model, settings: as in `detect`.
        images: one `image` argument of `detect` per image.
        proposals: one `proposals` argument of `detect` per image; None for the default for all.

    Returns:
        List of `Detections`, one per image.

    Raises:
        InputError: as in `detect`, and if `proposals` does not have one entry per image.

    Example:
        >>> first, second = detect_batch(model, ["cells.jpg", "more.jpg"], settings=settings)     # doctest: +SKIP
    """
    proposals = [None] * len(images) if proposals is None else proposals
    if len(proposals) != len(images):
        raise InputError(
            f"proposals: found {len(proposals)} entries for {len(images)} images; expected one per image; for an image "
            "without proposals, pass an array of shape [0, 4]"
        )
    if not images:
        return []
    images, rows = zip(*map(image_and_proposals, images, proposals), strict=True)
    return _to_detections(_compiled_for(model, settings).detect(*_to_graph(images, rows)))


def classify_regions(
    model: keras.Model, image: Image, regions: np.ndarray | Sequence, settings: DetectionSettings | None = None
) -> np.ndarray:
    """Classifies your own regions as they are: without box regression or non-maximum suppression.

    Args:
        model, image: as in `detect`.
        regions: float32 `[R, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image.
        settings: `DetectionSettings`; only `shorter_side`, `longer_side`, `scores` and `dtype` are used. None for the
            defaults.

    Returns:
        Class probabilities, float32 `[R, K + 1]`, one row per region in the same order; column 0 is the background.

    Raises:
        InputError: if the image cannot be read, or the regions are not valid boxes.

    Example:
        >>> classify_regions(model, "page.png", [[0.1, 0.2, 0.3, 0.4]]).argmax(axis=1)             # doctest: +SKIP
        array([2])
    """
    settings = dataclasses.replace(settings or DetectionSettings(), box_refinement_steps=1)
    image, regions = image_and_proposals(image, check_proposals(regions))
    return _compiled_for(model, settings).classify(*_to_graph([image], [regions])).numpy()


def image_and_proposals(image: Image, proposals: Proposals | None) -> tuple[np.ndarray, np.ndarray]:
    """The arrays for the `image` and `proposals` arguments of `detect`: uint8 `[H, W, 3]` and float32 `[R, 4]`."""
    path = "" if isinstance(image, np.ndarray) else str(image)
    image = check_image(image) if isinstance(image, np.ndarray) else read_image(path)
    if proposals is None:
        proposals = default_proposals()
    if isinstance(proposals, ProposalSettings):
        proposals = compute_proposals(image, proposals)
    elif isinstance(proposals, FileProposals):
        proposals = proposals.of(unannotated(path, *image.shape[:2]))
    return image, check_proposals(proposals)


def unannotated(path: str, height: int, width: int) -> ImageRecord:
    """The `ImageRecord` of an image without annotations. Its id is the file name, the key of proposal files."""
    nothing = np.zeros(0)
    return ImageRecord(Path(path).name or "(an array without a name)", path, height, width, nothing, nothing, nothing)


def detect_dataset(
    model: keras.Model,
    dataset: DetectionDataset,
    settings: DetectionSettings | None = None,
    *,
    batch_size: int = 1,
    progress: bool = True,
) -> Iterator[Detections]:
    """Yields the `Detections` of each image of a dataset with proposals, in order.

    The network runs on `batch_size` images at a time, while the next images are decoded.
    """
    compiled = _compiled_for(model, settings)
    read = example_reader(dataset)

    def pixels_and_proposals(index):
        example = read(index)
        image = decode_image(example["image_bytes"])
        return tf.reshape(image, [-1]), tf.shape(image)[:2], example["proposals"]

    images = tf.data.Dataset.range(len(dataset)).map(pixels_and_proposals, num_parallel_calls=2)
    batches = images.ragged_batch(batch_size).prefetch(2)
    bar = tqdm(total=len(dataset), desc="detect", unit="image", delay=2, disable=not progress)
    with bar, input_errors(dataset):
        for pixels, sizes, proposals in batches:
            found = _to_detections(compiled.detect(pixels, sizes, proposals))
            bar.update(len(found))
            yield from found


def check_image(image: np.ndarray) -> np.ndarray:
    """Returns the image if it is uint8 `[H, W, 3]`; raises an InputError for anything else."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"image: found {image.dtype} {list(image.shape)}; expected uint8 [H, W, 3], RGB; convert it first"
        )
    return image


def check_proposals(proposals: np.ndarray | Sequence) -> np.ndarray:
    """Returns proposals as float32 `[R, 4]`; raises an InputError if they are not finite relative boxes."""
    try:
        proposals = np.asarray(proposals, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"proposals: not an array of numbers ({error}); expected float32 [R, 4]") from None
    if proposals.ndim != 2 or proposals.shape[1] != 4:
        raise InputError(f"proposals: found shape {list(proposals.shape)}; expected [R, 4]; pass one row per box")
    if not np.all(np.isfinite(proposals)) or np.any(proposals[:, :2] > proposals[:, 2:]):
        raise InputError("proposals: found a value that is not finite, or ymin > ymax or xmin > xmax; fix the boxes")
    if proposals.size and proposals.max() > 1.5:
        raise InputError(
            f"proposals: found a coordinate of {proposals.max():g}; expected [ymin, xmin, ymax, xmax] relative to the "
            "image, 0 to 1; divide by the image's height and width"
        )
    return proposals


def _to_detections(outputs):
    """One `Detections` per image of the outputs of `Detector.suppress`."""
    found_boxes, scores, classes, counts = (output.numpy() for output in outputs)
    return [
        Detections(found_boxes[image, :count], scores[image, :count], classes[image, :count])
        for image, count in enumerate(counts)
    ]
