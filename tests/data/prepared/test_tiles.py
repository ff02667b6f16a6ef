"""Tiles for training, compared with the pixels and boxes of images that are written down here."""

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.prepared.tiles import cut_tiles, trained_objects
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.tiles import Tiles
from tf_fast_rcnn.errors import InputError

HEIGHT, WIDTH = 120, 200
# Pixels: a small object, one that is nearly as wide as the image, and one on the right border.
OBJECTS = np.array([[20, 30, 28, 40], [60, 10, 110, 190], [50, 192, 56, 200]], np.float64)


@pytest.fixture
def dataset(tmp_path):
    """An image whose red and green values are its rows and columns, and an image of 20 x 25 pixels."""
    large, small = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.full((20, 25, 3), 9, np.uint8)
    large[..., 0], large[..., 1] = np.mgrid[:HEIGHT, :WIDTH]
    records = []
    for name, image in (("large", large), ("small", small)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        height, width = image.shape[:2]
        objects = OBJECTS if name == "large" else np.array([[5.0, 5, 15, 25]])
        boxes = objects / [height, width, height, width]
        labels, difficult = np.arange(1, len(boxes) + 1), np.zeros(len(boxes), bool)
        path = str(tmp_path / f"{name}.png")
        records.append(ImageRecord(name, path, height, width, boxes, labels, difficult))
    return DetectionDataset("csv:here", ("a", "b", "c"), records)


def cut(dataset, tmp_path, tiles, per_image=30, **options):
    return cut_tiles(dataset, tiles, per_image, cache_dir=tmp_path / "cache", workers=1, progress=False, **options)


def place(record):
    top, left = record.image_id.rpartition(" at ")[2].split(",")
    return int(top), int(left)


def test_tiles_have_the_pixels_and_the_objects_of_their_places(dataset, tmp_path):
    tiles = cut(dataset, tmp_path, Tiles(48, 0.25, whole_image=False))
    assert len(tiles) == 60
    seen = {1: 0, 2: 0, 3: 0}
    for record in tiles:
        pixels = record.image()
        assert pixels.shape == (48, 48, 3)
        if not record.image_id.startswith("large"):
            continue
        top, left = place(record)
        np.testing.assert_array_equal(pixels[..., 0], np.mgrid[top : top + 48, left : left + 48][0])
        np.testing.assert_array_equal(pixels[..., 1], np.mgrid[top : top + 48, left : left + 48][1])
        expected = {}
        for label, (ymin, xmin, ymax, xmax) in enumerate(OBJECTS, start=1):
            inside = [max(ymin - top, 0), max(xmin - left, 0), min(ymax - top, 48), min(xmax - left, 48)]
            area = max(inside[2] - inside[0], 0) * max(inside[3] - inside[1], 0)
            share = area / ((ymax - ymin) * (xmax - xmin))
            if share >= 0.1:
                expected[label] = (inside, share < 0.99)
        assert record.class_ids.tolist() == list(expected)
        for label, box, difficult in zip(record.class_ids, record.boxes, record.difficult, strict=True):
            np.testing.assert_allclose(box * 48, expected[label][0], atol=1e-4)
            assert difficult == expected[label][1]
            seen[int(label)] += not difficult
    # 30 tiles; of those not anywhere, half contain the first object and half the third, which fit into tiles.
    assert seen[1] >= 5
    assert seen[2] == 0
    assert seen[3] >= 5


def test_images_smaller_than_a_tile_are_padded(dataset, tmp_path):
    record = next(each for each in cut(dataset, tmp_path, Tiles(48, 0.25)) if each.image_id.startswith("small"))
    pixels = record.image()
    np.testing.assert_array_equal(pixels[:20, :25], 9)
    np.testing.assert_array_equal(pixels[20:], 114)
    np.testing.assert_array_equal(pixels[:, 25:], 114)
    np.testing.assert_allclose(record.boxes * 48, [[5, 5, 15, 25]], atol=1e-4)
    assert not record.difficult.any()


def test_whole_images_have_the_objects_that_tiles_are_not_responsible_for(dataset, tmp_path):
    """The limit is 12 pixels; from 6 on, objects are trained in both views."""
    tiles = cut(dataset, tmp_path, Tiles(48, 0.25))
    (large, small) = [record for record in tiles if record.height != 48]
    assert (large.image_id, small.image_id) == ("large", "small")
    assert large.difficult.tolist() == [False, False, False]
    tiles = cut(dataset, tmp_path, Tiles(48, 0.5))
    (large,) = [record for record in tiles if record.height != 48]
    # The limit is 24: objects of 10 and 8 pixels are below its half.
    assert large.difficult.tolist() == [True, False, True]
    assert [len(record.boxes) for record in trained_objects([large])] == [1]


def test_the_same_seed_gives_the_same_tiles(dataset, tmp_path):
    options = {"tiles": Tiles(48, 0.25), "per_image": 5}
    names = [[record.image_id for record in cut(dataset, tmp_path, seed=seed, **options)] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_damaged_images_are_reported(dataset, tmp_path):
    (tmp_path / "large.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"large\.png: "):
        cut(dataset, tmp_path, Tiles(48))


@pytest.mark.parametrize(("size", "overlap"), [(16, 0.2), (240, 0.0), (240, 1.0), (240, 0.9)])
def test_impossible_tiles(size, overlap):
    with pytest.raises(InputError, match=r"^tile.*: found "):
        Tiles(size, overlap)
