"""Reads TFRecord files of the TensorFlow Object Detection API; their images are copied to the cache folder:

    CACHE/tfrecord/NAME-KEY/
      00000000.jpg ...      the encoded images, byte for byte
      annotations.json      their objects, written last: if it exists, the folder is complete

KEY is a hash of the files' paths, sizes and modification times.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from tf_fast_rcnn.data.parsing import read_text
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.documents import load_json
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import cache_folder, replacing

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

_SIDES = ("ymin", "xmin", "ymax", "xmax")
_EXTENSIONS = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"BM": ".bmp", b"GI": ".gif", b"RI": ".webp"}


def read_tfrecord(
    pattern: StrPath,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    cache_dir: StrPath | None = None,
    progress: bool = True,
) -> DetectionDataset:
    """Reads TFRecord files of `tf.train.Example`s as the TensorFlow Object Detection API defines them.

    - The features are image/encoded, image/filename, image/height and image/width, and for each object
      image/object/bbox/{ymin,xmin,ymax,xmax} (relative), image/object/class/text (or class/label, whose names are read
      from a label map, the only *.pbtxt file next to the records) and, if present, difficult, is_crowd or group_of, and
      area.
    - `image_id` is image/source_id, or else image/filename without extension, or else the number of the example.
    - The encoded images are copied once, byte for byte, to files in the cache folder.

    Args:
        pattern: a file, or a pattern such as "train.tfrecord-*".
        class_names: the classes in the order of their ids 1..K; default: those of the label map, else those found,
            sorted.
        skip_bad: leave out invalid images and annotations, and count them in `fixes`, instead of raising.
        cache_dir: default: $TF_FAST_RCNN_CACHE, else the user's cache folder.
        progress: whether to show a progress bar on stderr.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for missing or damaged files, examples of another kind, and, without `skip_bad`, for invalid images
            and annotations.

    Example:
        >>> train = read_tfrecord("records/train.tfrecord-*")           # doctest: +SKIP
    """
    paths = _paths(pattern)
    names = _label_map(paths[0].parent)
    folder = cache_folder(cache_dir) / "tfrecord" / _key(paths)
    if not (folder / "annotations.json").is_file():
        _copy(paths, folder, progress)
    images = load_json(folder / "annotations.json", f"what was copied; remove {folder} to copy the images again")
    fixes = Counter()

    def read_image(image):
        source = f"tfrecord:{image['source']}, image {image['id']}"
        objects = [_object(source, values, names) for values in image["objects"]]
        stated = (image["height"], image["width"])
        return annotate(source, image["id"], folder / image["file"], objects, _as_they_are, fixes, stated)

    annotations = read_each(read_image, images, skip_bad, fixes)
    if class_names is None:
        class_names = list(names.values()) or None
    return to_dataset(f"tfrecord:{pattern}", annotations, class_names, fixes)


def _as_they_are(boxes, height, width):
    return boxes


def _paths(pattern):
    text = os.fspath(pattern)
    found = [Path(text)] if os.path.isfile(text) else sorted(map(Path, glob.glob(text)))
    if not found:
        raise InputError(f"{text}: no such file; expected TFRecord files; check the path or the pattern")
    return found


def _key(paths):
    source = [(os.path.abspath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths]
    digest = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:16]
    return re.sub(r"[^\w.-]+", "_", paths[0].name)[-60:] + f"-{digest}"


def _label_map(folder):
    """The name of each class id in the only label map of a folder; {} if there is none, or several."""
    paths = sorted(folder.glob("*.pbtxt"))
    if len(paths) != 1:
        return {}
    items = re.findall(r"item\s*\{(.*?)\}", read_text(paths[0], "a label map"), re.DOTALL)
    pairs = [(_field(item, r"id\s*:\s*(\d{1,9})"), _field(item, r"\bname\s*:\s*['\"](.*?)['\"]")) for item in items]
    if not pairs or not all(number and name for number, name in pairs):
        raise InputError(f"{paths[0]}: found an item without id or name; expected item {{ id: 1 name: 'cat' }} each")
    return {int(number): name for number, name in sorted(pairs, key=lambda pair: int(pair[0]))}


def _field(text, pattern):
    match = re.search(pattern, text)
    return match[1] if match else ""


def _copy(paths, folder, progress):
    """Writes the images that do not exist yet, and then the annotations of all images."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        examples = tqdm(_examples(paths), f"copying {paths[0].name}", unit="image", disable=not progress)
        images = [_copy_image(path, example, number, folder) for number, (path, example) in enumerate(examples)]
        if not images:
            raise InputError(f"{paths[0]}: found no examples; expected tf.train.Examples with images")
        if len({image["id"] for image in images}) < len(images):
            images = [image | {"id": f"{number:08d}"} for number, image in enumerate(images)]
        with replacing(folder / "annotations.json") as file:
            file.write(json.dumps(images).encode())
    except OSError as error:
        raise InputError(f"{folder}: cannot write ({error}); choose another --cache") from None


def _examples(paths):
    """Yields `(path, features of an example)`."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    for path in paths:
        kind = "GZIP" if path.suffix == ".gz" else ""
        try:
            for record in tf.data.TFRecordDataset(str(path), kind).as_numpy_iterator():
                yield path, tf.train.Example.FromString(record).features.feature
        except (tf.errors.OpError, DecodeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f"{path}: cannot read the examples ({reason}); expected TFRecords of tf.train.Example; write them again"
            ) from None


def _values(feature, name):
    """The values of a feature; [] if it is missing."""
    if name not in feature:
        return []
    kind = feature[name].WhichOneof("kind")
    return list(getattr(feature[name], kind).value) if kind else []


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _copy_image(path, feature, number, folder):
    """Writes an example's image if it does not exist yet; returns its entry in annotations.json."""
    encoded = next(iter(_values(feature, "image/encoded")), None)
    if not isinstance(encoded, bytes):
        known = ", ".join(sorted(feature)[:8]) or "nothing"
        raise InputError(
            f"{path}, example {number}: found the features {known}; expected image/encoded and image/object/bbox/...; "
            "use records of the TensorFlow Object Detection API"
        )
    image = folder / f"{number:08d}{_EXTENSIONS.get(encoded[:2], '.img')}"
    if not image.is_file():
        with replacing(image) as file:
            file.write(encoded)
    sizes = [next(iter(_values(feature, f"image/{side}")), 0) for side in ("height", "width")]
    return {
        "source": path.name,
        "id": _image_id(feature, number),
        "file": image.name,
        "height": int(sizes[0]),
        "width": int(sizes[1]),
        "objects": _objects(path, feature, number),
    }


def _image_id(feature, number):
    source_id = next(iter(_values(feature, "image/source_id")), b"")
    filename = next(iter(_values(feature, "image/filename")), b"")
    text = _text(source_id) or os.path.splitext(_text(filename))[0]
    # TensorFlow's VOC converter writes the file name as the id too.
    return os.path.splitext(text)[0] if text == _text(filename) else text or f"{number:08d}"


def _objects(path, feature, number):
    columns = {side: _values(feature, f"image/object/bbox/{side}") for side in _SIDES}
    columns["text"] = [_text(value) for value in _values(feature, "image/object/class/text")]
    columns["label"] = _values(feature, "image/object/class/label")
    columns["difficult"] = _values(feature, "image/object/difficult")
    columns["crowd"] = _values(feature, "image/object/is_crowd") or _values(feature, "image/object/group_of")
    columns["area"] = _values(feature, "image/object/area")
    count = len(columns["ymin"])
    lengths = {len(columns[side]) for side in _SIDES}
    named = any(len(columns[name]) == count for name in ("text", "label"))
    if len(lengths) > 1 or not named:
        raise InputError(
            f"{path}, example {number}: found {count} boxes with another number of sides or classes; expected "
            "image/object/bbox/{ymin,xmin,ymax,xmax} and image/object/class/text of equal length"
        )
    used = {name: values for name, values in columns.items() if len(values) == count}
    return [dict(zip(used, values, strict=True)) for values in zip(*used.values(), strict=True)]


def _object(source, values, names):
    name = values.get("text") or names.get(values.get("label"), str(values.get("label", "")))
    if not name:
        raise InputError(f"{source}: found an object without class; expected image/object/class/text")
    area = values.get("area")
    return AnnotatedObject(
        name,
        tuple(values[side] for side in _SIDES),
        bool(values.get("difficult")),
        bool(values.get("crowd")),
        area if area and area > 0 else None,
    )
