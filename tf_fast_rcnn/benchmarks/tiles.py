"""Detection in tiles against SAHI (Slicing Aided Hyper Inference) with the same detector: quality, time and memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.benchmarks.measure import peak_growth
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.proposals import ProposalSettings, compute_proposals
from tf_fast_rcnn.data.tiles import is_of_tiles
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.inference.detect import detection_settings
from tf_fast_rcnn.inference.settings import EVALUATION_SCORE_THRESHOLD, DetectionSettings
from tf_fast_rcnn.training.run_folder import Run, load_run

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

OURS = "ours"
# How SAHI combines the detections of its slices: suppression as in our detector, and its default, which merges boxes.
SAHI_NMS, SAHI_DEFAULT = "SAHI, NMS", "SAHI, GREEDYNMM"
CONTESTANTS = (OURS, SAHI_NMS, SAHI_DEFAULT)

# Detects the objects in an image, uint8 [H, W, 3].
Detect = Callable[[np.ndarray], Detections]


def measure_tiles(
    folder: StrPath,
    spec: str,
    tile: int | None = None,
    overlap: float | None = None,
    images: int | None = None,
) -> dict[str, Any]:
    """Detects the objects in all images alternately with our tiles and with SAHI.

    All contestants use the same network, size and overlap of tiles, scale, proposals in a tile and in the whole image,
    score threshold (that of evaluation) and number of detections.

    Args:
        folder: RUN, trained with computed proposals.
        spec: annotated images, see `load_dataset`.
        tile: side of a tile in pixels of the images; None for that of the RUN.
        overlap: overlap of tiles as a share of their side; None for that of the RUN, or 0.2.
        images: number of images, evenly spaced over the dataset; None for all.

    Returns:
        A dict with these entries:

        - "images", "objects" (those to find), "tile" (pixels), "overlap", "whole_image" (whether the whole
          image is also seen).
        - "rows": a dict by contestant (`CONTESTANTS`) with "ap50" (area under the curve at IoU 0.5, mean over
          classes), "recall" (share of the objects found at IoU 0.5), "detections" (number of all) and "seconds" (median
          per image, from pixels to detections, proposals included).
        - "missing": the reason why SAHI was skipped, by name.

    Raises:
        InputError: if the RUN cannot be read, has no tiles and none are given, or was trained with proposals from a
            file.
    """
    run, settings = _open(folder, tile, overlap)
    dataset = _load(spec, run, images)
    contestants, missing = _contestants(run, settings)
    found, seconds = _alternate(contestants, dataset)
    assert settings.tiles is not None
    return {
        "images": len(dataset),
        "objects": int(sum(np.sum(~(record.difficult | record.crowd)) for record in dataset)),
        "tile": settings.tiles.size,
        "overlap": settings.tiles.overlap,
        "whole_image": settings.tiles.whole_image,
        "rows": {
            name: _quality(dataset, found[name]) | {"seconds": float(np.median(seconds[name]))} for name in contestants
        },
        "missing": missing,
    }


def measure_memory(
    folder: StrPath,
    spec: str,
    contestant: str,
    tile: int | None = None,
    overlap: float | None = None,
    images: int | None = None,
) -> int:
    """Peak growth of memory in bytes, while one contestant detects in the largest image for the first time.

    Call it in a fresh process, because reused memory would not count as growth. The image itself is not counted.

    Args:
        contestant: one of `CONTESTANTS`.
        folder, spec, tile, overlap, images: as for `measure_tiles`.
    """
    run, settings = _open(folder, tile, overlap)
    largest = max(_load(spec, run, images), key=lambda record: record.height * record.width)
    detect, image = _contestants(run, settings)[0][contestant], largest.image()
    return peak_growth(lambda: detect(image))[1]


def _open(folder, tile, overlap) -> tuple[Run, DetectionSettings]:
    run = load_run(folder)
    if not isinstance(run.proposals, ProposalSettings):
        raise InputError(f"{folder}: found a run trained with proposals from a file; expected computed proposals")
    if tile is None and run.tiles is None:
        raise InputError(f"{folder}: found a run without tiles; expected one trained with --tile; pass --tile PIXELS")
    changes = {"tile": tile, "tile_overlap": overlap}
    changes = {name: value for name, value in changes.items() if value is not None}
    return run, detection_settings(run, score_threshold=EVALUATION_SCORE_THRESHOLD, **changes)


def _load(spec: str, run: Run, images: int | None) -> DetectionDataset:
    class_map = run.description.get("classes")
    if class_map:
        dataset = frcnn.with_classes(frcnn.load_dataset(spec), class_map, ignore_missing=True)
    else:
        dataset = frcnn.load_dataset(spec, class_names=run.class_names)
    images = images or len(dataset)
    return dataset[:: max(1, len(dataset) // images)][:images]


def _contestants(run: Run, settings: DetectionSettings) -> tuple[dict[str, Detect], dict[str, str]]:
    """The functions that detect, by name, and why others are missing."""
    assert isinstance(run.proposals, ProposalSettings)
    predictor = frcnn.Predictor(
        run.model,
        class_names=run.class_names,
        proposals=dataclasses.replace(run.proposals, tiles=settings.tiles),
        settings=settings,
    )
    found: dict[str, Detect] = {OURS: predictor.detect}
    try:
        model = _sahi_model(run, settings)
    except ImportError as error:
        return found, {"SAHI": str(error)}
    found[SAHI_NMS] = _with_sahi(model, settings, "NMS", "IOU", settings.nms_iou_threshold)
    found[SAHI_DEFAULT] = _with_sahi(model, settings, "GREEDYNMM", "IOS", 0.5)
    return found, {}


def _with_sahi(model, settings, postprocess, metric, threshold) -> Detect:
    """SAHI's detection in slices; `postprocess`, `metric`, `threshold`: how it combines what it found in them."""
    from sahi.predict import get_sliced_prediction

    def detect(image):
        result = get_sliced_prediction(
            image,
            model,
            slice_height=settings.tile,
            slice_width=settings.tile,
            overlap_height_ratio=settings.tile_overlap,
            overlap_width_ratio=settings.tile_overlap,
            perform_standard_pred=settings.whole_image,
            postprocess_type=postprocess,
            postprocess_match_metric=metric,
            postprocess_match_threshold=threshold,
            # Otherwise SAHI would always use NMS, because the score threshold is low.
            force_postprocess_type=True,
            verbose=0,
        )
        return _to_detections(result.object_prediction_list, *image.shape[:2], settings.max_detections)

    return detect


def _to_detections(predictions, height, width, limit) -> Detections:
    """The `Detections` of SAHI's `ObjectPrediction`s, the best `limit` of them."""
    scores = np.array([each.score.value for each in predictions], np.float32)
    order = np.argsort(-scores, kind="stable")[:limit]
    corners = np.array([each.bbox.to_xyxy() for each in predictions], np.float32).reshape(-1, 4)[order]
    relative = box_algebra.relative(corners[:, [1, 0, 3, 2]], height, width)
    class_ids = np.array([each.category.id for each in predictions], np.int32)[order]
    # Boxes of slices at the right and the bottom can extend beyond the image.
    return Detections(np.clip(relative, 0, 1), scores[order], class_ids)


def _sahi_model(run, settings):
    """A detection model for SAHI, of SAHI's own base class."""
    from sahi.models.base import DetectionModel
    from sahi.prediction import ObjectPrediction

    class FastRCNNModel(DetectionModel):
        """Detects with `frcnn.detect` in the images that it is given: slices, or the whole image."""

        def set_model(self, model, **_):
            self.model = model
            self.category_mapping = {str(index): name for index, name in enumerate(model.class_names, start=1)}

        def perform_inference(self, image):
            self._original_predictions = self.model.detect(image), image.shape[:2]

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list=None, full_shape_list=None
        ):
            found, (height, width) = self._original_predictions
            shift, full = (_first(value) for value in (shift_amount_list, full_shape_list))
            pixels = box_algebra.scale(found.boxes, height, width)[:, [1, 0, 3, 2]]
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=box.tolist(),
                        category_id=int(label),
                        category_name=self.category_mapping[str(label)],
                        score=float(score),
                        shift_amount=shift or [0, 0],
                        full_shape=full or [height, width],
                    )
                    for box, score, label in zip(pixels, found.scores, found.class_ids, strict=True)
                ]
            ]

    return FastRCNNModel(
        model=_ViewDetector(run, settings), confidence_threshold=settings.score_threshold, device="cpu"
    )


def _first(value):
    """SAHI passes one value, `[a, b]`, for a single image, and a list of them for several."""
    return value[0] if value and isinstance(value[0], Sequence) else value


class _ViewDetector:
    """The detector as SAHI calls it: on slices at the scale of our tiles, and on the whole image at its usual scale.

    It uses the same proposals as our tiles do: in slices the small ones, in the whole image the others.
    """

    def __init__(self, run, settings):
        self.class_names = run.class_names
        self._model, self._settings, self._tiles = run.model, settings, settings.tiles
        self._proposals = dataclasses.replace(run.proposals, tiles=None)
        self._known = {}

    def detect(self, image):
        height, width = image.shape[:2]
        whole = max(height, width) > self._tiles.size
        shorter = self._settings.shorter_sides[0]
        if not whole:  # An image that is smaller than a tile is seen at the scale of tiles too.
            shorter = max(1, round(shorter * min(height, width) / self._tiles.size))
        settings = dataclasses.replace(self._settings, tile=None, shorter_side=shorter)
        return frcnn.detect(self._model, image, self._proposals_of(image, whole), settings)

    def _proposals_of(self, image, whole):
        """Those of dense boxes depend only on the size, so they are kept."""
        key = (image.shape, whole)
        if key in self._known:
            return self._known[key]
        proposals = compute_proposals(image, self._proposals)
        of_tiles = is_of_tiles(box_algebra.scale(proposals, *image.shape[:2]), self._tiles)
        proposals = proposals[~of_tiles if whole else of_tiles]
        if self._proposals.selective_search is None:
            self._known[key] = proposals
        return proposals


def _alternate(contestants, dataset):
    """The detections, and the seconds, of each image by contestant."""
    found, seconds = {name: [] for name in contestants}, {name: [] for name in contestants}
    for number, record in enumerate(tqdm(dataset, "images", unit="image", delay=2, leave=False)):
        image = record.image()
        for name, detect in contestants.items():
            if not number:
                detect(image)  # traces the graph
            started = time.perf_counter()
            found[name].append(detect(image))
            seconds[name].append(time.perf_counter() - started)
    return found, seconds


def _quality(dataset, detections):
    result = score_detections(dataset, detections, "voc10", 0.5)
    (matching,) = result.matchings
    return {
        "ap50": result.mean_ap,
        "recall": float(matching.found()[matching.object_counts].mean()),
        "detections": sum(map(len, detections)),
    }
