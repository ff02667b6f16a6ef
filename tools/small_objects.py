"""Generates a dataset of small objects on large cluttered images, as a Pascal VOC folder.

    python tools/small_objects.py build/small --images 60 --val 20
    tf-fast-rcnn train --train voc:build/small@train --val voc:build/small@val --out run

An image has about 30 discs, triangles, crosses and rings of 8 to 24 pixels; `--mixed` makes 90 % of them 16 to 40
pixels and 10 % 100 to 400 pixels large. Each class has colours that are common for it, but a quarter of the objects
have any colour, so only the shape is reliable. The backgrounds are mosaics of scikit-image's photographs; the left
parts of the photographs are used in `train` and the right parts in `val`. Specks and lines are drawn as unlabelled
distractors. The same arguments always write the same images.
"""

import argparse
import colorsys
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

CLASS_NAMES = ("cross", "disc", "ring", "triangle")
# Photographs that are part of the scikit-image wheel: nothing is downloaded.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
TRAIN_SHARE, VAL_SHARE = (0.0, 0.58), (0.6, 1.0)  # of a photograph's width

_FINE = 4  # shapes are drawn this much larger and reduced, for smooth edges
_HUES = {"cross": 0.6, "disc": 0.02, "ring": 0.14, "triangle": 0.35}  # blue, red, yellow, green
_MIN_CONTRAST = 45  # root mean square difference of the colour channels from the background, 0..255
_MAX_OVERLAP = 0.1  # share of the smaller of two boxes that the other may cover
_SMALL, _MIXED_SMALL, _MIXED_LARGE = (8, 24), (16, 40), (100, 400)  # longer side of a box in pixels


def photographs(share):
    """The vertical strip `share` (from, to) of each photograph: a list of RGB `Image`s."""
    folder = Path(skimage.__file__).parent / "data"
    strips = []
    for name in PHOTOGRAPHS:
        picture = Image.open(folder / name).convert("RGB")
        left, right = (round(part * picture.width) for part in share)
        strips.append(picture.crop((left, 0, right, picture.height)))
    return strips


def background(width, height, sources, rng):
    """A mosaic of crops: float32 `[height, width, 3]`, 0 to 255."""
    canvas = np.empty((height, width, 3), np.float32)
    for left, top, right, bottom in _split((0, 0, width, height), rng):
        canvas[top:bottom, left:right] = _patch(right - left, bottom - top, sources, rng)
    return canvas


def shape_opacity(name, size, rng):
    """An object: its opacity, float32 `[h, w]`, 0 to 1, and its box `(ymin, xmin, ymax, xmax)` in it, in pixels.

    The longer side of the box is about `size` pixels; its edges are multiples of a quarter of a pixel.
    """
    unit = _unit_shape(name, rng)
    points = np.concatenate(unit)
    scale = size * _FINE / np.ptp(points, axis=0).max()
    margin = 2 * _FINE  # for the blur
    phase = rng.integers(_FINE, size=2)  # the position within a pixel
    origin = points.min(axis=0) * scale - margin - phase
    side = (int(size) + 6) * _FINE
    picture = Image.new("L", (side, side))
    draw = ImageDraw.Draw(picture)
    for number, polygon in enumerate(unit):
        hole = name == "ring" and number == 1
        draw.polygon([tuple(point) for point in polygon * scale - origin], fill=0 if hole else 255)
    rows, columns = (np.flatnonzero(np.asarray(picture).any(axis=axis)) for axis in (1, 0))
    box = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]) / _FINE
    blurred = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6) * _FINE))
    return np.asarray(blurred.reduce(_FINE), np.float32) / 255, box


def draw_image(width, height, sources, mixed, rng):
    """One image: uint8 `[height, width, 3]`, and its objects as `(class name, box)`, boxes as in `shape_opacity`."""
    canvas = background(width, height, sources, rng)
    _draw_distractors(canvas, rng)
    objects = []
    # The large ones first, while there is room for them.
    for size in sorted(_sizes(int(rng.integers(22, 39)), mixed, rng), reverse=True):
        name = CLASS_NAMES[rng.integers(len(CLASS_NAMES))]
        opacity, box = shape_opacity(name, size, rng)
        place = _free_place(opacity.shape, box, canvas.shape, [other for _, other in objects], rng)
        if place is not None:
            _paint(canvas, opacity, place, _HUES[name], rng)
            objects.append((name, box + np.tile(place, 2)))
    canvas += rng.normal(0, rng.uniform(1, 5), canvas.shape).astype(np.float32)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), objects


def write_dataset(folder, images, size=(1920, 1080), mixed=False, seed=0):
    """Writes the folder; `images`: number of images by split, `size`: (width, height) in pixels."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    for split, share in (("train", TRAIN_SHARE), ("val", VAL_SHARE)):
        sources = photographs(share)
        image_ids = [f"{split}_{number:04}" for number in range(images[split])]
        for number, image_id in enumerate(tqdm(image_ids, desc=split, delay=2)):
            rng = np.random.default_rng([seed, split == "val", number])
            pixels, objects = draw_image(*size, sources, mixed, rng)
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{image_id}.jpg", quality=92)
            _annotation(image_id, size, objects).write(folder / "Annotations" / f"{image_id}.xml")
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in image_ids))


def _split(rectangle, rng, largest=700, smallest=250):
    """Divides (left, top, right, bottom) at random until every part is at most `largest` pixels wide and high."""
    left, top, right, bottom = rectangle
    width, height = right - left, bottom - top
    if max(width, height) <= largest:
        return [rectangle]
    cut = int(rng.integers(smallest, max(width, height) - smallest + 1))
    if width >= height:
        parts = (left, top, left + cut, bottom), (left + cut, top, right, bottom)
    else:
        parts = (left, top, right, top + cut), (left, top + cut, right, bottom)
    return [smaller for part in parts for smaller in _split(part, rng, largest, smallest)]


def _patch(width, height, sources, rng):
    """A crop of a random photograph with random scale, mirroring, brightness and colours."""
    source = sources[rng.integers(len(sources))]
    # At most the whole strip; the crop is enlarged or reduced to the patch.
    scale = max(rng.uniform(0.8, 3), width / source.width, height / source.height)
    crop = np.array([width, height]) / scale
    left, top = rng.uniform(0, np.maximum(np.array(source.size) - crop, 0) + 1e-6)
    region = (left, top, min(left + crop[0], source.width), min(top + crop[1], source.height))
    pixels = np.asarray(source.resize((width, height), Image.Resampling.BILINEAR, box=region), np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng.random() < 0.5:
        pixels = pixels[::-1]
    middle = pixels.mean()
    contrast, tint = rng.uniform(0.5, 1.1), rng.normal(0, 12, 3) + rng.normal(0, 15)
    return np.clip((pixels - middle) * contrast + middle + tint, 0, 255)


def _sizes(count, mixed, rng):
    """Longer sides of `count` boxes, in pixels."""
    ranges = [_MIXED_LARGE if rng.random() < 0.1 else _MIXED_SMALL for _ in range(count)] if mixed else [_SMALL] * count
    return [rng.uniform(low, high) for low, high in ranges]


def _unit_shape(name, rng):
    """The polygons of a shape, randomly rotated and slightly distorted; a ring's second one is its hole."""
    if name == "triangle":
        polygons = [_regular(3)]
    elif name == "cross":
        arm = rng.uniform(0.13, 0.2)
        bar = np.array([(-1, -arm), (1, -arm), (1, arm), (-1, arm)])
        polygons = [bar, bar[:, ::-1]]
    else:
        polygons = [_regular(48)]
        if name == "ring":
            polygons.append(_regular(48) * rng.uniform(0.5, 0.65))
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1)
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return [polygon * (1, stretch) @ turn for polygon in polygons]


def _regular(corners):
    angles = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _free_place(patch, box, canvas, boxes, rng, attempts=50):
    """A random (top, left) where `box` hardly overlaps `boxes`, or None."""
    for _ in range(attempts):
        place = rng.integers(0, np.array(canvas[:2]) - patch + 1)
        moved = box + np.tile(place, 2)
        if all(_covered(moved, other) <= _MAX_OVERLAP for other in boxes):
            return place
    return None


def _covered(box, other):
    """The intersection as a share of the smaller box."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    smaller = min(np.prod(box[2:] - box[:2]), np.prod(other[2:] - other[:2]))
    return np.prod(np.maximum(sides, 0)) / smaller


def _paint(canvas, opacity, place, hue, rng):
    """Blends an object of a random colour that contrasts with the background into the canvas."""
    top, left = place
    patch = canvas[top : top + opacity.shape[0], left : left + opacity.shape[1]]
    around = patch.mean(axis=(0, 1))
    while True:
        any_hue = rng.random() < 0.25
        turned = (rng.random() if any_hue else hue + rng.normal(0, 0.06)) % 1
        color = 255 * np.array(colorsys.hsv_to_rgb(turned, rng.uniform(0.25, 1), rng.uniform(0.25, 1)))
        if np.sqrt(np.mean((color - around) ** 2)) >= _MIN_CONTRAST:
            break
    patch += opacity[..., None] * rng.uniform(0.85, 1) * (color - patch)


def _draw_distractors(canvas, rng):
    """Draws specks of up to 5 pixels and thin lines."""
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    corner = np.array(picture.size)

    def color():
        return tuple(int(value) for value in rng.integers(0, 256, 3))

    for _ in range(rng.integers(40, 120)):
        start = rng.uniform(0, 1, 2) * corner
        draw.ellipse((*start, *(start + rng.uniform(0.5, 5, 2))), fill=color())
    for _ in range(rng.integers(8, 25)):
        start, length, angle = rng.uniform(0, 1, 2) * corner, rng.uniform(20, 500), rng.uniform(0, np.pi)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        draw.line((*start, *end), fill=color(), width=int(rng.integers(1, 4)))
    canvas[:] = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.5)), np.float32)


def _annotation(image_id, size, objects):
    """A VOC annotation as an XML tree: corners are 1-based and inclusive."""
    root = ElementTree.Element("annotation")
    _add(root, filename=f"{image_id}.jpg")
    _add(ElementTree.SubElement(root, "size"), width=size[0], height=size[1], depth=3)
    for name, (top, left, bottom, right) in objects:
        element = ElementTree.SubElement(root, "object")
        _add(element, name=name, difficult=0)
        _add(ElementTree.SubElement(element, "bndbox"), xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _add(parent, **children):
    for tag, text in children.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--images", type=int, default=60, help="training images (default 60)")
    parser.add_argument("--val", type=int, default=20, help="validation images (default 20)")
    parser.add_argument("--mixed", action="store_true", help="10 %% large objects among the small ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", default="1920x1080", metavar="WIDTHxHEIGHT")
    options = parser.parse_args(arguments)
    if options.out.exists():
        sys.exit(f"{options.out}: exists; choose a new folder")
    size = tuple(int(side) for side in options.size.split("x"))
    write_dataset(options.out, {"train": options.images, "val": options.val}, size, options.mixed, options.seed)


if __name__ == "__main__":
    main()
