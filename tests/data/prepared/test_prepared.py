"""The prepared format: reading it with other programs and from other file systems, damage, and many images."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, InputError
from tf_fast_rcnn.data.batches.hierarchical import hierarchical_batches
from tf_fast_rcnn.data.images import encode_png
from tf_fast_rcnn.data.prepared.read import manifest_checksum, read_prepared, verify_prepared
from tf_fast_rcnn.data.prepared.write import cached_proposals, prepare
from tf_fast_rcnn.data.proposals import DenseBoxes, ProposalSettings, compute_proposals
from tf_fast_rcnn.demo.digits import CLASS_NAMES
from tf_fast_rcnn.inference.detect import detect_dataset

DOCS = Path(__file__).parents[3] / "docs" / "prepared_data.md"
TINY_SIDES = {"shorter_side": 96, "longer_side": 144}


@pytest.fixture
def source(digits):
    return frcnn.load_dataset(f"voc:{digits}@train", CLASS_NAMES)


@pytest.fixture
def proposals(prepared_digits):
    return prepared_digits[0].proposals


@pytest.fixture
def folder(source, proposals, tmp_path):
    """A prepared folder of 8 images in 3 shards."""
    prepare(source, tmp_path / "prepared", proposals, workers=1, progress=False, images_per_shard=3)
    return tmp_path / "prepared"


def batches_of(dataset, number, **options):
    return list(hierarchical_batches(dataset, 2, 16, **TINY_SIDES, **options).take(number).as_numpy_iterator())


def assert_equal_batches(first, second):
    assert len(first) == len(second) > 0
    tf.nest.map_structure(np.testing.assert_array_equal, first, second)


def in_memory(source, proposals):
    records = [
        dataclasses.replace(record, proposal_boxes=compute_proposals(record.image(), proposals)) for record in source
    ]
    return frcnn.DetectionDataset("in memory", source.class_names, records, proposals=proposals)


@pytest.mark.parametrize("start", [0, 3])
def test_mini_batches_do_not_depend_on_how_the_data_are_stored(source, proposals, folder, tmp_path, start):
    cached = cached_proposals(source, proposals, cache_dir=tmp_path / "cache", workers=1, progress=False)
    expected = batches_of(in_memory(source, proposals), 6, seed=5)[start:]
    for dataset in (read_prepared(folder), cached):
        assert_equal_batches(batches_of(dataset, 6 - start, seed=5, start=start), expected)


def copy_to_memory(folder, name):
    """The folder in TensorFlow's in-memory file system, which only tf.io can read."""
    target = f"ram://{name}"
    tf.io.gfile.makedirs(target)
    for path in folder.iterdir():
        tf.io.gfile.copy(str(path), f"{target}/{path.name}", overwrite=True)
    return target


def test_training_and_evaluation_need_no_original_files_and_any_file_system(
    digits, proposals, tiny_recipe, tiny_backbone, tmp_path
):
    data = shutil.copytree(digits, tmp_path / "digits")
    for split in ("train", "test"):
        dataset = frcnn.load_dataset(f"voc:{data}@{split}", CLASS_NAMES)
        frcnn.prepare(dataset, tmp_path / split, proposals, workers=1, progress=False)
    shutil.rmtree(data)
    train, test = (
        frcnn.load_dataset(f"prepared:{copy_to_memory(tmp_path / split, split)}") for split in ("train", "test")
    )
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / split)
    recipe = dataclasses.replace(tiny_recipe, steps=2)
    summary = frcnn.train(train, tmp_path / "run", recipe=recipe, backbone=tiny_backbone, progress=False)
    assert (summary.steps, np.isfinite(summary.loss)) == (2, True)
    run = frcnn.load_run(tmp_path / "run")
    result = frcnn.evaluate(run.model, test, "coco", settings=DetectionSettings(**TINY_SIDES), progress=False)
    assert result.num_images == 4
    assert sum(row.num_objects for row in result.classes) == sum(len(record.class_ids) for record in test)


def test_a_folder_in_another_file_system_may_be_verified_and_joined(folder):
    remote = copy_to_memory(folder, "joined")
    verify_prepared(remote)
    union = frcnn.load_dataset(f"prepared:{remote}+prepared:{folder}")
    assert union.proposals == read_prepared(folder).proposals
    twice = [*read_prepared(folder)] * 2
    assert [record.image_id for record in union] == [record.image_id for record in twice]
    found = batches_of(union, 8)
    assert_equal_batches(found, batches_of(union.with_records(twice), 8))


def test_another_program_reads_the_shards_as_the_documentation_says(folder):
    """The documentation's example, in a process that does not import this package."""
    (code,) = re.findall(r"```python\n(import json.*?)```", DOCS.read_text(), re.DOTALL)
    assert "tf_fast_rcnn" not in code
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    expected = [
        [
            record.image_id,
            *map(str, record.image().shape),
            str(len(record.proposals())),
            *(CLASS_NAMES[label - 1] for label in record.class_ids),
        ]
        for record in read_prepared(folder)
    ]
    assert [line.split(" ") for line in done.stdout.splitlines()] == expected


def test_the_documentation_has_every_key(folder):
    text = DOCS.read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    (serialized,) = tf.data.TFRecordDataset(str(folder / manifest["shards"][0]["file"])).take(1)
    features = tf.train.Example.FromString(serialized.numpy()).features.feature
    for key in [*manifest, *manifest["statistics"], *manifest["shards"][0], *features]:
        name = key.rpartition("/")[2] if "bbox" in key else key
        assert f"`{name}`" in text or f"/{name}`" in text, key


# --- damage -----------------------------------------------------------------------------------------------------------


def read_everything(folder):
    """Reads everything in Python; damage must be reported in one line."""
    dataset = read_prepared(folder)
    return [(record.image_id, record.image().sum(), record.proposals().sum()) for record in dataset]


def refused(folder):
    with pytest.raises(InputError) as caught:
        read_everything(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_damaged_files_give_one_line(mutable_folder, data):
    expected, path = data.draw(st.sampled_from(mutable_folder))
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    new = data.draw(st.one_of(st.binary(max_size=3), st.just(original[position : position + 1] * 2)))
    removed = data.draw(st.sampled_from([0, 1, len(new), len(original)]))
    path.write_bytes(original[:position] + new + original[position + removed :])
    try:
        if path.suffix == ".json":
            try:  # Changing spaces, for example, has no effect.
                same = json.loads(path.read_bytes()) == json.loads(original)
            except ValueError:
                same = False
        else:
            same = path.read_bytes() == original
        if same:
            assert read_everything(path.parent) == expected
        else:
            assert str(path) in refused(path.parent)
    finally:
        path.write_bytes(original)


@pytest.fixture(scope="module")
def mutable_folder(tmp_path_factory):
    """The contents of a prepared folder and of each file, which are restored after each example of hypothesis."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("prepared")
    records = [
        frcnn.ImageRecord(
            f"image {number}",
            "a.png",
            5,
            7,
            [[0, 0, 1, 0.5]],
            [1],
            [False],
            image_bytes=encode_png(rng.integers(0, 256, (5, 7, 3), np.uint8)),
        )
        for number in range(4)
    ]
    dataset = frcnn.DetectionDataset("fuzzed", ["cat"], records)
    dense = ProposalSettings(dense=DenseBoxes(((0.5, 0.5),), 0.4), min_size=0.1)
    prepare(dataset, folder, dense, workers=1, progress=False, images_per_shard=2)
    expected = read_everything(folder)
    return [(expected, path) for path in sorted(folder.glob("[!.]*"))]


def with_checksum(path, manifest):
    path.write_text(json.dumps({**manifest, "checksum": manifest_checksum(manifest)}))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_manifests_that_break_the_format_give_one_line(mutable_folder, data):
    """Any value in any place, with a correct checksum."""
    path = mutable_folder[0][1]
    original = path.read_text()
    manifest = json.loads(original)
    place = data.draw(st.sampled_from([manifest, *manifest["shards"], manifest["settings"]]))
    key = data.draw(st.sampled_from(sorted(place)))
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    value = data.draw(st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
    place[key] = value
    try:
        with_checksum(path, manifest)
        try:
            read_everything(path.parent)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
    finally:
        path.write_text(original)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"version": 1}, "version 1; expected a prepared data set of version 2"),
        ({"format": "other"}, "another kind of file"),
        ({"class_names": ["cat"]}, "a class id of image .* outside 1..1"),
        ({"class_names": [1]}, "class names that are not text"),
        ({"settings": None}, "proposal settings: found TypeError"),
        ({"shards": 3}, "TypeError"),
        ({"shards": [{}]}, "KeyError"),
    ],
)
def test_manifests_of_another_kind(folder, changes, found):
    path = folder / "manifest.json"
    with_checksum(path, {**json.loads(path.read_text()), **changes})
    assert re.search(found, refused(folder))


def test_a_changed_manifest_is_noticed(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "class_names": list("9876543210")}))
    assert "manifest.json: found content that does not match its checksum" in refused(folder)
    path.write_text("[" * 100_000)
    assert "found invalid JSON" in refused(folder)
    path.unlink()
    assert "found no manifest.json; expected a folder that `prepare` has finished" in refused(folder)


def test_missing_and_truncated_shards_are_found_at_once(folder):
    shard = sorted(folder.glob("*.tfrecord"))[2]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{shard.name}: found {len(content) - 1} bytes; expected {len(content)}"):
        read_prepared(folder)
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: no such file"):
        read_prepared(folder)


def test_verifying_finds_a_changed_byte(folder):
    verify_prepared(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = folder / manifest["shards"][1]["file"]
    content = bytearray(shard.read_bytes())
    content[50] ^= 4
    shard.write_bytes(content)
    with pytest.raises(InputError, match=rf"{shard.name}: found SHA-256 [0-9a-f]+\.\.\.; expected") as caught:
        verify_prepared(folder)
    assert "\n" not in str(caught.value)


def test_damage_stops_training_and_detection_with_one_line(
    folder, tiny_run, tiny_recipe, tiny_backbone, tiny_model, tmp_path
):
    dataset = read_prepared(folder)
    shard = Path(dataset.records.sources[0].paths[1])
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    message = rf"^{shard}: cannot read the image at byte \d+ \(DataLossError\); expected a shard written by `prepare`"
    with pytest.raises(InputError, match=message):  # With statistics of another run, no image is read before.
        frcnn.train(
            dataset, tmp_path / "run", recipe=tiny_recipe, backbone=tiny_backbone, weights=tiny_run[0], progress=False
        )
    with pytest.raises(InputError, match=message):
        list(detect_dataset(tiny_model, dataset, DetectionSettings(**TINY_SIDES), progress=False))


# --- memory -----------------------------------------------------------------------------------------------------------

# Images and proposals of 80 kB each are created on demand, prepared, and read in Python and in a graph.
MEMORY = """
import collections.abc, resource, sys
import numpy as np
import tensorflow as tf
from tf_fast_rcnn.data.prepared.examples import example_reader
from tf_fast_rcnn.data.images import encode_png
from tf_fast_rcnn.data.prepared.write import prepare
from tf_fast_rcnn.data.prepared.read import read_prepared
from tf_fast_rcnn.data.proposals import ProposalSettings
from tf_fast_rcnn.data.proposals.dense import DenseBoxes
from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.records import ImageRecord

class Images(collections.abc.Sequence):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
        return ImageRecord(str(index), "a.png", 64, 64, [[0, 0, 1, 1]], [1], [False], image_bytes=encode_png(pixels))

class Proposals:
    def to_json(self):
        return ProposalSettings(dense=DenseBoxes(((0.5, 0.5),), 0.4)).to_json()

    def of(self, record):
        return np.zeros((4200, 4), np.float32)

def peak_after(count):
    folder = f"{sys.argv[1]}/{count}"
    prepare(DetectionDataset("made", ["cat"], Images(count)), folder, Proposals(), workers=1, progress=False)
    dataset = read_prepared(folder)
    assert sum(len(record.proposals()) for record in dataset) == 4200 * count
    images = tf.data.Dataset.range(count).map(example_reader(dataset), num_parallel_calls=2).prefetch(2)
    assert sum(len(example["image_bytes"]) > 12_000 for example in images.as_numpy_iterator()) == count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

print(-peak_after(200) + peak_after(1700))
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """1500 more images with a total of 120 MB."""
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True, check=True)
    assert sum(path.stat().st_size for path in tmp_path.glob("1700/*.tfrecord")) > 130e6
    assert float(done.stdout.split()[-1]) < 40
