"""Annotated images as `tf.train.Example`s in TFRecord files, and reading them in a TensorFlow graph.

Training, detection and benchmarks read data through `example_reader`. The keys are those of the TF Object Detection
API, plus one for the proposals; docs/prepared_data.md describes them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tqdm import tqdm

from tf_fast_rcnn.data.network_input import decode_image
from tf_fast_rcnn.data.records import CocoObjects, ImageRecord
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from tf_fast_rcnn.data.datasets import DetectionDataset

_SIDES = tuple(f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
_LABEL, _NAME = "image/object/class/label", "image/object/class/text"
_AREA = "image/object/area"  # in pixels; only if objects have areas other than their boxes'
_COCO = "image/object/coco"  # the rows of `CocoObjects`; only if the record has them
_DIFFICULT, _CROWD = "image/object/difficult", "image/object/is_crowd"
_SOURCE_ID = "image/source_id_json"  # the id in the image's COCO file; only if it has one
_ENCODED, _PATH, _PROPOSALS = "image/encoded", "image/path", "image/proposals"

# The tensors that `example_reader` returns: type and shape by name.
_TENSORS = {
    "image_bytes": tf.TensorSpec([], tf.string),
    "proposals": tf.TensorSpec([None, 4], tf.float32),
    "boxes": tf.TensorSpec([None, 4], tf.float32),
    "class_ids": tf.TensorSpec([None], tf.int32),
    "difficult": tf.TensorSpec([None], tf.bool),
    "crowd": tf.TensorSpec([None], tf.bool),
}
_READ_BUFFER = 1 << 17
# In a TFRecord file, each record's data are preceded by their length (8 bytes) and its checksum (4), and followed by
# their own checksum (4).
_RECORD_OVERHEAD = 16


class PreparedRecords(Sequence[ImageRecord]):
    """The records of a prepared folder, read from their shards on demand.

    Attributes:
        paths: the shards.
        shard_of: int32 `[N]`, the shard of each image.
        offsets: int64 `[N]`, the byte offset of each image's record in its shard.
        num_classes: K.
        image_sizes: int32 `[N, 2]`, height and width of each image; None if they are not known.
    """

    def __init__(
        self,
        paths: Sequence[str],
        record_bytes: Sequence[Sequence[int]],
        num_classes: int,
        image_sizes: npt.ArrayLike | None = None,
    ) -> None:
        """`record_bytes`: for each shard, the length of each record's data in bytes."""
        self.paths = tuple(paths)
        self.num_classes = num_classes
        counts = [len(lengths) for lengths in record_bytes]
        self.shard_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.offsets = np.concatenate([np.zeros(0, np.int64), *map(record_offsets, record_bytes)])
        self.image_sizes = None if image_sizes is None else np.array(image_sizes, np.int32).reshape(len(self), 2)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> ImageRecord:  # type: ignore[override]  # slices are made by RecordView
        path = self.paths[self.shard_of[index]]
        record = read_record(path, self.offsets[index])
        if np.any((record.class_ids < 1) | (record.class_ids > self.num_classes)):
            raise InputError(
                f"{path}: found a class id of image {record.image_id} outside 1..{self.num_classes}; expected one of "
                "the manifest's classes; run `prepare` again"
            )
        return record


def record_offsets(record_bytes: Sequence[int]) -> np.ndarray:
    """Byte offsets of a shard's records, int64 `[N]`, from the lengths of their data."""
    lengths = np.asarray(record_bytes, np.int64) + _RECORD_OVERHEAD
    return np.cumsum(lengths) - lengths


def example_reader(dataset: DetectionDataset) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns a function for `tf.data.Dataset.map` that reads images of a data set by index.

    Prepared data are read from their shards at every call; only the position of each image is kept in memory.

    Args:
        dataset: `DetectionDataset` with proposals.

    Returns:
        A function that takes the index of an image, int64 `[]`, and returns a dict of tensors: `image_bytes` string
        `[]` (a file that `decode_image` decodes), `proposals` float32 `[P, 4]` and `boxes` float32 `[G, 4]`, both
        `[ymin, xmin, ymax, xmax]` relative to the image, `class_ids` int32 `[G]`, 1..K, `difficult` and `crowd` bool
        `[G]`.

    Example:
        >>> numbers = tf.data.Dataset.range(len(dataset))                                   # doctest: +SKIP
        >>> images = numbers.map(example_reader(dataset)).map(                              # doctest: +SKIP
        ...     lambda example: decode_image(example["image_bytes"]))
    """
    if all(isinstance(source, PreparedRecords) for source in dataset.records.sources):
        return _reader_of_shards(dataset.records)
    return _reader_of_records(dataset)


def _reader_of_shards(view):
    """`example_reader` for a `RecordView` of `PreparedRecords`."""
    first_shards = np.cumsum([0] + [len(source.paths) for source in view.sources])
    paths = tf.constant([path for source in view.sources for path in source.paths], tf.string)
    shard, offset = np.zeros(len(view), np.int32), np.zeros(len(view), np.int64)
    for number, source in enumerate(view.sources):
        chosen = view.source_of == number
        shard[chosen] = source.shard_of[view.index_of[chosen]] + first_shards[number]
        offset[chosen] = source.offsets[view.index_of[chosen]]
    shard, offset, source_of = map(tf.constant, (shard, offset, view.source_of))
    label_maps = [np.arange(1) if label_map is None else label_map for label_map in view.label_maps]
    relabels = tf.constant([label_map is not None for label_map in view.label_maps], tf.bool)
    label_maps = tf.ragged.constant([label_map.tolist() for label_map in label_maps], tf.int32)

    def read(index):
        example = parse_example(read_serialized(paths[shard[index]], offset[index]))
        source = source_of[index]
        return tf.cond(relabels[source], lambda: _relabelled(example, label_maps[source]), lambda: example)

    return read


def _relabelled(example, label_map):
    """`ImageRecord.relabelled` as TensorFlow ops."""
    labels = tf.gather(label_map, example["class_ids"])
    objects = {**example, "class_ids": labels}
    kept = {name: tf.boolean_mask(objects[name], labels > 0) for name in ("boxes", "class_ids", "difficult", "crowd")}
    return {**example, **kept}


def _reader_of_records(dataset):
    """`example_reader` for records in memory, i.e. data sets that are not prepared."""

    def values_of(index):
        record = dataset[int(index)]
        values = (record.encoded_image(), record.proposals())
        return (*values, record.boxes, record.class_ids, record.difficult, record.crowd)

    def read(index):
        values = tf.numpy_function(values_of, [index], [spec.dtype for spec in _TENSORS.values()], stateful=False)
        return {
            name: tf.ensure_shape(value, spec.shape)
            for (name, spec), value in zip(_TENSORS.items(), values, strict=True)
        }

    return read


def read_serialized(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Reads the record at byte `offset` of a TFRecord file and verifies its checksum.

    Args:
        path: string `[]`, on any file system that TensorFlow supports.
        offset: int64 `[]`.

    Returns:
        A string tensor `[]`.

    Raises:
        tf.errors.OpError: when run on a damaged file, or at an offset that is not the beginning of a record.
    """
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path],
        compression_type="",
        buffer_size=tf.constant(_READ_BUFFER, tf.int64),
        byte_offsets=tf.reshape(offset, [1]),
    )
    return tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string)).take(1).get_single_element()


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses a serialised Example into the tensors that `example_reader` returns."""

    def numbers(dtype):
        return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

    features = {
        **{key: tf.io.FixedLenFeature([], tf.string, "") for key in (_ENCODED, _PATH)},
        _PROPOSALS: tf.io.FixedLenFeature([], tf.string),
        **{side: numbers(tf.float32) for side in _SIDES},
        **{key: numbers(tf.int64) for key in (_LABEL, _DIFFICULT, _CROWD)},
    }
    found = tf.io.parse_single_example(serialized, features)
    encoded = found[_ENCODED]
    has_bytes = tf.strings.length(encoded) > 0
    return {
        "image_bytes": tf.cond(has_bytes, lambda: encoded, lambda: tf.io.read_file(found[_PATH])),
        "proposals": tf.reshape(tf.io.decode_raw(found[_PROPOSALS], tf.float32), (-1, 4)),
        "boxes": tf.stack([found[side] for side in _SIDES], axis=-1),
        "class_ids": tf.cast(found[_LABEL], tf.int32),
        "difficult": tf.cast(found[_DIFFICULT], tf.bool),
        "crowd": tf.cast(found[_CROWD], tf.bool),
    }


def to_example(record: ImageRecord, class_names: Sequence[str]) -> bytes:
    """Serialises a record with proposals as an Example; without `image_bytes` it refers to the image file."""
    name = str(record.image_path).rpartition("/")[2]
    texts = {"image/source_id": [record.image_id], "image/filename": [name], _PATH: [str(record.image_path)]}
    texts[_NAME] = [class_names[label - 1] for label in record.class_ids]
    contents = {_PROPOSALS: record.proposals().astype("<f4").tobytes()}
    if record.image_bytes is not None:
        contents[_ENCODED] = record.image_bytes
        contents["image/format"] = b"png" if record.image_bytes.startswith(b"\x89PNG") else b"jpeg"
    if record.source_id is not None:
        contents[_SOURCE_ID] = json.dumps(record.source_id).encode()
    integers = {"image/height": [record.height], "image/width": [record.width], _LABEL: record.class_ids}
    integers |= {_DIFFICULT: record.difficult.astype(int), _CROWD: record.crowd.astype(int)}
    feature = {
        **{key: _bytes_feature([value.encode() for value in values]) for key, values in texts.items()},
        **{key: _bytes_feature([value]) for key, value in contents.items()},
        **{key: tf.train.Feature(int64_list=tf.train.Int64List(value=values)) for key, values in integers.items()},
        **{
            side: tf.train.Feature(float_list=tf.train.FloatList(value=values))
            for side, values in zip(_SIDES, record.boxes.T, strict=True)
        },
    }
    if record.areas is not None:
        pixels = record.areas.astype(float) * record.height * record.width
        feature[_AREA] = tf.train.Feature(float_list=tf.train.FloatList(value=pixels))
    if record.coco_objects is not None:
        feature[_COCO] = _bytes_feature([record.coco_objects.to_rows().astype("<f8").tobytes()])
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _bytes_feature(values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


_read_eagerly = tf.function(
    read_serialized,
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)],
    autograph=False,
)


def read_record(path: str, offset: int) -> ImageRecord:
    """Reads the `ImageRecord` at byte `offset` of a shard.

    Raises:
        InputError: if the file is missing, damaged or not a shard.
    """
    try:
        example = tf.train.Example.FromString(_read_eagerly(path, offset).numpy())
        return _to_record(example.features.feature)
    except tf.errors.NotFoundError:
        problem = "no such file"
    except (tf.errors.OpError, DecodeError, ValueError, IndexError, OverflowError) as error:
        problem = f"cannot read the image at byte {offset} ({type(error).__name__})"
    raise InputError(f"{path}: {problem}; expected a shard written by `prepare`; run `prepare` again")


def _to_record(feature):
    def text(key):
        return feature[key].bytes_list.value[0].decode()

    encoded = feature[_ENCODED].bytes_list.value
    height, width = (feature[f"image/{side}"].int64_list.value[0] for side in ("height", "width"))
    areas = np.array(feature[_AREA].float_list.value) / (height * width) if _AREA in feature else None
    coco = np.frombuffer(feature[_COCO].bytes_list.value[0], "<f8").reshape(-1, 8) if _COCO in feature else None
    return ImageRecord(
        image_id=text("image/source_id"),
        image_path=text(_PATH),
        height=height,
        width=width,
        boxes=np.stack([np.array(feature[side].float_list.value, np.float32) for side in _SIDES], axis=-1),
        class_ids=list(feature[_LABEL].int64_list.value),
        difficult=list(feature[_DIFFICULT].int64_list.value),
        crowd=list(feature[_CROWD].int64_list.value),
        proposal_boxes=np.frombuffer(feature[_PROPOSALS].bytes_list.value[0], "<f4").reshape(-1, 4),
        image_bytes=encoded[0] if encoded else None,
        areas=areas,
        coco_objects=None if coco is None else CocoObjects.from_rows(coco),
        source_id=json.loads(feature[_SOURCE_ID].bytes_list.value[0]) if _SOURCE_ID in feature else None,
    )


@contextlib.contextmanager
def input_errors(dataset: DetectionDataset) -> Iterator[None]:
    """Converts TensorFlow's errors while reading a data set to an `InputError` that names the file.

    TensorFlow's messages name neither image nor shard, so all images are read again to find it, as TensorFlow reads
    them.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if "IteratorGetNext" not in error.message:
            raise
        for record in tqdm(dataset, desc="looking for the damaged file", unit="image", delay=2):
            record.proposals()
            check_decodes(record)
        raise


def check_decodes(record: ImageRecord) -> None:
    """Raises an InputError that names the file if Pillow or TensorFlow cannot decode the image of a record."""
    record.image()
    try:
        decode_image(record.encoded_image())
    except tf.errors.OpError as error:
        raise InputError(
            f"{record.image_path}: TensorFlow cannot decode the image ({' '.join(error.message.split())[:120]}); "
            "expected a file that it reads; save the image again, or remove it"
        ) from None
