"""Recognises the format of a file or folder of annotations, without reading all of it."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tf_fast_rcnn.data.image_files import IMAGE_EXTENSIONS
from tf_fast_rcnn.data.parsing import finite
from tf_fast_rcnn.data.readers.imagefolder import METADATA
from tf_fast_rcnn.data.readers.kitti import kitti_folders
from tf_fast_rcnn.data.readers.label_studio import is_label_studio
from tf_fast_rcnn.data.readers.via import via_images
from tf_fast_rcnn.data.readers.voc_folders import voc_splits

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

# Kind of SPEC -> what it reads, for `tf-fast-rcnn formats`.
FORMATS = {
    "voc:DIR[@SPLIT]": "Pascal VOC: XML files with lists in ImageSets/Main, or beside the images (labelImg, Roboflow)",
    "coco:JSON[,IMAGES]": "COCO instances, also those of LVIS, and with outlines instead of boxes",
    "yolo:DIR[@SPLIT]": "YOLO: data.yaml, Darknet's obj.data, or images, labels, classes.txt; DIR may be a YAML file",
    "csv:FILE[,IMAGES]": "CSV with a box per line; also Open Images, Kaggle, VIA, makesense, Vertex AI (FILE@SPLIT)",
    "labelme:DIR": "LabelMe's JSON files beside their images",
    "cvat:XML[,IMAGES][@SUBSET]": "CVAT for images 1.1",
    "label-studio:JSON[,IMAGES]": "Label Studio's export as JSON or JSON-MIN",
    "via:JSON[,IMAGES]": "VGG Image Annotator 1 and 2, annotations or project",
    "kitti:DIR[@SPLIT]": "KITTI: image_2/ and label_2/, or images/ and labels/",
    "imagefolder:DIR[@SPLIT]": "Hugging Face image folder with metadata.jsonl",
    "tfrecord:FILE": "TFRecords of the TensorFlow Object Detection API; FILE may be a pattern",
    "tfds:NAME@SPLIT": "TensorFlow Datasets, from disk",
    "prepared:DIR": "the output of `tf-fast-rcnn prepare`",
}

_BOX_COLUMNS = {"xmin", "x1", "x_min", "left", "bbox", "bbox_x", "region_shape_attributes"}

# Only so much of a file is looked at, unless it is JSON of a moderate size.
_HEAD = 4096
_MAX_JSON = 200_000_000
_MAX_FILES = 2000


def recognise(path: StrPath) -> list[str]:
    """The SPECs that fit a file or folder: its format by the names and first bytes of files.

    Splits are part of the SPEC if they are folders or lists. Folders of several formats have several; what is not known
    has none.

    Args:
        path: a file or folder.

    Returns:
        A list of SPECs, at most one per kind and split.

    Example:
        >>> recognise("VOCdevkit/VOC2007")                          # doctest: +SKIP
        ['voc:VOCdevkit/VOC2007@test', 'voc:VOCdevkit/VOC2007@trainval']
    """
    path = Path(path)
    if os.path.isfile(path):
        kind = _kind_of_file(path)
        return [f"{kind}:{path}"] if kind else []
    return list(_specs_of_folder(path)) if os.path.isdir(path) else []


def hint(kind: str, path: StrPath) -> str:
    """What to add to the message of a reader that fails: the kinds that fit, if `kind` is not one of them; else "".

    Example:
        >>> hint("voc", "cells-yolo")                                # doctest: +SKIP
        '; it looks like yolo:cells-yolo@train'
    """
    try:
        found = recognise(path)
    except (OSError, ValueError, RecursionError):
        return ""
    if not found or any(spec.startswith(f"{kind}:") for spec in found):
        return ""
    return f"; it looks like {' or '.join(found[:3])}"


def _kind_of_file(path):
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _kind_of_json(path)
    if suffix == ".xml":
        return "cvat" if re.search(rb"<annotations[\s>]", head) else None
    if suffix in (".yaml", ".yml"):
        return "yolo" if re.search(rb"^names\s*:", path.read_bytes()[:1_000_000], re.MULTILINE) else None
    if suffix in (".csv", ".tsv"):
        return "csv" if _has_boxes(head.decode("utf-8-sig", "replace").partition("\n")[0]) else None
    if suffix == ".data":
        return "yolo" if re.search(rb"^\s*names\s*=", head, re.MULTILINE) else None
    # A record is its length, a checksum of the length, and an Example, whose first byte is 0x0a.
    is_record = len(head) > 13 and int.from_bytes(head[:8], "little") <= os.path.getsize(path) and head[12] == 0x0A
    return "tfrecord" if is_record else None


def _has_boxes(line):
    """Whether the first line of a CSV file has the columns of boxes, or is a box."""
    try:
        fields = next(csv.reader([line], delimiter=max(",;\t", key=line.count)), [])
    except csv.Error:
        return False
    fields = [field.strip(' "\r') for field in fields]
    names = {field.lower() for field in fields}
    corners = sum(finite(field) is not None for field in fields) >= 4
    return corners or bool(names & _BOX_COLUMNS) or names >= {"x", "y"}


def _kind_of_json(path):
    if os.path.getsize(path) > _MAX_JSON:
        return "coco"
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    if isinstance(content, dict):
        if {"images", "categories"} <= set(content):
            return "coco"
        if isinstance(content.get("shapes"), list) and "imagePath" in content:
            return "labelme"
    if via_images(content) is not None:
        return "via"
    return "label-studio" if is_label_studio(content) else None


def _specs_of_folder(folder: Path) -> Iterator[str]:
    if (folder / "manifest.json").is_file() and any(folder.glob("*.tfrecord*")):
        yield f"prepared:{folder}"
        return
    names = _names(folder)
    yield from _voc_specs(folder, names)
    yield from _metadata_specs(folder)
    yolo = list(_yolo_specs(folder, names))
    # NVIDIA TAO's folders have the names of YOLO's; lines of 15 fields tell them apart.
    yield from _kitti_specs(folder, yolo)
    yield from (spec for spec in yolo if not _is_kitti(folder))
    files = sorted(path for name in names if (path := folder / name).suffix.lower() in (".json", ".csv", ".xml"))
    if any(path.suffix == ".json" and _kind_of_json(path) == "labelme" for path in files[:20]):
        yield f"labelme:{folder}"
        return
    others = [path for path in files if path.suffix.lower() != ".xml" or path.with_suffix("").name not in _stems(names)]
    for path in islice(others, 20):
        kind = _kind_of_file(path)
        if kind and path.name not in METADATA:
            yield f"{kind}:{path}"
    for place in ("annotations", "Annotations"):
        for path in sorted(folder.glob(f"{place}/*.json"))[:20]:
            if _kind_of_json(path) == "coco":
                yield f"coco:{path},{_images_beside(folder, path.stem)}"
    for path in sorted(folder.glob("*.tfrecord*"))[:1]:
        if _kind_of_file(path) == "tfrecord":
            yield f"tfrecord:{folder}/*.tfrecord*"


def _names(folder):
    return [entry.name for entry in islice(os.scandir(folder), _MAX_FILES)]


def _stems(names):
    return {Path(name).stem for name in names if name.lower().endswith(IMAGE_EXTENSIONS)}


def _images_beside(folder, name):
    """The folder of the images of "instances_train": images/train, train or images."""
    subset = name.rpartition("_")[2]
    places = [folder / "images" / subset, folder / subset, folder / "images", folder / "JPEGImages"]
    return next((place for place in places if place.is_dir()), folder)


def _voc_specs(folder, names):
    splits = voc_splits(folder)
    if splits:
        yield from (f"voc:{folder}@{split}" for split in splits)
    elif any(name.endswith(".xml") and _is_voc(folder / name) for name in names) or any(
        _is_voc(path) for path in islice(folder.glob("Annotations/*.xml"), 1)
    ):
        yield f"voc:{folder}"


def _is_voc(path):
    with open(path, "rb") as file:
        return re.search(rb"<annotation[\s>]", file.read(_HEAD)) is not None


def _metadata_specs(folder):
    for name in METADATA:
        if (folder / name).is_file():
            yield f"imagefolder:{folder}"
            return
        for path in sorted({path.parent.name for path in folder.glob(f"*/{name}")}):
            yield f"imagefolder:{folder}@{path}"


def _yolo_specs(folder, names):
    described = [name for name in names if name.endswith((".yaml", ".yml")) and _kind_of_file(folder / name)]
    for name in sorted(described):
        try:
            content = yaml.load((folder / name).read_text(errors="replace"), Loader=yaml.BaseLoader)
        except (yaml.YAMLError, ValueError, RecursionError):
            continue
        splits = [
            split for split in ("train", "val", "valid", "test") if isinstance(content, dict) and content.get(split)
        ]
        place = folder if name in ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml") else folder / name
        yield from (f"yolo:{place}@{split}" for split in splits) if splits else (f"yolo:{place}",)
        return
    lists = ("classes.txt", "obj.names", "obj.data", "_darknet.labels")
    if any(name in names for name in lists):
        known = [name for name in ("train", "valid", "val", "test") if f"{name}.txt" in names]
        yield from ((f"yolo:{folder}@{split}" for split in known) if known else [f"yolo:{folder}"])


def _is_kitti(folder):
    found = kitti_folders(folder) or kitti_folders(folder / "training")
    path = next(found[1].glob("*.txt"), None) if found else None
    first = path.read_text(errors="replace").partition("\n")[0].split() if path else []
    return len(first) in (15, 16)


def _kitti_specs(folder, yolo):
    if _is_kitti(folder):
        yield f"kitti:{folder}"
        return
    splits = sorted(path.parent.name for path in folder.glob("*/label_2") if (path.parent / "image_2").is_dir())
    yield from (f"kitti:{folder}@{split}" for split in splits)
