"""Cuts the tiles of large images that training sees (see `data.tiles`)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.images import encode_png
from tf_fast_rcnn.data.prepared.shards import identity_of
from tf_fast_rcnn.data.prepared.workers import in_order
from tf_fast_rcnn.data.prepared.write import UNREADABLE
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.tiles import Tiles, longer_sides
from tf_fast_rcnn.errors import InputError, check_setting, in_one_go
from tf_fast_rcnn.files import cache_folder, replacing

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

# The mean over channels of ImageNet's mean colour, as integer pixels (see `data.network_input`).
PADDING_GREY = 114
# Share of the training tiles that are anywhere in their image; the others contain an object that is drawn first.
_ANYWHERE = 0.25
# Objects from this share of `Tiles.limit` on are also trained in the whole image, so that the network knows objects of
# sizes around the limit from both views.
_IN_BOTH_VIEWS = 0.5
# Objects of which less is in a tile are not marked in it.
_MIN_VISIBLE = 0.1


def cut_tiles(
    dataset: DetectionDataset,
    tiles: Tiles,
    per_image: int,
    *,
    seed: int = 0,
    cache_dir: StrPath | None = None,
    workers: int | None = None,
    progress: bool = True,
    skip_bad: bool = False,
) -> DetectionDataset:
    """Cuts the tiles for training out of a dataset's images: three of four contain an object that is drawn at random,
    at a random place in the tile, the fourth is anywhere.

    Objects that are cut by a tile's edge keep their visible part and are marked as difficult, so that with the sampling
    rule `difficult="ignore"` they are neither objects nor background. If `tiles.whole_image` is set, each image with
    larger objects is in the result too; objects that only tiles are responsible for are marked as difficult there.
    Images that are smaller than a tile are padded with grey.

    Args:
        dataset: `DetectionDataset`.
        tiles: `Tiles`.
        per_image: number of tiles of each image.
        seed: of the places.
        cache_dir: folder for the tiles' pixels; default: $TF_FAST_RCNN_CACHE, else the user's cache folder.
        workers: number of processes; default: one per processor.
        progress: whether to show a progress bar on standard error.
        skip_bad: leave out images that cannot be read, and count them in `fixes`, instead of raising.

    Returns:
        `DetectionDataset` of the tiles and whole images, without proposals.

    Raises:
        InputError: for images that cannot be read, and for a number of tiles below 1.

    Example:
        >>> tiles = cut_tiles(load_dataset("voc:birds@train"), Tiles(240), per_image=40)        # doctest: +SKIP
        >>> tiles[0].height, tiles[0].width, tiles[0].boxes.shape                               # doctest: +SKIP
        (240, 240, (3, 4))
    """
    check_setting("tiles per image", per_image, per_image >= 1, "a whole number from 1")
    folder = cache_folder(cache_dir) / "tiles" / _key(dataset, tiles, per_image, seed)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = (
        (record, _places(record, tiles, per_image, _generator(seed, number)), tiles, folder)
        for number, record in enumerate(dataset)
    )
    records: list[ImageRecord] = []
    problems: list[str] = []
    bar = tqdm(total=len(dataset), desc="tiles", unit="image", delay=2, disable=not progress)
    with bar:
        for found, problem in in_order(_cut, jobs, workers or _processors(len(dataset))):
            problems += [problem] if problem else []
            records += found
            bar.update()
    if problems and not (skip_bad and records):
        raise in_one_go(problems, "images")
    fixes = {**dataset.fixes, UNREADABLE: len(problems)}
    return DetectionDataset(f"{dataset.name} in tiles of {tiles.size}", dataset.class_names, records, fixes)


def trained_objects(dataset: DetectionDataset) -> Iterator[ImageRecord]:
    """The records without difficult objects, to fit proposals to those that are trained on."""
    for record in dataset:
        kept = ~record.difficult
        yield dataclasses.replace(
            record,
            boxes=record.boxes[kept],
            class_ids=record.class_ids[kept],
            difficult=record.difficult[kept],
            crowd=record.crowd[kept],
            areas=None,
            coco_objects=None,
        )


def _processors(images):
    return max(1, min(os.cpu_count() or 1, images))


def _key(dataset, tiles, per_image, seed):
    """A folder name that depends on everything that the tiles depend on."""
    key = hashlib.sha256(json.dumps([1, dataclasses.asdict(tiles), per_image, seed]).encode())
    for record in dataset:
        key.update(json.dumps([record.image_id, identity_of(record)]).encode())
        key.update(record.boxes.tobytes())
    return key.hexdigest()[:16]


def _generator(seed, number):
    return np.random.default_rng([seed, number])


def _places(record, tiles, per_image, random):
    """Top left corners of tiles, int64 `[per_image, 2]`, y and x in pixels of the image."""
    room = np.maximum(np.array([record.height, record.width]) - tiles.size, 0)
    corners = random.integers(0, room + 1, (per_image, 2))
    pixels = box_algebra.scale(record.boxes.astype(np.float64), record.height, record.width)
    objects = pixels[~record.crowd & (longer_sides(pixels) <= tiles.size)]
    if not len(objects):
        return corners
    drawn = objects[random.integers(0, len(objects), per_image)]
    low = np.clip(np.ceil(drawn[:, 2:] - tiles.size), 0, room)
    high = np.maximum(np.clip(np.floor(drawn[:, :2]), 0, room), low)
    around = np.floor(low + random.random((per_image, 2)) * (high - low + 1)).astype(int)
    anywhere = random.random((per_image, 1)) < _ANYWHERE
    return np.where(anywhere, corners, np.minimum(around, room))


def _cut(record: ImageRecord, places: np.ndarray, tiles: Tiles, folder: Path):
    """The records of an image's tiles, and of the image itself if it has objects that tiles are not responsible for;
    or the message about an unreadable image."""
    paths = [folder / f"{_file_name(record)}-{top}-{left}.png" for top, left in places]
    try:
        missing = [index for index, path in enumerate(paths) if not path.exists()]
        image = record.image() if missing else None
        if image is not None and image.shape[:2] != (record.height, record.width):
            raise InputError(
                f"{record.image_path}: found {image.shape[1]}x{image.shape[0]} pixels; expected "
                f"{record.width}x{record.height} as annotated; load the data set again"
            )
    except InputError as error:
        return [], str(error)
    for index in missing:
        with replacing(paths[index]) as file:
            file.write(encode_png(_crop(image, places[index], tiles.size)))
    found = [_tile_record(record, place, tiles, path) for place, path in zip(places, paths, strict=True)]
    whole = _whole_record(record, tiles)
    return [*found, *([whole] if whole is not None else [])], None


def _file_name(record):
    return hashlib.sha256(json.dumps([record.image_id, str(record.image_path)]).encode()).hexdigest()[:12]


def _crop(image, place, size):
    """The pixels of a tile, uint8 `[size, size, 3]`, padded with grey if the image is smaller."""
    top, left = place
    part = image[top : top + size, left : left + size]
    below, right = size - part.shape[0], size - part.shape[1]
    return np.pad(part, ((0, below), (0, right), (0, 0)), constant_values=PADDING_GREY) if below or right else part


def _tile_record(record, place, tiles, path):
    top, left = map(int, place)
    pixels = box_algebra.scale(record.boxes.astype(np.float64), record.height, record.width)
    pixels = pixels - np.array([top, left, top, left])
    clipped = np.clip(pixels, 0, tiles.size)
    visible = box_algebra.area(clipped) / np.maximum(box_algebra.area(pixels), 1e-9)
    kept = visible >= _MIN_VISIBLE
    return ImageRecord(
        image_id=f"{record.image_id} at {top},{left}",
        image_path=str(path),
        height=tiles.size,
        width=tiles.size,
        boxes=clipped[kept] / tiles.size,
        class_ids=record.class_ids[kept],
        # Cut objects; clipping by less than a hundredth is rounding.
        difficult=record.difficult[kept] | (visible[kept] < 0.99),
        crowd=record.crowd[kept],
    )


def _whole_record(record, tiles):
    """The image's own record, in which objects that only tiles are responsible for are difficult; None if these are all
    its objects."""
    pixels = box_algebra.scale(record.boxes.astype(np.float64), record.height, record.width)
    longer = longer_sides(pixels)
    if not tiles.whole_image or not np.any(longer > tiles.limit):
        return None
    difficult = record.difficult | (longer < _IN_BOTH_VIEWS * tiles.limit)
    return dataclasses.replace(record, difficult=difficult, areas=None, coco_objects=None, proposal_boxes=None)
