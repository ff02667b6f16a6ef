"""TFRecords of the TensorFlow Object Detection API."""

import numpy as np
import pytest
import tensorflow as tf
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.tfrecord import read_tfrecord


def feature(values):
    values = values if isinstance(values, list) else [values]
    if all(isinstance(value, float) for value in values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    if all(isinstance(value, int) for value in values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    values = [value.encode() if isinstance(value, str) else value for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def example(folder, name, boxes=(), text=(), **more):
    path = write_image(folder / "source" / name)
    sides = dict(zip(("ymin", "xmin", "ymax", "xmax"), map(list, zip(*boxes, strict=True)), strict=False))
    features = {
        "image/height": 40,
        "image/width": 60,
        "image/filename": name,
        "image/source_id": name,
        "image/encoded": path.read_bytes(),
        "image/format": "png",
        "image/object/class/text": list(text),
        **{f"image/object/bbox/{side}": values for side, values in sides.items()},
        **more,
    }
    return tf.train.Example(
        features=tf.train.Features(feature={key: feature(value) for key, value in features.items()})
    ).SerializeToString()


def write(path, *records, options=None):
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)
    return path


def read(path, tmp_path, **options):
    return read_tfrecord(path, cache_dir=tmp_path / "cache", progress=False, **options)


BOXES = [(0.25, 0.1, 0.5125, 0.5), (0.0, 0.0, 0.5, 0.5)]


def test_records(tmp_path):
    flags = {
        "image/object/difficult": [1, 0],
        "image/object/is_crowd": [0, 1],
        "image/object/area": [100.0, 600.0],
    }
    path = write(
        tmp_path / "train.tfrecord",
        example(tmp_path, "a.png", BOXES, ["cat", "dog"], **flags),
        example(tmp_path, "b.png"),
    )
    for _ in range(2):  # written to the cache, then read from it
        dataset = read(path, tmp_path)
        assert dataset.class_names == ("cat", "dog")
        assert [record.image_id for record in dataset] == ["a", "b"]
        np.testing.assert_array_equal(dataset[0].boxes, np.float32(BOXES))
        assert dataset[0].difficult.tolist() == [True, False]
        assert dataset[0].crowd.tolist() == [False, True]
        np.testing.assert_allclose(dataset[0].areas, [100 / 2400, 600 / 2400])
        assert len(dataset[1].boxes) == 0
        assert dataset[0].image().shape == (40, 60, 3)
    assert dataset.name == f"tfrecord:{path}"


def test_patterns_and_compression(tmp_path):
    write(tmp_path / "x.tfrecord-00000-of-00002", example(tmp_path, "a.png", BOXES[:1], ["cat"]))
    write(tmp_path / "x.tfrecord-00001-of-00002", example(tmp_path, "b.png"))
    assert [record.image_id for record in read(f"{tmp_path}/x.tfrecord-*", tmp_path)] == ["a", "b"]
    packed = write(tmp_path / "y.tfrecord.gz", example(tmp_path, "a.png", BOXES[:1], ["cat"]), options="GZIP")
    assert [record.image_id for record in read(packed, tmp_path)] == ["a"]


def test_numbers_of_classes_and_the_label_map(tmp_path):
    numbers = {"image/object/class/label": [2], "image/object/class/text": []}
    path = write(tmp_path / "a.tfrecord", example(tmp_path, "a.png", BOXES[:1], **numbers))
    assert read(path, tmp_path).class_names == ("2",)
    (tmp_path / "label_map.pbtxt").write_text("item {\n  id: 2\n  name: 'dog'\n}\nitem { name: \"cat\" id: 1 }\n")
    dataset = read(path, tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset[0].class_ids.tolist() == [2]
    (tmp_path / "label_map.pbtxt").write_text("item { id: 2 }")
    one_line_error(lambda: read(path, tmp_path), "label_map.pbtxt", "without id or name")


def test_the_same_name_twice(tmp_path):
    path = write(tmp_path / "a.tfrecord", *[example(tmp_path, "a.png", BOXES[:1], ["cat"])] * 2)
    assert [record.image_id for record in read(path, tmp_path)] == ["00000000", "00000001"]


@pytest.mark.parametrize(
    ("change", "patterns"),
    [
        ({"image/encoded": 5}, ["example 0", "image/encoded"]),
        ({"image/object/class/text": []}, ["example 0", "of equal length"]),
        ({"image/object/bbox/xmax": [0.5]}, ["of equal length"]),
        ({"image/height": 41}, ["60x41", "60x40"]),
        ({"image/encoded": b"\x89PNG"}, ["cannot read the image"]),
    ],
)
def test_bad_examples_are_one_line(tmp_path, change, patterns):
    features = example(tmp_path, "a.png", BOXES, ["cat", "dog"], **change)
    path = write(tmp_path / "a.tfrecord", features)
    one_line_error(lambda: read(path, tmp_path), *patterns)


def test_other_files(tmp_path):
    one_line_error(lambda: read(tmp_path / "none.tfrecord", tmp_path), "no such file")
    (tmp_path / "a.tfrecord").write_bytes(b"this is not a file of records")
    one_line_error(lambda: read(tmp_path / "a.tfrecord", tmp_path), "cannot read the examples")
    write(tmp_path / "b.tfrecord", b"\xff\xff")
    one_line_error(lambda: read(tmp_path / "b.tfrecord", tmp_path), "cannot read the examples")
    write(tmp_path / "c.tfrecord")
    one_line_error(lambda: read(tmp_path / "c.tfrecord", tmp_path), "no examples")
