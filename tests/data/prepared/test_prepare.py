import contextlib
import dataclasses
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.images import read_image
from tf_fast_rcnn.data.network_input import decode_image
from tf_fast_rcnn.data.prepared import workers
from tf_fast_rcnn.data.prepared.read import read_manifest, read_prepared
from tf_fast_rcnn.data.prepared.write import cached_proposals, prepare
from tf_fast_rcnn.data.proposals import compute_proposals
from tf_fast_rcnn.data.proposals.dense import DenseBoxes
from tf_fast_rcnn.data.proposals.settings import ProposalSettings
from tf_fast_rcnn.data.readers.voc import read_voc
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import PARTIAL_PREFIX

DENSE = ProposalSettings(dense=DenseBoxes(((0.5, 0.5), (1.0, 1.2)), 0.4), min_size=0.1)
BOTH = ProposalSettings(selective_search="fast", dense=DENSE.dense, min_size=0.1)


def run(dataset, out, settings=DENSE, workers=1, **options):
    return prepare(dataset, out, settings, workers=workers, progress=False, **options)


def assert_same_records(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in ("image_id", "height", "width"):
            assert getattr(one, name) == getattr(other, name)
        np.testing.assert_array_equal(one.image(), other.image())
        for name in ("boxes", "class_ids", "difficult", "crowd"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.proposals(), other.proposals())


def touched(path):
    """The modification time of each shard."""
    return {file.name: file.stat().st_mtime_ns for file in path.glob("shard-*.tfrecord")}


@pytest.fixture
def computed(monkeypatch):
    """The mean colours of the images whose proposals are computed in this process."""
    seen = []

    def compute(image, settings):
        seen.append(image.mean())
        return compute_proposals(image, settings)

    monkeypatch.setattr(workers, "compute_proposals", compute)
    return seen


@pytest.fixture
def cats(voc_folder):
    return read_voc(voc_folder.simple(3).path, "train")


@pytest.mark.parametrize("workers", [1, 2])
def test_proposals_are_those_of_each_image(cats, tmp_path, workers):
    prepared = run(cats, tmp_path / "out", BOTH, workers)
    assert [record.image_id for record in prepared] == ["a0", "a1", "a2"]
    for record in prepared:
        np.testing.assert_array_equal(record.proposals(), compute_proposals(read_image(record.image_path), BOTH))


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_follow_the_order_of_the_images(voc_folder, tmp_path, workers):
    dataset = read_voc(voc_folder.simple(7).path, "train")
    prepared = run(dataset, tmp_path / "out", workers=workers, images_per_shard=3)
    assert_same_records(prepared, run(dataset, tmp_path / "one"))
    shards = read_manifest(tmp_path / "out")["shards"]
    assert [len(shard["record_bytes"]) for shard in shards] == [3, 3, 1]
    assert [shard["file"][:11] for shard in shards] == ["shard-00000", "shard-00001", "shard-00002"]
    assert sorted(touched(tmp_path / "out")) == [shard["file"] for shard in shards]


def test_the_folder_reads_back_the_same(cats, tmp_path):
    prepared = run(cats, tmp_path / "out", BOTH)
    again = read_prepared(tmp_path / "out")
    assert_same_records(prepared, again)
    assert again.class_names == cats.class_names
    assert again.name == f"prepared:{tmp_path / 'out'}"
    assert prepared.proposals == again.proposals == BOTH
    np.testing.assert_array_equal(again.records.image_sizes(), [[record.height, record.width] for record in cats])
    assert not list((tmp_path / "out").glob(f"{PARTIAL_PREFIX}*"))


def test_counts_of_fixes_are_kept(voc_folder, tmp_path):
    voc_folder.simple(1)
    voc_folder.annotation("a0", [("cat", 1, 1, 99, 20), ("cat", 6, 5, 5, 9)])
    run(read_voc(voc_folder.path, "train"), tmp_path / "out")
    assert read_prepared(tmp_path / "out").fixes == {
        "boxes clipped to their image": 1,
        "boxes without area dropped": 1,
    }


def test_images_that_tensorflow_would_decode_otherwise_become_png(voc_folder, tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    voc_folder.image("turned.jpg", exif=tags)
    voc_folder.image("plain.jpg")
    Image.new("CMYK", (60, 40), (0, 200, 0, 0)).save(voc_folder.path / "JPEGImages" / "cmyk.jpg")
    for image_id in ("turned", "plain", "cmyk"):
        voc_folder.annotation(image_id, size=None)
    voc_folder.split("train", "turned\nplain\ncmyk\n")
    source = read_voc(voc_folder.path, "train")
    for prepared in (run(source, tmp_path / "out"), cached(source, tmp_path)):
        for before, after in zip(source, prepared, strict=True):
            np.testing.assert_array_equal(decode_image(after.encoded_image()), before.image())
            if before.image_id == "plain":
                assert after.encoded_image() == Path(before.image_path).read_bytes()
            else:
                assert after.image_bytes.startswith(b"\x89PNG")


def test_a_folder_can_be_moved_and_needs_no_original_files(voc_folder, cats, tmp_path):
    expected = list(run(cats, tmp_path / "out"))
    shutil.rmtree(voc_folder.path)
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert_same_records(read_prepared(moved), expected)


def test_nothing_is_computed_twice(cats, tmp_path, computed):
    run(cats[:2], tmp_path / "out", images_per_shard=1)
    first = touched(tmp_path / "out")
    prepared = run(cats, tmp_path / "out", images_per_shard=1)
    second = touched(tmp_path / "out")
    assert (len(prepared), len(second), len(computed)) == (3, 3, 3)
    assert second.items() >= first.items()
    run(cats, tmp_path / "out", images_per_shard=1)
    assert touched(tmp_path / "out") == second


def test_a_changed_image_is_computed_again_and_its_old_shard_removed(cats, tmp_path, computed):
    run(cats, tmp_path / "out", BOTH, images_per_shard=2)
    before = touched(tmp_path / "out")
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[5:25, 10:40] = 255
    Image.fromarray(pixels).save(cats[1].image_path)
    computed.clear()
    after = run(cats, tmp_path / "out", BOTH, images_per_shard=2)
    assert computed == [pixels.mean()]
    np.testing.assert_array_equal(after[1].proposals(), compute_proposals(pixels, BOTH))
    np.testing.assert_array_equal(after[1].image(), pixels)
    assert len(set(before) & set(touched(tmp_path / "out"))) == 1
    assert len(touched(tmp_path / "out")) == 2


def test_changed_annotations_and_orders_do_not_compute_anything(voc_folder, cats, tmp_path, computed):
    run(cats, tmp_path / "out", BOTH, images_per_shard=2)
    voc_folder.annotation("a1", [("cat", 1, 1, 60, 40), ("cat", 1, 1, 30, 40)])
    voc_folder.split("train", "a2\na1\na0\n")
    computed.clear()
    changed = read_voc(voc_folder.path, "train")
    again = run(changed, tmp_path / "out", BOTH, images_per_shard=2)
    assert computed == []
    assert [record.image_id for record in again] == ["a2", "a1", "a0"]
    assert_same_records(again, run(changed, tmp_path / "fresh", BOTH))
    assert len(touched(tmp_path / "out")) == 2


def test_a_damaged_shard_is_written_again(cats, tmp_path):
    expected = list(run(cats, tmp_path / "out", images_per_shard=1))
    shards = sorted((tmp_path / "out").glob("*.tfrecord"))
    truncate(shards[0])
    remove(shards[1])
    assert_same_records(run(cats, tmp_path / "out", images_per_shard=1), expected)


def test_changed_settings_and_annotations_are_taken_up(voc_folder, cats, tmp_path):
    run(cats, tmp_path / "out", BOTH)
    voc_folder.annotation("a1", [("cat", 1, 1, 60, 40), ("dog", 1, 1, 30, 40)])
    run(read_voc(voc_folder.path, "train"), tmp_path / "out", DENSE)
    again = read_prepared(tmp_path / "out")
    assert again.class_names == ("cat", "dog")
    assert again[1].class_ids.tolist() == [1, 2]
    np.testing.assert_array_equal(again[0].proposals(), compute_proposals(cats[0].image(), DENSE))
    assert again.proposals == DENSE


def test_statistics_are_those_of_the_records(voc_folder, tmp_path):
    voc_folder.simple(3)
    voc_folder.annotation("a1", [("cat", 1, 1, 60, 40), ("dog", 3, 3, 5, 5)])
    prepared = run(read_voc(voc_folder.path, "train"), tmp_path / "out", images_per_shard=2)
    found = {"cat": [], "dog": []}
    for record in prepared:
        for box, label in zip(record.boxes, record.class_ids, strict=True):
            best = max(naive_iou(box, proposal) for proposal in record.proposals())
            found[("cat", "dog")[label - 1]].append(best >= 0.5)
    assert read_manifest(tmp_path / "out")["statistics"] == {
        "images": 3,
        "objects": {"cat": 3, "dog": 1},
        "proposals_per_image": np.mean([len(record.proposals()) for record in prepared]),
        "recall_at_iou_0.5": {name: np.mean(hits) for name, hits in found.items()},
    }
    assert {True, False} == {hit for hits in found.values() for hit in hits}


def naive_iou(one, other):
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    if height <= 0 or width <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return height * width / (areas - height * width)


class GivenProposals:
    """Proposals that are looked up instead of computed."""

    def __init__(self, proposals):
        self.proposals = proposals

    def to_json(self):
        return DENSE.to_json()

    def of(self, record):
        return self.proposals[record.image_id]


def test_proposals_may_be_looked_up(cats, tmp_path):
    given = {f"a{number}": np.full((number, 4), 0.25, np.float32) for number in range(3)}
    for prepared in (run(cats, tmp_path / "out", GivenProposals(given)), cached(cats, tmp_path, GivenProposals(given))):
        for record in prepared:
            np.testing.assert_array_equal(record.proposals(), given[record.image_id])


def test_prepared_data_can_be_prepared_again(cats, tmp_path):
    first = run(cats, tmp_path / "first", images_per_shard=2)
    both = run(cats[:1] + read_prepared(tmp_path / "first")[1:], tmp_path / "both", BOTH)
    assert_same_records(both, run(cats, tmp_path / "expected", BOTH))
    assert len(first[0].proposals()) < len(both[0].proposals())


def test_a_folder_of_another_data_set_is_refused(voc_folder, cats, tmp_path):
    run(cats, tmp_path / "out")
    voc_folder.split("val", "a0\n")
    with pytest.raises(InputError, match=r"found the prepared data set voc:.*@train; expected voc:.*@val"):
        run(read_voc(voc_folder.path, "val"), tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match="found another kind of file"):
        run(cats, tmp_path / "out")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path):
    path.unlink()


def resize(path):
    Image.new("RGB", (61, 40)).save(path)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [(truncate, "cannot read the image"), (remove, "no such file"), (resize, "found 61x40 pixels; expected 60x40")],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_image_is_named_or_skipped_and_counted(voc_folder, tmp_path, spoil, found, workers):
    dataset = read_voc(voc_folder.simple(3).path, "train")
    spoil(voc_folder.path / "JPEGImages" / "a1.png")
    with pytest.raises(InputError, match=rf"a1\.png: {found}") as caught:
        run(dataset, tmp_path / "out", workers=workers)
    assert "\n" not in str(caught.value)
    prepared = run(dataset, tmp_path / "out", workers=workers, skip_bad=True)
    assert [record.image_id for record in prepared] == ["a0", "a2"]
    assert prepared.fixes == {"unreadable images skipped": 1}
    assert read_prepared(tmp_path / "out").fixes == prepared.fixes


def test_a_folder_that_cannot_be_written(cats, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder to write"):
        run(cats, tmp_path / "file" / "out")


def cached(dataset, tmp_path, settings=DENSE):
    return cached_proposals(dataset, settings, cache_dir=tmp_path / "cache", workers=1, progress=False)


def test_only_local_folders_are_written(cats):
    with pytest.raises(InputError, match="ram://out: not a local folder"):
        run(cats, "ram://out")


def test_the_cache_is_used_again_and_knows_settings_and_data_sets(voc_folder, cats, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_FAST_RCNN_CACHE", str(tmp_path / "cache"))
    first = cached_proposals(cats, DENSE, workers=1, progress=False)
    (folder,) = (tmp_path / "cache" / "proposals").iterdir()
    written = touched(folder)
    again = cached_proposals(cats, DENSE, workers=1, progress=False)
    assert_same_records(first, again)
    assert touched(folder) == written
    assert again.name == cats.name
    # Other settings and other images with the same name have separate caches.
    both = cached_proposals(cats, BOTH, workers=1, progress=False)
    part = cached_proposals(cats[1:], DENSE, workers=1, progress=False)
    assert len(both[0].proposals()) > len(first[0].proposals())
    assert_same_records(part, cached_proposals(cats, DENSE, workers=1, progress=False)[1:])
    assert touched(folder) == written
    others = cached_proposals(read_voc(voc_folder.path, "train", ["dog", "cat"]), DENSE, workers=1, progress=False)
    assert others.class_names == ("dog", "cat")
    assert others[0].class_ids.tolist() == [2]


def test_the_cache_does_not_copy_images(voc_folder, cats, tmp_path):
    prepared = cached(cats, tmp_path)
    assert [record.image_bytes for record in prepared] == [None] * 3
    assert [record.image_path for record in prepared] == [record.image_path for record in cats]
    assert_same_records(prepared, run(cats, tmp_path / "out"))
    size = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.tfrecord"))
    assert size < sum(len(record.encoded_image()) for record in cats)


def test_a_second_writer_of_a_folder_waits(cats, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pool.submit(run, cats, tmp_path / "out")
        try:
            deadline = time.monotonic() + 30
            while "waiting for another process that is preparing this folder" not in capsys.readouterr().err:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert not second.done()
            assert not list((tmp_path / "out").glob("*.tfrecord"))
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
        assert len(second.result(timeout=30)) == 3


# A script as a reader of the README would write it, without `if __name__ == "__main__"`.
SCRIPT = """
import signal
import sys
from tf_fast_rcnn.data.prepared.write import prepare
from tf_fast_rcnn.data.proposals.settings import ProposalSettings
from tf_fast_rcnn.data.readers.voc import read_voc

# Background jobs of a shell inherit that SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    settings = ProposalSettings(selective_search="fast", implementation="opencv")
    prepare(read_voc(sys.argv[1], "train"), sys.argv[2], settings, workers=2, images_per_shard=2)
except KeyboardInterrupt:
    sys.exit("interrupted")
except ValueError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def started_script(voc_folder, tmp_path):
    """A running `prepare` of eight slow images (a second or more each) after its first shard, and its folder."""
    voc_folder.simple(8, size=(400, 520))
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", voc_folder.path, out],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (out / "progress.jsonl").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        yield process, out
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def workers_of(process):
    """Process ids of the session's worker processes."""
    listing = subprocess.run(["ps", "-ewwo", "pid,sid,args"], stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    return [int(pid) for pid, session, args in rows if int(session) == process.pid and "popen_loky" in args]


def test_a_script_without_main_guard_goes_on_after_a_kill(started_script, voc_folder, tmp_path):
    process, out = started_script
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = touched(out)
    assert 1 <= len(before) < 4
    with pytest.raises(InputError, match=r"no manifest\.json"):
        read_prepared(out)
    subprocess.run([sys.executable, tmp_path / "script.py", voc_folder.path, out], check=True, timeout=100)
    assert len(touched(out)) == 4
    assert touched(out).items() >= before.items()
    assert len(read_prepared(out)) == 8
    assert sorted(path.name for path in out.iterdir()) == sorted([".lock", "manifest.json", *touched(out)])


def test_a_killed_worker_gives_one_line(started_script):
    process, _ = started_script
    os.kill(workers_of(process)[0], signal.SIGKILL)
    output = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "a worker process was killed" in output.splitlines()[-1]
    assert "Traceback" not in output


def test_workers_do_not_outlive_a_killed_parent(started_script):
    process, _ = started_script
    assert workers_of(process)
    process.kill()
    deadline = time.monotonic() + 30
    while workers_of(process):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_interruption_ends_all_processes(started_script):
    process, _ = started_script
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "interrupted" in output
    assert workers_of(process) == []


def test_all_unreadable_images_are_named_at_once_and_the_others_are_kept(voc_folder, tmp_path, computed):
    """Twelve bad images of fifteen; skipping them afterwards computes nothing again."""
    dataset = read_voc(voc_folder.simple(15).path, "train")
    for number in range(12):
        path = voc_folder.path / "JPEGImages" / f"a{number}.png"
        path.write_bytes(path.read_bytes()[:-12])  # without IEND, which only TensorFlow misses
    with pytest.raises(InputError, match="12 images cannot be used: ") as caught:
        run(dataset, tmp_path / "out", BOTH, images_per_shard=4)
    line = str(caught.value)
    assert [f"a{number}.png: cannot read the image (a PNG without its end" in line for number in range(12)] == [
        *[True] * 10,
        *[False] * 2,
    ]
    assert line.endswith("and 2 more; repair or remove them, or leave them out with --skip-bad (skip_bad=True)")
    assert len(computed) == 3
    prepared = run(dataset, tmp_path / "out", BOTH, images_per_shard=4, skip_bad=True)
    assert [record.image_id for record in prepared] == ["a12", "a13", "a14"]
    assert (len(computed), prepared.fixes) == (3, {"unreadable images skipped": 12})


def test_images_of_12_bits_in_16_are_told(voc_folder, tmp_path):
    voc_folder.simple(2)
    words = np.random.default_rng(0).integers(0, 4096, (40, 60), np.uint16)
    Image.fromarray(words).save(voc_folder.path / "JPEGImages" / "a0.png")
    Image.fromarray(words << 4).save(voc_folder.path / "JPEGImages" / "a1.png")
    ((what, count),) = run(read_voc(voc_folder.path, "train"), tmp_path / "out").fixes.items()
    assert count == 1
    assert "16-bit images with 12 bits or fewer" in what


def test_ids_of_coco_files_keep_their_type(cats, tmp_path):
    ids = [42, "000042", -(10**30)]
    records = [dataclasses.replace(cat, source_id=source_id) for cat, source_id in zip(cats, ids, strict=True)]
    dataset = DetectionDataset(cats.name, cats.class_names, records)
    assert [record.source_id for record in run(dataset, tmp_path / "out")] == ids
    # A folder that was prepared without them is written again.
    run(cats, tmp_path / "older")
    assert [record.source_id for record in run(dataset, tmp_path / "older")] == ids
