"""The demo's dataset: boxes compared with the drawn masks, disjoint splits, and reproducible files."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.readers.voc import read_voc
from tf_fast_rcnn.demo import digits
from tf_fast_rcnn.errors import InputError

IMAGES = {"train": 12, "test": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return digits.generate_digits(tmp_path_factory.mktemp("digits") / "voc", IMAGES, seed=0)


def files(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_voc_reader_takes_it_without_mending(folder):
    for split, count in IMAGES.items():
        dataset = read_voc(folder, split)
        assert len(dataset) == count
        assert dataset.class_names == digits.CLASS_NAMES
        assert not dataset.fixes
        assert all(1 <= len(record.class_ids) <= digits.MAX_DIGITS for record in dataset)
        assert not any(record.difficult.any() for record in dataset)


def test_images_are_in_portrait_and_landscape_and_as_large_as_annotated(folder):
    records = read_voc(folder, "train").records
    for record in records:
        assert Image.open(record.image_path).size == (record.width, record.height)
    assert {np.sign(record.width - record.height) for record in records} >= {-1, 1}


def test_same_seed_same_files_and_another_seed_others(folder, tmp_path):
    again = digits.generate_digits(tmp_path / "again", IMAGES, seed=0)
    assert files(again) == files(folder)
    other = digits.generate_digits(tmp_path / "other", IMAGES, seed=1)
    assert files(other)["JPEGImages/train_0001.jpg"] != files(folder)["JPEGImages/train_0001.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other"], "nothing temporary is left"


def test_splits_share_no_scan(tmp_path, monkeypatch):
    """Compares the pixels of the scans drawn in train with those drawn in test."""
    drawn, split_of = {"train": set(), "test": set()}, []

    def record_split(folder, split, *arguments):
        split_of.append(split)
        write_split(folder, split, *arguments)

    def record_scan(scan, height, angle):
        drawn[split_of[-1]].add(scan.tobytes())
        return render_digit(scan, height, angle)

    write_split, render_digit = digits._write_split, digits.render_digit
    monkeypatch.setattr(digits, "_write_split", record_split)
    monkeypatch.setattr(digits, "render_digit", record_scan)
    digits.generate_digits(tmp_path / "voc", {"train": 20, "test": 20}, seed=3)
    assert min(len(scans) for scans in drawn.values()) > 20
    assert not drawn["train"] & drawn["test"]


@pytest.mark.parametrize("images", [{"train": 240, "test": 60}, {"train": 500, "val": 3, "test": 1}])
def test_sources_are_all_used_once_and_every_split_has_several_of_each_digit(images):
    target = load_digits().target
    shares = digits.split_sources(target, images, seed=5)
    assert sorted(np.concatenate(list(shares.values()))) == list(range(1797))
    for split in images:
        assert np.bincount(target[shares[split]], minlength=10).min() >= 5


def naive_ink_box(opacity, top, left):
    """The first and last pixel of the ink, by a naive loop: VOC's xmin, ymin, xmax, ymax, 1-based and inclusive."""
    inked = [
        (left + x + 1, top + y + 1)
        for y in range(opacity.shape[0])
        for x in range(opacity.shape[1])
        if opacity[y, x] >= digits.INK_THRESHOLD
    ]
    columns, rows = zip(*inked, strict=True)
    return [min(columns), min(rows), max(columns), max(rows)]


def test_boxes_are_tight_around_the_ink(tmp_path, monkeypatch):
    inked = []

    def record_ink(canvas, opacity, top, left, rng):
        ink(canvas, opacity, top, left, rng)
        inked.append((opacity.copy(), top, left))

    ink = digits._ink
    monkeypatch.setattr(digits, "_ink", record_ink)
    digits.generate_digits(tmp_path / "voc", {"train": 4}, seed=7)
    annotated = []
    for record in read_voc(tmp_path / "voc", "train", digits.CLASS_NAMES):
        annotated += box_algebra.to_voc(record.boxes, record.height, record.width).tolist()
    drawn = [naive_ink_box(*each) for each in inked]  # including the distractors
    assert len(drawn) > len(annotated) >= 4
    for corners in annotated:
        assert min(np.abs(np.subtract(corners, other)).max() for other in drawn) < 1e-3


def test_ink_differs_in_luminance_from_what_was_below():
    rng = np.random.default_rng(0)
    for _ in range(50):
        canvas = np.full((20, 20, 3), rng.uniform(0, 255, 3))
        before = canvas.mean(axis=(0, 1))
        digits._ink(canvas, np.ones((10, 10), np.float32), 5, 5, rng)
        difference = (canvas[10, 10] - before) @ [0.299, 0.587, 0.114]
        assert abs(difference) >= digits.MIN_CONTRAST
        np.testing.assert_allclose(canvas[0], np.broadcast_to(before, (20, 3)))


def test_objects_hardly_overlap_and_have_the_sizes_that_are_said(folder):
    heights = []
    for split in IMAGES:
        for record in read_voc(folder, split):
            iou = box_algebra.iou(record.boxes, record.boxes)
            assert iou[~np.eye(len(iou), dtype=bool)].max(initial=0) <= digits.MAX_OVERLAP
            pixels = box_algebra.scale(record.boxes, record.height, record.width)
            heights += (pixels[:, 2] - pixels[:, 0]).tolist()
    assert 15 < min(heights) < 40
    assert 80 < max(heights) < 160


@pytest.mark.parametrize("angle", [-25, 0, 25])
@pytest.mark.parametrize("height", [24, 120])
def test_every_scan_is_visible_to_the_edges_of_its_crop(height, angle):
    for scan in load_digits().images[::60] / 16:
        opacity = digits.render_digit(scan, height, angle)
        edges = [opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]]
        assert all(edge.max() > 0 for edge in edges)
        assert opacity.max() == 1
        assert 0.7 * height < opacity.shape[0] < 1.5 * height


def test_positive_angles_turn_counter_clockwise():
    bar = np.zeros((8, 8))
    bar[:, 3:5] = 1
    turned = digits.render_digit(bar, 100, 20) >= digits.INK_THRESHOLD
    top, bottom = np.flatnonzero(turned[8]).mean(), np.flatnonzero(turned[-9]).mean()
    assert top < bottom - 20


def test_folder_with_contents_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty; expected a new or empty folder"):
        digits.generate_digits(tmp_path, {"train": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "voc").mkdir()
    assert len(read_voc(digits.generate_digits(tmp_path / "voc", {"a": 2}), "a", digits.CLASS_NAMES)) == 2
