"""Reads object detection data sets of TensorFlow Datasets (TFDS), whose images are copied to the cache folder:

    CACHE/tfds/NAME-SPLIT-KEY/
      00000000.jpg ...      the encoded images, byte for byte
      annotations.json      their objects, written last: if it exists, the folder is complete

KEY is a hash of the source: location and modification time of the TFDS files, number of examples and bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each, to_dataset
from tf_fast_rcnn.errors import InputError, missing_package
from tf_fast_rcnn.files import cache_folder, replacing

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import DetectionDataset
    from tf_fast_rcnn.files import StrPath

_FILE_NAMES = ("image/filename", "image/file_name", "filename", "file_name")
_IMAGE_IDS = ("image/id", "image_id")
_LABELS = ("label", "type")
_EXTENSIONS = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"BM": ".bmp", b"GI": ".gif", b"RI": ".webp"}


class _Features(NamedTuple):
    """Where to find a data set's objects: the name of the feature, of its class label, and of the classes."""

    objects: str
    label: str
    class_names: list[str]


def read_tfds(
    name: str,
    split: str,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    cache_dir: StrPath | None = None,
    progress: bool = True,
) -> DetectionDataset:
    """Reads one split of a TFDS data set that is on disk (`tfds.load` downloads it).

    - Objects are the feature "objects" or, if there is none, the first sequence with a `bbox` (BBoxFeature) and a class
      label; is_difficult and is_crowd are read if present. The classes are those of the label, in its order.
    - Nothing is downloaded. TFDS looks in $TFDS_DATA_DIR or, if that is not set, in ~/tensorflow_datasets.
    - The encoded images are copied once, byte for byte, to files in the cache folder, which need as much disk space as
      TFDS's own files. After an interruption the copy continues; later reads use only the copied files.
    - TFDS's `voc` keeps VOC's 1-based corners; they are corrected here, so that `tfds:voc/2007@train` has the same
      boxes and `image_id`s as `voc:VOC2007@train`. Its `coco` numbers the 80 classes in the order of COCO's ids, as
      `coco:` does; `image_id` is COCO's.
    - Boxes are clipped to the image; those without area are dropped. Both are counted in `fixes`.

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
        InputError: for a data set that TFDS does not know or that is not on disk, has no such split or no objects, and,
            without `skip_bad`, for the first invalid image.

    Example:
        >>> train = read_tfds("voc/2007", "train")              # doctest: +SKIP
    """
    builder = _builder(name)
    _check_split(builder, name, split)
    features = _features(builder, name)
    folder = cache_folder(cache_dir) / "tfds" / _key(builder, name, split)
    if not (folder / "annotations.json").is_file():
        _copy(builder, split, features, folder, progress)
    images = _read_copy(folder)
    # The builder's own name is "voc" for any version.
    to_relative = box_algebra.from_tfds_voc if builder.name == "voc" else _as_they_are
    fixes = Counter()

    def read_image(image):
        source = f"tfds:{name}@{split}, image {image['id']}"
        objects = [_object(source, values, features) for values in image["objects"]]
        return annotate(source, image["id"], folder / image["file"], objects, to_relative, fixes)

    annotations = read_each(read_image, images, skip_bad, fixes)
    names = features.class_names if class_names is None else class_names
    return to_dataset(f"tfds:{name}@{split}", annotations, names, fixes)


def _as_they_are(boxes, height, width):
    return boxes


def _builder(name):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise missing_package(f"tfds:{name}", error, "tfds") from None

    data_dir = os.environ.get("TFDS_DATA_DIR")
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # TFDS logs warnings about missing files; the error below reports them.
    try:
        builder = tfds.builder(name, **({"data_dir": data_dir} if data_dir else {}))
        prepared = builder.is_prepared()
    except Exception as error:  # TFDS raises errors of many types, some with a long list of data sets.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"tfds:{name}: no such data set ({reason}); expected one that `tfds.builder` knows; correct the name or "
            "set TFDS_DATA_DIR"
        ) from None
    finally:
        log.setLevel(level)
    if not prepared:
        raise InputError(
            f"tfds:{name}: found nothing in {builder.data_dir}; expected a data set; download it with "
            f"""python -c "import tensorflow_datasets as tfds; tfds.load('{name}')" or set TFDS_DATA_DIR"""
        )
    return builder


def _check_split(builder, name, split):
    if split not in builder.info.splits:
        raise InputError(
            f"tfds:{name}: no split {split!r}; expected one of {', '.join(sorted(builder.info.splits))}; "
            "add it as @SPLIT"
        )


def _features(builder, name):
    """Finds the objects; InputError if there are none or their boxes are not relative [ymin, xmin, ymax, xmax]."""
    features = builder.info.features
    found = {key: label for key in features for label in [_label_of(features[key])] if label}
    if "image" not in features or not found:
        raise InputError(
            f"tfds:{name}: found the features {', '.join(sorted(features))}; expected `image`, and a sequence with "
            "`bbox` and a class label; choose an object detection data set"
        )
    key = "objects" if "objects" in found else next(iter(found))
    box = features[key].feature["bbox"]
    bbox_format = getattr(getattr(box, "bbox_format", None), "name", "REL_YXYX")
    if bbox_format != "REL_YXYX":
        raise InputError(
            f"tfds:{name}: found boxes in the format {bbox_format}; expected REL_YXYX, TFDS's default; rebuild it"
        )
    return _Features(key, found[key], list(features[key].feature[found[key]].names))


def _label_of(feature):
    """The name of the class label in a sequence of boxes; None for any other feature."""
    import tensorflow_datasets as tfds

    inner = getattr(feature, "feature", None)
    if not isinstance(inner, tfds.features.FeaturesDict) or "bbox" not in inner:
        return None
    labels = [key for key in inner if isinstance(inner[key], tfds.features.ClassLabel)]
    is_box = isinstance(inner["bbox"], tfds.features.BBoxFeature)
    return next((key for key in (*_LABELS, *labels) if key in labels), None) if is_box else None


def _key(builder, name, split):
    import tensorflow as tf

    info = os.path.join(builder.data_dir, "dataset_info.json")
    totals = builder.info.splits[split]
    source = [str(builder.data_dir), tf.io.gfile.stat(info).mtime_nsec, totals.num_examples, totals.num_bytes]
    digest = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:16]
    return re.sub(r"[^\w.-]+", "_", f"{name}-{split}")[-60:] + f"-{digest}"


def _copy(builder, split, features, folder, progress):
    """Writes the images that do not exist yet, and then the annotations of all images."""
    totals = builder.info.splits[split]
    size = f"{totals.num_bytes / 1e9:.1f} GB" if totals.num_bytes >= 1e8 else f"{totals.num_bytes / 1e6:.1f} MB"
    title = f"copying {builder.info.full_name} {split} ({size})"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        examples = tqdm(
            _examples(builder, split, features), title, totals.num_examples, unit="image", disable=not progress
        )
        images = [_copy_image(example, number, features, folder) for number, example in enumerate(examples)]
        with replacing(folder / "annotations.json") as file:
            file.write(json.dumps(_with_unique_ids(images)).encode())
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write ({error}); expected a folder with room for {size}; choose another --cache"
        ) from None


def _examples(builder, split, features):
    """Yields the examples of a split in a fixed order, without decoding images."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    wanted = {"image", features.objects, *_FILE_NAMES, *_IMAGE_IDS} & set(builder.info.features)
    decoding = tfds.decode.PartialDecoding(dict.fromkeys(wanted, True), decoders={"image": tfds.decode.SkipDecoding()})
    config = tfds.ReadConfig(try_autocache=False)
    try:
        yield from tfds.as_numpy(builder.as_dataset(split=split, decoders=decoding, read_config=config))
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{builder.data_dir}: cannot read the examples ({reason}); expected files written by TFDS; rebuild them"
        ) from None


def _copy_image(example, number, features, folder):
    """Writes an example's image if it does not exist yet; returns its entry in annotations.json."""
    encoded = example["image"]
    path = folder / f"{number:08d}{_EXTENSIONS.get(encoded[:2], '.img')}"
    if not path.is_file():
        with replacing(path) as file:
            file.write(encoded)
    objects = example[features.objects]
    names = ("bbox", features.label, "is_difficult", "is_crowd")
    columns = {name: objects[name].tolist() for name in names if name in objects}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return {"id": _image_id(example, number), "file": path.name, "objects": rows}


def _image_id(example, number):
    """COCO's id, the file name without extension as in VOC, or else the example's number."""
    for key in _IMAGE_IDS:
        if key in example:
            value = example[key]
            return value.decode() if isinstance(value, bytes) else str(value)
    for key in _FILE_NAMES:
        if key in example:
            return PurePosixPath(example[key].decode()).with_suffix("").as_posix()
    return f"{number:08d}"


def _with_unique_ids(images):
    if len({image["id"] for image in images}) == len(images):
        return images
    return [image | {"id": f"{number:08d}"} for number, image in enumerate(images)]


def _read_copy(folder):
    path = folder / "annotations.json"
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: invalid JSON ({error}); remove {folder} to copy the images again") from None


def _object(source, values, features):
    label = values[features.label]
    if not 0 <= label < len(features.class_names):
        raise InputError(
            f"{source}: found the label {label}; expected 0 to {len(features.class_names) - 1}; skip invalid images"
        )
    return AnnotatedObject(
        features.class_names[label], values["bbox"], values.get("is_difficult", False), values.get("is_crowd", False)
    )
