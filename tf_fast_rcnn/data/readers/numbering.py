"""From the annotations of all images to a `DetectionDataset`: checks their boxes and numbers their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.readers.box_checks import check_boxes
from tf_fast_rcnn.data.records import CocoObjects, ImageRecord
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.readers.annotations import Annotation


def to_dataset(
    name: str,
    annotations: Sequence[Annotation],
    class_names: Sequence[str] | None,
    fixes: Counter[str],
    is_coco: bool = False,
) -> DetectionDataset:
    """Makes a `DetectionDataset` of annotations; if `class_names` is None, the classes that occur are sorted by name.

    Args:
        name: the SPEC.
        annotations: one `Annotation` per image.
        class_names: names of the classes 1..K.
        fixes: what `annotate` counted.
        is_coco: whether COCO's own metrics are to be those of the file; see `CocoObjects`.

    Raises:
        InputError: for a class that is not in `class_names`, or if there are no images.
    """
    if not annotations:
        raise InputError(f"{name}: found no usable images; expected at least one; check the annotations")
    check_boxes(annotations)
    if class_names is None:
        class_names = sorted({item.name for annotation in annotations for item in annotation.objects})
    labels = {class_name: label for label, class_name in enumerate(class_names, start=1)}
    crowds = [item.crowd for annotation in annotations for item in annotation.objects]
    if crowds and all(crowds):
        fixes["crowds (iscrowd=1), which all objects are: training and evaluation ignore them"] += len(crowds)
    records = [_record(annotation, labels, is_coco) for annotation in annotations]
    return DetectionDataset(name, class_names, records, fixes)


def _record(annotation, labels, is_coco):
    for item in annotation.objects:
        if item.name not in labels:
            raise InputError(
                f"{annotation.source}: found class {item.name!r}; expected one of {', '.join(labels)}; "
                "correct its spelling or add it to the class names"
            )
    return ImageRecord(
        image_id=annotation.image_id,
        image_path=str(annotation.image_path),
        height=annotation.size[0],
        width=annotation.size[1],
        boxes=annotation.boxes,
        class_ids=[labels[item.name] for item in annotation.objects],
        difficult=[item.difficult for item in annotation.objects],
        crowd=[item.crowd for item in annotation.objects],
        areas=_areas(annotation),
        coco_objects=_coco_objects(annotation, labels) if is_coco else None,
        source_id=annotation.source_id,
    )


def _coco_objects(annotation, labels):
    """The `CocoObjects` of an annotation; None if its boxes restore them."""
    windows = _windows(annotation.all_boxes, annotation.size, 9)
    if len(annotation.kept) == len(windows) and np.array_equal(_windows(annotation.boxes, annotation.size, 3), windows):
        return None
    items = annotation.all_objects
    stated = np.array([np.nan if item.area is None else item.area for item in items], np.float64)
    objects = np.full(len(items), -1)
    objects[annotation.kept] = np.arange(len(annotation.kept))
    coco = CocoObjects(
        windows=windows,
        areas=np.where(np.isnan(stated), windows[:, 2] * windows[:, 3], stated),
        class_ids=np.array([labels.get(item.name, 0) for item in items], np.int32),
        crowd=np.array([item.crowd for item in items], bool),
        objects=objects,
    )
    return coco.relabelled(np.arange(len(labels) + 1, dtype=np.int32))  # without dropped objects of unknown classes


def _windows(boxes, size, decimals):
    """COCO's x, y, width and height in pixels, rounded to undo the rounding of the relative boxes."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.round(box_algebra.to_coco(boxes.astype(np.float64), *size), decimals)


def _areas(annotation):
    """The areas of objects as fractions of the image's; None if no object has a stated area."""
    stated = np.array([np.nan if item.area is None else item.area for item in annotation.objects])
    if np.isnan(stated).all():
        return None
    of_boxes = _windows(annotation.boxes, annotation.size, 3)[:, 2:].prod(axis=1)
    return np.where(np.isnan(stated), of_boxes, stated) / (annotation.size[0] * annotation.size[1])
