"""Reads object detection data sets of TensorFlow Datasets (TFDS), whose images are copied to the cache folder:

    CACHE/tfds/NAME-SPLIT-KEY/
      00000000.jpg ...      the encoded images, byte for byte
      annotations.json      their objects as TFDS stores them, written last: if it exists, the folder is complete

KEY is a hash of the source: location and modification time of the TFDS files, number of examples and bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn.data.image_files import IMAGE_EXTENSIONS
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.data.readers.tfds_layout import find_layouts, own_builder
from tf_fast_rcnn.errors import InputError, missing_package
from tf_fast_rcnn.files import cache_folder, replacing

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

# Version of annotations.json; a folder with another one keeps its images.
_VERSION = 3

_IMAGE_IDS = ("image/id", "image_id")
_FILE_NAMES = ("image/filename", "image/file_name", "filename", "file_name", "image_filename")
_OTHER_IDS = ("id",)
_EXTENSIONS = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"BM": ".bmp", b"GI": ".gif", b"RI": ".webp"}

# COCO's small objects have an area of up to the first, large ones from the second, medium ones from the first to the
# second, in square pixels; both ends included.
_AREA_BOUNDS = (32**2, 96**2)

# A coordinate is a float32, so that it may exceed 1 by its rounding.
_ROUNDING = 1e-6


def read_tfds(
    name: str,
    split: str,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    cache_dir: StrPath | None = None,
    progress: bool = True,
) -> DetectionDataset:
    """Reads one split of a TFDS data set that is on disk (`tfds.load` downloads it).

    - There must be an image, and next to it a sequence of objects with a box (`BBoxFeature`) and a class label, or
      boxes and a class label of the image. If an example has an image for each camera, each is read as an image.
    - Flags of objects are read if present: `is_difficult`; `is_crowd` and `is_group_of` as crowds; `area`, in square
      pixels, for the size classes of COCO evaluation.
    - The classes are those of the label, in its order. An id that is a number, as COCO's, is the record's `source_id`.
    - Nothing is downloaded. TFDS looks in $TFDS_DATA_DIR or, if that is not set, in ~/tensorflow_datasets.
    - The encoded images are copied once, byte for byte, to files in the cache folder, which need as much disk space as
      TFDS's own files. After an interruption the copy continues; later reads use only the copied files.
    - Where TFDS's own builders differ from their features, the boxes are corrected: 1-based corners of VOC's XML (voc,
      bccd, stanford_dogs, oxford_iiit_pet) and kitti's boxes, which are upside down. docs/tfds.md lists all builders.
    - Boxes are clipped to the image; those without area are dropped. Both are counted in `fixes`, as are images that
      are not annotated, if no image of the split is.

    Args:
        name: as for `tfds.builder`: "voc/2007", "coco/2017", "my_data_set:1.0.0".
        split: one of the data set's splits, e.g. "train".
        class_names: the classes in the order of their ids 1..K; default: those of the label.
        skip_bad: leave out invalid images and annotations, and count them in `fixes`, instead of raising.
        cache_dir: default: $TF_FAST_RCNN_CACHE, else the user's cache folder.
        progress: whether to show a progress bar on stderr.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for a data set that TFDS does not know or that is not on disk, has no such split or no boxes with
            classes, and, without `skip_bad`, for the first invalid image.

    Example:
        >>> train = read_tfds("voc/2007", "train")              # doctest: +SKIP
    """
    builder = _builder(name)
    _check_split(builder, name, split)
    own = own_builder(builder, name)
    layouts = find_layouts(builder, own, name)
    folder = cache_folder(cache_dir) / "tfds" / _key(builder, name, split)
    if not _is_complete(folder):
        _copy(builder, split, layouts, own, folder, progress)
    images = _read_copy(folder)["images"]
    found_names = _class_names(layouts[0], images)
    fixes = Counter()
    annotated = [image for image in images if not (own.zero_box_is_none and _has_zero_box(image))]
    fixes["images without annotation left out"] += len(images) - len(annotated)

    def read_image(image):
        source = f"tfds:{name}@{split}, image {image['id']}"
        objects = [_object(source, values, found_names) for values in image["objects"]]
        path, number = folder / image["file"], image["source_id"]
        return annotate(source, image["id"], path, objects, own.to_relative, fixes, source_id=number)

    annotations = read_each(read_image, annotated, skip_bad, fixes)
    if not any(image["objects"] for image in images):
        fixes["images of a split without any object"] += len(images)
    names = found_names if class_names is None else class_names
    return to_dataset(f"tfds:{name}@{split}", annotations, names, fixes)


def _builder(name):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise missing_package(f"tfds:{name}", error, "tfds") from None

    data_dir = os.environ.get("TFDS_DATA_DIR")
    try:
        with _only_errors():  # TFDS logs warnings about missing files; the error below reports them.
            builder = tfds.builder(name, **({"data_dir": data_dir} if data_dir else {}))
            prepared = builder.is_prepared()
    except Exception as error:  # TFDS raises errors of many types, some with a long list of data sets.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"tfds:{name}: no such data set ({reason}); expected one that `tfds.builder` knows; correct the name or "
            "set TFDS_DATA_DIR"
        ) from None
    if not prepared:
        raise InputError(
            f"tfds:{name}: found nothing in {builder.data_dir}; expected a data set; download it with "
            f"""python -c "import tensorflow_datasets as tfds; tfds.load('{name}')" or set TFDS_DATA_DIR"""
        )
    return builder


@contextlib.contextmanager
def _only_errors():
    """Silences TFDS's warnings, which absl logs."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _check_split(builder, name, split):
    if split not in builder.info.splits:
        raise InputError(
            f"tfds:{name}: no split {split!r}; expected one of {', '.join(sorted(builder.info.splits))}; "
            "add it as @SPLIT"
        )


def _key(builder, name, split):
    import tensorflow as tf

    info = os.path.join(builder.data_dir, "dataset_info.json")
    totals = builder.info.splits[split]
    source = [str(builder.data_dir), tf.io.gfile.stat(info).mtime_nsec, totals.num_examples, totals.num_bytes]
    digest = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:16]
    return re.sub(r"[^\w.-]+", "_", f"{name}-{split}")[-60:] + f"-{digest}"


def _copy(builder, split, layouts, own, folder, progress):
    """Writes the images that do not exist yet, and then the annotations of all images."""
    totals = builder.info.splits[split]
    size = f"{totals.num_bytes / 1e9:.1f} GB" if totals.num_bytes >= 1e8 else f"{totals.num_bytes / 1e6:.1f} MB"
    title = f"copying {builder.info.full_name} {split} ({size})"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        examples = tqdm(
            _examples(builder, split, layouts), title, totals.num_examples, unit="image", disable=not progress
        )
        images = []
        for example in examples:
            for layout in layouts:
                images.append(_copy_image(example, len(images), layout, own, folder, len(layouts)))
        content = {"version": _VERSION, "images": _with_unique_ids(images)}
        with replacing(folder / "annotations.json") as file:
            file.write(json.dumps(content).encode())
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write ({error}); expected a folder with room for {size}; choose another --cache"
        ) from None


def _examples(builder, split, layouts):
    """Yields the examples of a split in a fixed order, without decoding images, and only with what is needed."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    ids = (*_IMAGE_IDS, *_FILE_NAMES, *_OTHER_IDS)
    wanted = {key: True for key in ids if key in builder.info.features}
    decoders = {}
    for layout in layouts:
        scope = wanted.setdefault(layout.scope, {}) if layout.scope else wanted
        scope.update(_wanted(layout))
        (decoders.setdefault(layout.scope, {}) if layout.scope else decoders)[layout.image] = tfds.decode.SkipDecoding()
    decoding = tfds.decode.PartialDecoding(wanted, decoders=decoders)
    config = tfds.ReadConfig(try_autocache=False)
    try:
        with _only_errors():  # TFDS warns of its own use of a deprecated attribute.
            dataset = builder.as_dataset(split=split, decoders=decoding, read_config=config)
        yield from tfds.as_numpy(dataset)
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{builder.data_dir}: cannot read the examples ({reason}); expected files written by TFDS; rebuild them"
        ) from None


def _wanted(layout):
    """The features that a layout needs, for `PartialDecoding`."""
    wanted = {key: True for key in (layout.image, layout.label_text) if key}
    in_object = dict.fromkeys((layout.box, *layout.flags.values()), True)
    if layout.label:
        (wanted if layout.label_of_image else in_object)[layout.label] = True
    return wanted | ({layout.objects: in_object} if layout.objects else in_object)


def _copy_image(example, number, layout, own, folder, num_layouts):
    """Writes an image of an example if it does not exist yet; returns its entry in annotations.json."""
    scope = example[layout.scope] if layout.scope else example
    encoded = scope[layout.image]
    path = folder / f"{number:08d}{_EXTENSIONS.get(encoded[:2], '.img')}"
    if not path.is_file():
        with replacing(path) as file:
            file.write(encoded)
    image_id = _image_id(example, number // num_layouts)
    image_id = f"{image_id}-{layout.scope}" if layout.scope else image_id
    try:
        objects = _rows(scope, layout, own)
    except InputError as error:
        raise InputError(f"{path.parent}, image {image_id}: {error}") from None
    source_id = None if layout.scope else _source_id(example)
    return {"id": image_id, "file": path.name, "objects": objects, "source_id": source_id}


def _source_id(example):
    """An id that is a number, as COCO's; None for others."""
    values = [example[key] for key in _IMAGE_IDS if key in example]
    return int(values[0]) if values and isinstance(values[0], (int, np.integer)) else None


def _rows(scope, layout, own):
    """One dict per object: bbox, label and, if given, difficult, crowd, area and the label's text."""
    rows = _columns_to_rows(scope, layout, own) if layout.several else [{"bbox": scope[layout.box].tolist()}]
    if layout.label_of_image:
        of_image = {"label": int(scope[layout.label])}
        of_image |= {"text": scope[layout.label_text].decode()} if layout.label_text else {}
        rows = [row | of_image for row in rows]
    return rows


def _columns_to_rows(scope, layout, own):
    objects = scope[layout.objects] if layout.objects else scope
    columns = {"bbox": objects[layout.box].reshape(-1, 4).tolist()}
    columns |= {flag: _flag(objects[key], flag, layout, own) for flag, key in layout.flags.items()}
    if layout.label and not layout.label_of_image:
        columns["label"] = objects[layout.label].tolist()
    if len({len(values) for values in columns.values()}) > 1:
        counts = ", ".join(f"{len(values)} of {name}" for name, values in columns.items())
        raise InputError(f"found {counts}; expected as many of each as there are boxes; rebuild the data set")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _flag(values, flag, layout, own):
    """The values of a flag of all objects: whether it is 1, or the area."""
    if flag != "area":
        return (values == 1).tolist()
    # TFDS drops the decimals of COCO's areas, which matters on the bounds of the size classes: 1024.9 is medium, but
    # 1024 is small and medium. Whole numbers are rare in COCO.
    truncated = own.areas_truncated == layout.objects
    return [area + 0.5 if truncated and area in _AREA_BOUNDS else area for area in values.tolist()]


def _image_id(example, number):
    """COCO's id, the file name without extension as in VOC, another id, or else the example's number."""
    for key in (*_IMAGE_IDS, *_FILE_NAMES, *_OTHER_IDS):
        if key in example and getattr(example[key], "shape", ()) == ():
            value = example[key]
            # TFDS's bccd ends names with a line break.
            text = value.decode(errors="replace").strip() if isinstance(value, bytes) else str(value)
            return _without_extension(text) if key in _FILE_NAMES else text
    return f"{number:08d}"


def _without_extension(name):
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in (*IMAGE_EXTENSIONS, ".gif") else name


def _with_unique_ids(images):
    if len({image["id"] for image in images}) == len(images):
        return images
    return [image | {"id": f"{number:08d}", "source_id": None} for number, image in enumerate(images)]


def _is_complete(folder):
    if not (folder / "annotations.json").is_file():
        return False
    content = _read_copy(folder)
    return isinstance(content, dict) and content.get("version") == _VERSION


def _read_copy(folder):
    path = folder / "annotations.json"
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: invalid JSON ({error}); remove {folder} to copy the images again") from None


def _class_names(layout, images):
    """The names of the label; if it has only numbers, the texts that stand for them."""
    texts = {row["label"]: row["text"] for image in images for row in image["objects"] if "text" in row}
    names = [texts.get(number, name) for number, name in enumerate(layout.class_names)]
    return names if len(set(names)) == len(names) else layout.class_names


def _has_zero_box(image):
    return any(not any(row["bbox"]) for row in image["objects"])


def _object(source, values, class_names):
    label = values.get("label", 0)
    if not 0 <= label < len(class_names):
        raise InputError(
            f"{source}: found the label {label}; expected 0 to {len(class_names) - 1}; skip invalid images"
        )
    ymin, xmin, ymax, xmax = values["bbox"]
    if not (-_ROUNDING <= ymin <= ymax <= 1 + _ROUNDING and -_ROUNDING <= xmin <= xmax <= 1 + _ROUNDING):
        raise InputError(
            f"{source}: found the box {values['bbox']}; expected ymin, xmin, ymax and xmax from 0 to 1, TFDS's default "
            "format; rebuild the data set with it"
        )
    return AnnotatedObject(
        class_names[label],
        values["bbox"],
        values.get("difficult", False),
        values.get("crowd", False),
        values.get("area") or None,
    )
