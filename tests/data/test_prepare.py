import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.data.images import is_plain, read_image
from tf_fast_rcnn.data.prepare import cached_proposals, prepare, read_prepared
from tf_fast_rcnn.data.proposals import compute_proposals
from tf_fast_rcnn.data.proposals.dense import DenseBoxes
from tf_fast_rcnn.data.proposals.settings import ProposalSettings
from tf_fast_rcnn.data.voc import read_voc
from tf_fast_rcnn.errors import InputError

DENSE = ProposalSettings(dense=DenseBoxes(((0.5, 0.5), (1.0, 1.2)), 0.4), min_size=0.1)
BOTH = ProposalSettings(selective_search="fast", dense=DENSE.dense, min_size=0.1)


def run(dataset, out, settings=DENSE, workers=1, **options):
    return prepare(dataset, out, settings, workers=workers, progress=False, **options)


def assert_same_records(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in ("image_id", "height", "width"):
            assert getattr(one, name) == getattr(other, name)
        np.testing.assert_array_equal(read_image(one.image_path), read_image(other.image_path))
        for name in ("boxes", "labels", "difficult"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.proposals(), other.proposals())


def touched(path):
    """When each proposals file was written."""
    return {file.name: file.stat().st_mtime_ns for file in (path / "proposals").glob("*.npy")}


@pytest.fixture
def cats(voc_folder):
    return read_voc(voc_folder.simple(3).path, "train")


@pytest.mark.parametrize("workers", [1, 2])
def test_proposals_are_those_of_each_image(cats, tmp_path, workers):
    prepared = run(cats, tmp_path / "out", BOTH, workers)
    assert [record.image_id for record in prepared] == ["a0", "a1", "a2"]
    for record in prepared:
        np.testing.assert_array_equal(record.proposals(), compute_proposals(read_image(record.image_path), BOTH))


def test_the_folder_reads_back_the_same(cats, tmp_path):
    prepared = run(cats, tmp_path / "out", BOTH)
    again = read_prepared(tmp_path / "out")
    assert_same_records(prepared, again)
    assert again.class_names == cats.class_names
    assert again.name == f"prepared:{tmp_path / 'out'}"
    assert prepared.proposal_settings == again.proposal_settings == BOTH
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_mended_counts_are_kept(voc_folder, tmp_path):
    voc_folder.simple(1)
    voc_folder.annotation("a0", [("cat", 1, 1, 99, 20), ("cat", 5, 5, 5, 9)])
    run(read_voc(voc_folder.path, "train"), tmp_path / "out")
    assert read_prepared(tmp_path / "out").mended == {
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
    prepared = run(source, tmp_path / "out")
    for before, after in zip(source, prepared, strict=True):
        assert is_plain(after.image_path)
        np.testing.assert_array_equal(read_image(after.image_path), read_image(before.image_path))
        assert (before.image_path == after.image_path) == (before.image_id == "plain")
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert_same_records(read_prepared(moved), run(source, tmp_path / "out"))


def test_nothing_is_computed_twice(cats, tmp_path):
    run(cats[:2], tmp_path / "out")
    first = touched(tmp_path / "out")
    prepared = run(cats, tmp_path / "out")
    second = touched(tmp_path / "out")
    assert len(prepared) == 3
    assert len(second) == 3
    assert second.items() >= first.items()


def test_a_changed_image_is_computed_again(cats, tmp_path):
    before = run(cats, tmp_path / "out", BOTH)
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[5:25, 10:40] = 255
    Image.fromarray(pixels).save(cats[1].image_path)
    after = run(cats, tmp_path / "out", BOTH)
    assert [one.proposals_path == other.proposals_path for one, other in zip(before, after, strict=True)] == [
        True,
        False,
        True,
    ]
    np.testing.assert_array_equal(after[1].proposals(), compute_proposals(pixels, BOTH))


def test_changed_settings_and_annotations_are_taken_up(voc_folder, cats, tmp_path):
    run(cats, tmp_path / "out", BOTH)
    voc_folder.annotation("a1", [("cat", 1, 1, 60, 40), ("dog", 1, 1, 30, 40)])
    run(read_voc(voc_folder.path, "train"), tmp_path / "out", DENSE)
    again = read_prepared(tmp_path / "out")
    assert again.class_names == ("cat", "dog")
    assert again[1].labels.tolist() == [1, 2]
    np.testing.assert_array_equal(again[0].proposals(), compute_proposals(read_image(again[0].image_path), DENSE))
    assert again.proposal_settings == DENSE


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
    [(truncate, "no readable image"), (remove, "no such file"), (resize, "61x40 pixels; expected 60x40")],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_image_is_named_or_skipped_and_counted(voc_folder, tmp_path, spoil, found, workers):
    dataset = read_voc(voc_folder.simple(3).path, "train")
    spoil(voc_folder.path / "JPEGImages" / "a1.png")
    with pytest.raises(InputError, match=rf"a1\.png: found {found}") as caught:
        run(dataset, tmp_path / "out", workers=workers)
    assert "\n" not in str(caught.value)
    prepared = run(dataset, tmp_path / "out", workers=workers, skip_bad=True)
    assert [record.image_id for record in prepared] == ["a0", "a2"]
    assert prepared.mended == {"unreadable images skipped": 1}
    assert read_prepared(tmp_path / "out").mended == prepared.mended


def test_a_folder_that_cannot_be_written(cats, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder to write"):
        run(cats, tmp_path / "file" / "out")


def edit(manifest, **changes):
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (remove, "no manifest.json"),
        (truncate, "broken JSON"),
        (lambda path: path.write_text("[" * 100_000), "broken JSON"),
        (lambda path: edit(path, version=0), "version 0"),
        (lambda path: edit(path, images=[{}]), "KeyError"),
        (lambda path: edit(path, settings=None), "proposal settings"),
        (lambda path: edit(path, images=3), "TypeError"),
        (lambda path: edit(path, class_names=[]), "a label of image a0 outside 1..0"),
        (lambda path: edit(path, format="other"), "another kind of file"),
        (lambda path: next(path.parent.glob("proposals/a1*")).unlink(), "found no .*a1"),
    ],
)
def test_broken_prepared_folders_give_one_line(cats, tmp_path, spoil, found):
    run(cats, tmp_path / "out")
    spoil(tmp_path / "out" / "manifest.json")
    with pytest.raises(InputError, match=found) as caught:
        read_prepared(tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_the_cache_is_used_again_and_knows_settings_and_data_sets(voc_folder, cats, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_FAST_RCNN_CACHE", str(tmp_path / "cache"))
    first = cached_proposals(cats, DENSE, workers=1, progress=False)
    written = [os.stat(record.proposals_path).st_mtime_ns for record in first]
    again = cached_proposals(cats, DENSE, workers=1, progress=False)
    assert_same_records(first, again)
    assert [os.stat(record.proposals_path).st_mtime_ns for record in again] == written
    assert again.name == cats.name
    others = [
        cached_proposals(cats, BOTH, workers=1, progress=False),
        cached_proposals(read_voc(voc_folder.path, "train", ["dog", "cat"]), DENSE, workers=1, progress=False),
    ]
    assert len(others[0][0].proposals()) > len(first[0].proposals())
    assert others[1].class_names == ("dog", "cat")
    assert all(str(tmp_path / "cache") in record.proposals_path for record in [*first, *others[0], *others[1]])


# Run as a script of its own, without the usual `if __name__ == "__main__"`, as a reader of the README writes it.
SCRIPT = """
import signal
import sys
from tf_fast_rcnn.data.prepare import prepare
from tf_fast_rcnn.data.proposals.settings import ProposalSettings
from tf_fast_rcnn.data.voc import read_voc

# A background job of a shell inherits that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    prepare(read_voc(sys.argv[1], "train"), sys.argv[2], ProposalSettings(selective_search="fast"), workers=2)
except KeyboardInterrupt:
    sys.exit("interrupted")
except ValueError as error:
    sys.exit(str(error))
assert "tensorflow" not in sys.modules
"""


@pytest.fixture
def started_script(voc_folder, tmp_path):
    """`prepare` of eight images of a second or more each, after the first is written; and its folder."""
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
        while not list(out.glob("proposals/*.npy")):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        yield process, out
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def workers_of(process):
    """Process ids of the session's members that run a worker's main."""
    listing = subprocess.run(["ps", "-ewwo", "pid,sid,args"], stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    return [int(pid) for pid, session, args in rows if int(session) == process.pid and "popen_loky" in args]


def test_a_script_without_main_guard_goes_on_after_a_kill(started_script, voc_folder, tmp_path):
    process, out = started_script
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = touched(out)
    assert 1 <= len(before) < 8
    with pytest.raises(InputError, match=r"no manifest\.json"):
        read_prepared(out)
    subprocess.run([sys.executable, tmp_path / "script.py", voc_folder.path, out], check=True, timeout=100)
    assert len(touched(out)) == 8
    assert touched(out).items() >= before.items()
    assert len(read_prepared(out)) == 8


def test_a_killed_worker_gives_one_line(started_script):
    process, _ = started_script
    os.kill(workers_of(process)[0], signal.SIGKILL)
    output = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "found a worker process killed" in output.splitlines()[-1]
    assert "Traceback" not in output


def test_an_interruption_ends_all_processes(started_script):
    process, _ = started_script
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "interrupted" in output
    assert workers_of(process) == []
