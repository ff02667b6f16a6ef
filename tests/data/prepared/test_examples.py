"""Records as Examples in TFRecord files, read in Python and in a graph."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.prepared.examples import PreparedRecords, example_reader, input_errors, read_record, to_example
from tf_fast_rcnn.data.records import CocoObjects, ImageRecord
from tf_fast_rcnn.errors import InputError

CLASS_NAMES = ("cat", "dög", "ox")
FIELDS = ("boxes", "class_ids", "difficult", "crowd")


def png(seed=0, height=4, width=6):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@st.composite
def records(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    objects, proposals = draw(st.integers(0, 5)), draw(st.integers(0, 40))
    corners = np.sort(rng.random((objects + proposals, 2, 2), np.float32), axis=1).reshape(-1, 4)
    return ImageRecord(
        image_id=draw(st.text(st.characters(exclude_categories=["Cs"]))),
        image_path="somewhere/" + draw(st.text("aü /.", max_size=5)),
        height=draw(st.integers(1, 2**31)),
        width=draw(st.integers(1, 2**31)),
        boxes=corners[:objects],
        class_ids=rng.integers(1, 4, objects),
        difficult=rng.integers(0, 2, objects),
        crowd=rng.integers(0, 2, objects),
        proposal_boxes=corners[objects:],
        image_bytes=png(rng.integers(100)),
        areas=rng.random(objects) if draw(st.booleans()) else None,
        coco_objects=coco_objects(rng) if draw(st.booleans()) else None,
    )


def coco_objects(rng):
    count = rng.integers(0, 4)
    windows = rng.normal(0, 1000, (count, 4))
    labels, crowd, objects = rng.integers(1, 4, count, np.int32), rng.random(count) < 0.5, rng.integers(-1, 5, count)
    return CocoObjects(windows, rng.random(count), labels, crowd, objects)


def written(path, images):
    """A data set with these records in one shard."""
    examples = [to_example(record, CLASS_NAMES) for record in images]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)
    shard = PreparedRecords([str(path)], [[len(example) for example in examples]], len(CLASS_NAMES))
    return DetectionDataset("written", CLASS_NAMES, shard, proposals="some")


def read_in_graph(dataset, numbers=None):
    numbers = np.arange(len(dataset)) if numbers is None else np.asarray(numbers, np.int64)
    return list(tf.data.Dataset.from_tensor_slices(numbers).map(example_reader(dataset)).as_numpy_iterator())


def assert_example_is(example, record):
    assert example["image_bytes"] == record.encoded_image()
    np.testing.assert_array_equal(example["proposals"], record.proposals())
    for name in FIELDS:
        np.testing.assert_array_equal(example[name], getattr(record, name))
        assert example[name].dtype == getattr(record, name).dtype


@settings(deadline=None, max_examples=12)
@given(images=st.lists(records(), min_size=1, max_size=4), data=st.data())
def test_every_value_comes_back(tmp_path_factory, images, data):
    path = tmp_path_factory.mktemp("shard") / "x.tfrecord"
    dataset = written(path, images)
    order = data.draw(st.lists(st.integers(0, len(images) - 1), min_size=1, max_size=6))
    for found, number in zip(read_in_graph(dataset, order), order, strict=True):
        assert_example_is(found, images[number])
        record = dataset[number]
        for name in ("image_id", "image_path", "height", "width", "image_bytes"):
            assert getattr(record, name) == getattr(images[number], name)
        np.testing.assert_array_equal(record.proposals(), images[number].proposals())
        assert (record.areas is None) == (images[number].areas is None)
        if record.areas is not None:
            np.testing.assert_allclose(record.areas, images[number].areas, rtol=1e-6)
        assert (record.coco_objects is None) == (images[number].coco_objects is None)
        for column, expected in zip(record.coco_objects or (), images[number].coco_objects or (), strict=True):
            np.testing.assert_array_equal(column, expected)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(record, name), getattr(images[number], name))


def some_records(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        ImageRecord(
            f"{seed}-{number}",
            "nowhere.png",
            4,
            6,
            np.tile([0, 0, 0.5, 0.5], (number + 1, 1)),
            rng.integers(1, 4, number + 1),
            rng.integers(0, 2, number + 1),
            proposal_boxes=rng.random((number, 4)),
            image_bytes=png(number + 10 * seed),
        )
        for number in range(count)
    ]


def test_an_image_may_be_left_in_its_file(tmp_path):
    (tmp_path / "a.png").write_bytes(png(3))
    image = dataclasses.replace(some_records(1)[0], image_bytes=None, image_path=str(tmp_path / "a.png"))
    dataset = written(tmp_path / "x.tfrecord", [image])
    assert dataset[0].image_bytes is None
    assert dataset[0].image_path == str(tmp_path / "a.png")
    assert_example_is(read_in_graph(dataset)[0], image)


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_graph_reads_unions_slices_and_other_classes_as_python_does(tmp_path, in_memory):
    first = written(tmp_path / "first.tfrecord", some_records(4))
    second = written(tmp_path / "second.tfrecord", some_records(3, seed=1))
    if in_memory:
        second = second.with_records(list(second))
    names = ["ox", "beast"]
    view = first[1:].relabelled(names, [2, 0, 1]) + second[np.array([2, 0])].relabelled(names, [0, 2, 2])
    view = view[::-1].with_class_names(["beast", "ant", "ox"])
    found = read_in_graph(view)
    assert [len(example["class_ids"]) for example in found] != [len(record.class_ids) for record in [*second, *first]]
    for example, record in zip(found, view, strict=True):
        assert_example_is(example, record)
    for label, name in [(1, "beast"), (3, "ox")]:
        count = sum(np.sum(example["class_ids"] == label) for example in found)
        members = {"beast": [(first[1:], 1), (second[::2], 2), (second[::2], 3)], "ox": [(first[1:], 3)]}[name]
        assert count == sum(np.sum(record.class_ids == old) for part, old in members for record in part) > 0


def test_images_that_are_not_plain_are_converted_for_the_graph(tmp_path):
    Image.new("CMYK", (6, 4), (0, 200, 0, 0)).save(tmp_path / "cmyk.jpg")
    image = ImageRecord("a", str(tmp_path / "cmyk.jpg"), 4, 6, [], [], [], proposal_boxes=[])
    (example,) = read_in_graph(DetectionDataset("in memory", CLASS_NAMES, [image]))
    np.testing.assert_array_equal(tf.io.decode_image(example["image_bytes"]), image.image())


def damaged(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("where", ["length", "data", "end"])
def test_a_damaged_record_is_told_by_its_shard(tmp_path, where):
    path = tmp_path / "x.tfrecord"
    dataset = written(path, some_records(3))
    begin, end = dataset.records.sources[0].offsets[1:]
    if where == "end":
        path.write_bytes(path.read_bytes()[: end - 5])
    else:
        damaged(path, begin + {"length": 2, "data": 90}[where])
    assert dataset[0].image_id == "0-0"
    with pytest.raises(InputError, match=rf"^{path}: cannot read the image at byte {begin} ") as caught:
        dataset[1]
    assert "\n" not in str(caught.value)
    # TensorFlow's error does not name the file; all images are read again to find it.
    with pytest.raises(InputError, match=rf"^{path}: cannot read the image at byte {begin} "), input_errors(dataset):
        read_in_graph(dataset)


def test_files_that_vanished_or_changed_are_told(tmp_path):
    (tmp_path / "a.png").write_bytes(png(3))
    image = dataclasses.replace(some_records(1)[0], image_bytes=None, image_path=str(tmp_path / "a.png"))
    dataset = written(tmp_path / "x.tfrecord", [image])
    images = tf.data.Dataset.range(1).map(example_reader(dataset)).map(lambda x: tf.io.decode_image(x["image_bytes"]))
    for spoil in (lambda path: path.write_bytes(png(3)[:60]), lambda path: path.unlink()):
        spoil(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"a\.png: (cannot read the image|no such file)"), input_errors(dataset):
            list(images)
    (tmp_path / "x.tfrecord").unlink()
    with pytest.raises(InputError, match=r"x\.tfrecord: no such file"), input_errors(dataset):
        list(images)


def test_errors_of_records_in_memory_are_told(tmp_path):
    image = dataclasses.replace(some_records(1)[0], image_bytes=None, image_path=str(tmp_path / "none.png"))
    dataset = DetectionDataset("in memory", CLASS_NAMES, [image])
    with pytest.raises(InputError, match=r"none\.png: no such file"), input_errors(dataset):
        read_in_graph(dataset)


def test_errors_that_are_not_the_datas_stay_as_they_are(tmp_path):
    dataset = written(tmp_path / "x.tfrecord", some_records(1))
    with pytest.raises(tf.errors.InvalidArgumentError), input_errors(dataset):
        tf.reshape([1, 2], [3])
    broken = tf.data.Dataset.range(1).map(lambda index: tf.reshape(tf.range(index), [3]))
    with pytest.raises(tf.errors.InvalidArgumentError), input_errors(dataset):
        list(broken)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda feature: feature.pop("image/proposals"),
        lambda feature: feature.pop("image/height"),
        lambda feature: feature["image/proposals"].bytes_list.value.__setitem__(0, b"12345"),
        lambda feature: feature["image/source_id"].bytes_list.value.__setitem__(0, b"\xff"),
        lambda feature: feature["image/object/bbox/ymin"].float_list.value.append(0.5),
        lambda feature: feature["image/object/class/label"].int64_list.value.append(1),
        lambda feature: feature["image/object/class/label"].int64_list.value.__setitem__(0, 4),
        lambda feature: feature["image/object/class/label"].int64_list.value.__setitem__(0, 2**40),
    ],
)
def test_examples_that_break_the_format_give_one_line(tmp_path, spoil):
    example = tf.train.Example.FromString(to_example(some_records(1)[0], CLASS_NAMES))
    spoil(example.features.feature)
    serialized = example.SerializeToString()
    with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
        writer.write(serialized)
    shard = PreparedRecords([str(tmp_path / "x.tfrecord")], [[len(serialized)]], len(CLASS_NAMES))
    with pytest.raises(InputError, match=r"x\.tfrecord: (found|cannot read)") as caught:
        shard[0]
    assert "\n" not in str(caught.value)


def test_what_is_no_example_gives_one_line(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
        writer.write(b"\xff" * 40)
    for offset in (0, 7, 1000, -1):
        with pytest.raises(InputError, match=rf"x\.tfrecord: cannot read the image at byte {offset} "):
            read_record(str(tmp_path / "x.tfrecord"), offset)
