"""Writes data sets and detections in the formats of other tools."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.data.readers.yolo import labels_path
from tf_fast_rcnn.data.writers.coco import coco_content
from tf_fast_rcnn.data.writers.csv_boxes import csv_text
from tf_fast_rcnn.data.writers.cvat import cvat_xml
from tf_fast_rcnn.data.writers.label_studio import LOCAL_FILES, label_studio_interface, label_studio_tasks
from tf_fast_rcnn.data.writers.labelled import detected_images, labelled_images
from tf_fast_rcnn.data.writers.voc import voc_xml
from tf_fast_rcnn.data.writers.yolo import data_yaml, yolo_text
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import new_folder, write_text

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.files import StrPath


def convert(splits: Mapping[str, DetectionDataset], out_dir: StrPath, kind: str) -> dict[str, Any]:
    """Writes a data set with its images to a new folder, in a format that `load_dataset` and other tools read.

    Reading the result returns the same boxes and class names, exactly. Images are copied byte for byte.

    | kind | files | SPEC of a split |
    | --- | --- | --- |
    | voc | Annotations/, ImageSets/Main/SPLIT.txt, JPEGImages/, labelmap.txt | voc:DIR@SPLIT |
    | coco | annotations/instances_SPLIT.json, images/SPLIT/ | coco:JSON,DIR/images/SPLIT |
    | yolo | data.yaml, images/SPLIT/, labels/SPLIT/ | yolo:DIR@SPLIT |
    | csv | SPLIT.csv, images/SPLIT/ | csv:DIR/SPLIT.csv |

    Args:
        splits: the data set of each split, by its name; all have the same class names.
        out_dir: the new folder; it exists only once it is complete.
        kind: "voc", "coco", "yolo" or "csv".

    Returns:
        A dict of JSON types: `specs` (by split), `images`, `objects`, and `lost`: what the format cannot express,
        with counts, e.g. `{"difficult flags": 3}`.

    Raises:
        InputError: for an unknown kind, an existing folder, or splits with different classes.

    Example:
        >>> convert({"train": load_dataset("coco:instances.json,images")}, "cells-yolo", "yolo")    # doctest: +SKIP
        {'specs': {'train': 'yolo:cells-yolo@train'}, 'images': 205, 'objects': 4155, 'lost': {}}
    """
    if kind not in _WRITERS:
        raise InputError(f"format {kind!r}: unknown; expected one of {', '.join(_WRITERS)}")
    class_names = _common_class_names(splits)
    _check_new(out_dir)
    lost: Counter[str] = Counter()
    images = {split: list(labelled_images(dataset)) for split, dataset in splits.items()}
    with new_folder(out_dir) as folder:
        _WRITERS[kind](folder, images, class_names)
    for image in (each for found in images.values() for each in found):
        if kind in ("coco", "yolo"):
            lost["difficult flags"] += int(image.difficult.sum())
        if kind in ("voc", "yolo"):
            lost["crowd flags" + (" (written as difficult)" if kind == "voc" else "")] += int(image.crowd.sum())
        if kind != "coco" and image.record.areas is not None:
            lost["areas of outlines"] += len(image.record.areas)
    return {
        "specs": {split: _SPECS[kind].format(folder=out_dir, split=split) for split in splits},
        "images": sum(map(len, images.values())),
        "objects": sum(len(image.boxes) for found in images.values() for image in found),
        "lost": {what: count for what, count in lost.items() if count},
    }


def save_detections(
    dataset: DetectionDataset,
    detections: Sequence[Detections],
    out_dir: StrPath,
    kind: str,
    *,
    class_names: Sequence[str],
    image_url: str = LOCAL_FILES,
    model_version: str = "tf-fast-rcnn",
) -> list[str]:
    """Writes detections to a new folder as annotations that an annotation tool can load, to be corrected there.

    | kind | files | for |
    | --- | --- | --- |
    | voc | NAME.xml next to a copy of each image | labelImg; `voc:DIR` |
    | yolo | classes.txt, images/ (copies), labels/NAME.txt, scores.json | labelImg, Label Studio; `yolo:DIR` |
    | coco | annotations/instances_default.json with a `score` each, images/default/ (copies) | CVAT, Datumaro |
    | label-studio | tasks.json with predictions, interface.xml | Label Studio |
    | cvat | annotations.xml, "CVAT for images 1.1", with an attribute `score` | CVAT |

    Args:
        dataset: the images; annotations are ignored.
        detections: those of each image, in order.
        out_dir: the new folder; it exists only once it is complete.
        kind: see above.
        class_names: the classes 1..K.
        image_url: for Label Studio, what the address of an image begins with.
        model_version: for Label Studio, the name of the model.

    Returns:
        The names of the files that a tool loads, relative to the folder; for folders of many files, the folder's.

    Raises:
        InputError: for an unknown kind or an existing folder.

    Example:
        >>> save_detections(images, detections, "to-correct", "cvat", class_names=["cat"])      # doctest: +SKIP
        ['annotations.xml']
    """
    if kind not in SAVE_KINDS:
        raise InputError(f"format {kind!r}: unknown; expected one of {', '.join(SAVE_KINDS)}")
    _check_new(out_dir)
    images = list(detected_images(dataset, detections, flat=kind in ("voc", "yolo")))
    with new_folder(out_dir) as folder:
        if kind == "voc":
            for image in images:
                image.copy_to(folder / image.file)
                write_text(folder / f"{image.stem}.xml", voc_xml(image))
            return ["."]
        if kind == "yolo":
            _save_yolo(folder, images, class_names)
            return ["."]
        if kind == "coco":
            _write_coco(folder, {"default": images}, class_names)
            return ["annotations/instances_default.json"]
        if kind == "cvat":
            write_text(folder / "annotations.xml", cvat_xml(images, class_names))
            return ["annotations.xml"]
        _write_json(folder / "tasks.json", label_studio_tasks(images, model_version, image_url))
        write_text(folder / "interface.xml", label_studio_interface(class_names))
        return ["tasks.json", "interface.xml"]


# The kinds of `save_detections`.
SAVE_KINDS = ("voc", "yolo", "coco", "label-studio", "cvat")


def _check_new(out_dir):
    if Path(out_dir).exists():
        raise InputError(f"{out_dir}: found an existing file or folder; expected a new one; choose another name")


def _common_class_names(splits):
    names = {dataset.class_names for dataset in splits.values()}
    if len(names) != 1:
        raise InputError(
            f"splits {', '.join(splits)}: found different classes; expected the same in all; read them with the same "
            "class_names"
        )
    return names.pop()


def _write_json(path, content):
    write_text(path, json.dumps(content, indent=1) + "\n")


def _write_voc(folder, images, class_names):
    taken = set()
    for split, found in images.items():
        stems = [image.stem for image in found]
        if taken.intersection(stem.lower() for stem in stems):  # All splits share the folders.
            found = [image._replace(file=f"{split}/{image.file}") for image in found]
        for image in found:
            image.copy_to(folder / "JPEGImages" / image.file)
            write_text(folder / "Annotations" / f"{image.stem}.xml", voc_xml(image))
        taken |= {image.stem.lower() for image in found}
        write_text(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{image.stem}\n" for image in found))
    # Datumaro and CVAT refuse classes that are not VOC's, unless this file lists them.
    lines = ["# label:color_rgb:parts:actions", *(f"{name}:::" for name in class_names)]
    write_text(folder / "labelmap.txt", "\n".join(lines) + "\n")


def _write_coco(folder, images, class_names):
    for split, found in images.items():
        _copy_images(folder, split, found)
        _write_json(folder / "annotations" / f"instances_{split}.json", coco_content(found, class_names))


def _write_csv(folder, images, class_names):
    for split, found in images.items():
        _copy_images(folder, split, found)
        write_text(folder / f"{split}.csv", csv_text(found, f"images/{split}/"))


def _write_yolo(folder, images, class_names):
    for split, found in images.items():
        _copy_images(folder, split, found)
        for image in found:
            write_text(labels_path(folder / "images" / split / image.file), yolo_text(image, class_names))
    write_text(folder / "data.yaml", data_yaml(class_names, {split: f"images/{split}" for split in images}))


def _save_yolo(folder, images, class_names):
    names = "".join(f"{name}\n" for name in class_names)
    for image in images:
        image.copy_to(folder / "images" / image.file)
        write_text(labels_path(folder / "images" / image.file), yolo_text(image, class_names))
    # Label Studio's importer reads the first of these, labelImg the second.
    write_text(folder / "classes.txt", names)
    write_text(folder / "labels" / "classes.txt", names)
    scores = {image.file: [round(float(score), 6) for score in image.scores] for image in images}
    _write_json(folder / "scores.json", scores)


def _copy_images(folder, split, images):
    for image in images:
        image.copy_to(folder / "images" / split / image.file)


_WRITERS = {"voc": _write_voc, "coco": _write_coco, "yolo": _write_yolo, "csv": _write_csv}
_SPECS = {
    "voc": "voc:{folder}@{split}",
    "coco": "coco:{folder}/annotations/instances_{split}.json,{folder}/images/{split}",
    "yolo": "yolo:{folder}@{split}",
    "csv": "csv:{folder}/{split}.csv",
}
