"""The demo's dataset: real handwritten digits on cluttered backgrounds, in Pascal VOC's layout.

The digits are the 1797 scans of 8 x 8 pixels that come with scikit-learn (UCI's "Optical Recognition of Handwritten
Digits"). They are enlarged, rotated by at most 25 degrees so that 6 and 9 remain different, and drawn in a random
colour that contrasts with the background. Shapes that are not digits are drawn between them as distractors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.errors import InputError, missing_package

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

CLASS_NAMES = tuple("0123456789")

IMAGE_SIZES = ((240, 320), (320, 240), (256, 256), (240, 360), (300, 225))  # (height, width)
MAX_DIGITS = 6
MIN_DIGIT, MAX_DIGIT = 24, 120  # height before rotation, in pixels
MAX_ANGLE = 25  # degrees
INK_THRESHOLD = 0.5  # pixels of at least this opacity belong to the digit and its box
MAX_OVERLAP = 0.05  # share of the smaller of two boxes that the other may cover
MIN_CONTRAST = 75  # difference in luminance (0..255) between the ink and the mean of the background under it

# Polylines in the unit square that do not resemble any digit.
_DISTRACTORS = (
    [[(0, 1), (0.5, 0), (1, 1), (0, 1)]],  # triangle
    [[(0, 0.5), (1, 0.5)], [(0.5, 0), (0.5, 1)]],  # cross
    [[(0, 0.2), (0.25, 0.8), (0.5, 0.2), (0.75, 0.8), (1, 0.2)]],  # zigzag
    [[(0, 0.5), (1, 0.5)], [(0.25, 0), (0.75, 1)], [(0.75, 0), (0.25, 1)]],  # star
    [[(0.3, 0), (0.3, 1)], [(0.7, 0), (0.7, 1)], [(0, 0.3), (1, 0.3)], [(0, 0.7), (1, 0.7)]],  # hash
)


class Scene(NamedTuple):
    """One image of the dataset.

    Attributes:
        pixels: uint8 `[H, W, 3]` RGB.
        boxes: float32 `[G, 4]`, `[ymin, xmin, ymax, xmax]` in pixels (whole numbers, continuous edges).
        digits: int `[G]`, 0..9.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    digits: np.ndarray


def generate_digits(directory: StrPath, images: Mapping[str, int] | None = None, seed: int = 0) -> Path:
    """Writes the dataset in Pascal VOC's layout; 300 images take a few seconds.

    No scan is used in two splits. The same arguments always write the same files.

    Args:
        directory: the folder to create; it must not exist or must be empty. It appears once everything is written.
        images: number of images by split; default `{"train": 240, "test": 60}`.
        seed: a whole number, 0 or more.

    Returns:
        The folder, a `pathlib.Path`.

    Raises:
        InputError: if the folder is not empty.

    Example:
        >>> generate_digits("digits")                                           # doctest: +SKIP
        >>> train = load_dataset("voc:digits@train")                            # doctest: +SKIP
    """
    images = {"train": 240, "test": 60} if images is None else images
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise InputError(
            f"{directory}: not empty; expected a new or empty folder; choose another folder or remove this one"
        )
    scans, digits = _load_scans()
    sources = split_sources(digits, images, seed)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as scratch:
        folder = Path(scratch) / directory.name
        for number, (split, count) in enumerate(images.items()):
            rng = np.random.default_rng([seed, 1 + number])
            _write_split(folder, split, count, scans[sources[split]], digits[sources[split]], rng)
        folder.replace(directory)
    return directory


def split_sources(digits: np.ndarray, images: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Divides the scans of each digit among the splits in proportion to their numbers of images.

    Args:
        digits: int `[S]`, the digit of each scan.
        images: number of images by split.
        seed: a whole number, 0 or more.

    Returns:
        A dict from split to the indices of its scans; no scan is in two splits.
    """
    rng = np.random.default_rng([seed, 0])
    # A small split still needs some variety of each digit.
    weights = np.maximum(list(images.values()), 0.05 * sum(images.values()))
    shares = {split: [] for split in images}
    for digit in range(10):
        of_digit = rng.permutation(np.flatnonzero(digits == digit))
        ends = np.rint(np.cumsum(weights) / weights.sum() * len(of_digit)).astype(int)
        for split, part in zip(images, np.split(of_digit, ends[:-1]), strict=True):
            shares[split].append(part)
    return {split: np.concatenate(parts) for split, parts in shares.items()}


def render_digit(scan: np.ndarray, height: float, angle: float) -> np.ndarray:
    """Enlarges a scan to about `height` pixels, rotates it, and crops it to its visible part.

    Args:
        scan: float `[8, 8]`, 0 to 1.
        height: height of the scan's 8 rows, in pixels.
        angle: degrees, counter-clockwise.

    Returns:
        The opacity, float32 `[h, w]`, 0 to 1.
    """
    margin = 3  # rows and columns, so that bicubic interpolation and rotation cut nothing off
    padded = Image.fromarray(np.pad(np.float32(scan), margin))
    side = round(height * (8 + 2 * margin) / 8)
    enlarged = padded.resize((side, side), Image.Resampling.BICUBIC)
    turned = np.asarray(enlarged.rotate(angle, Image.Resampling.BICUBIC))
    # The scans are counts of dark pixels in 4 x 4 blocks: a stroke's edge is where the count is about half.
    return _crop(np.clip((turned - 0.3) / 0.4, 0, 1))


def draw_scene(scans: Iterator[tuple[np.ndarray, int]], rng: np.random.Generator) -> Scene:
    """Draws one image.

    Args:
        scans: iterator of (float `[8, 8]` scan, digit).
        rng: NumPy generator.

    Returns:
        `Scene` with at least one digit.
    """
    height, width = IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    canvas = _draw_background(height, width, rng)
    taken, digits = [], []
    for _ in range(rng.integers(1, MAX_DIGITS + 1)):
        scan, digit = next(scans)
        opacity = render_digit(scan, _random_size(rng), rng.uniform(-MAX_ANGLE, MAX_ANGLE))
        if _place(canvas, opacity, taken, rng):
            digits.append(digit)
    boxes = np.array(taken, np.float32)
    for _ in range(rng.integers(1, 5)):
        _place(canvas, _render_distractor(_random_size(rng), rng), taken, rng)
    canvas += rng.normal(0, rng.uniform(2, 12), canvas.shape)
    return Scene(np.clip(np.rint(canvas), 0, 255).astype(np.uint8), boxes, np.array(digits))


def _load_scans():
    """The scans, float `[1797, 8, 8]` from 0 to 1, and their digits."""
    try:
        from sklearn.datasets import load_digits  # takes a second to import
    except ImportError as error:
        raise missing_package("digits", error, "demo") from None
    data = load_digits()
    return data.images / 16.0, data.target


def _deal(scans, digits, rng):
    """Yields (scan, digit) endlessly: every digit once per round in random order, cycling through its scans."""
    piles = [rng.permutation(np.flatnonzero(digits == digit)) for digit in range(10)]
    turn = 0
    while True:
        for digit in rng.permutation(10):
            pile = piles[digit]
            yield scans[pile[turn % len(pile)]], int(digit)
        turn += 1


def _random_size(rng):
    """A log-uniform size in pixels."""
    return np.exp(rng.uniform(np.log(MIN_DIGIT), np.log(MAX_DIGIT)))


def _extent(mask):
    """The bounding box of the true pixels, whole numbers `(ymin, xmin, ymax, xmax)` with continuous edges."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _crop(opacity):
    top, left, bottom, right = _extent(opacity > 0)
    return opacity[top:bottom, left:right]


def _place(canvas, opacity, taken, rng, attempts=40):
    """Draws a shape at a free random position and adds its box to `taken`; False if no attempt finds room."""
    height, width = opacity.shape
    ink_box = np.float32([_extent(opacity >= INK_THRESHOLD)])
    for _ in range(attempts):
        top = int(rng.integers(canvas.shape[0] - height + 1))
        left = int(rng.integers(canvas.shape[1] - width + 1))
        box = ink_box + np.float32([top, left, top, left])
        if _covered(box, taken) <= MAX_OVERLAP:
            _ink(canvas, opacity, top, left, rng)
            taken.append(box[0])
            return True
    return False


def _covered(box, taken):
    """The largest overlap of `box` `[1, 4]` with any of `taken`, as a share of the smaller box's area."""
    if not taken:
        return 0.0
    others = np.stack(taken)
    return (
        box_algebra.intersection(box, others)[0] / np.minimum(box_algebra.area(box), box_algebra.area(others))
    ).max()


def _ink(canvas, opacity, top, left, rng):
    """Blends a random colour into the canvas that contrasts with it."""
    patch = canvas[top : top + opacity.shape[0], left : left + opacity.shape[1]]
    color = _contrasting_color(patch[opacity >= INK_THRESHOLD], rng)
    patch += opacity[..., None] * (color - patch)


def _contrasting_color(ground, rng):
    """A random colour whose luminance differs by at least MIN_CONTRAST from the mean of pixels `ground` `[N, 3]`."""
    below = _luminance(ground.mean(axis=0))
    while True:
        color = rng.uniform(0, 255, 3)
        if abs(_luminance(color) - below) >= MIN_CONTRAST:
            return color


def _luminance(color):
    return color @ [0.299, 0.587, 0.114]


def _render_distractor(size, rng):
    """The opacity of a random distractor, float32 `[h, w]`, cropped to its visible part."""
    fine = 3  # drawn larger and reduced for smooth edges
    side = int(size * fine)
    margin = side // 2
    picture = Image.new("L", (side + 2 * margin, side + 2 * margin))
    draw = ImageDraw.Draw(picture)
    width = max(fine, round(side * rng.uniform(0.08, 0.16)))
    for line in _DISTRACTORS[rng.integers(len(_DISTRACTORS))]:
        # Slightly distorted, like handwriting.
        points = margin + side * (np.array(line) + rng.normal(0, 0.05, (len(line), 2)))
        draw.line([tuple(point) for point in points], fill=255, width=width, joint="curve")
    picture = picture.rotate(rng.uniform(-MAX_ANGLE, MAX_ANGLE), Image.Resampling.BICUBIC).reduce(fine)
    return _crop(np.asarray(picture, np.float32) / 255)


def _draw_background(height, width, rng):
    """A gradient, stains, blobs and lines around one colour: float64 `[height, width, 3]`, about 0 to 255."""
    base = rng.uniform(30, 225, 3)
    rows, columns = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    ramp = rows * np.sin(angle) + columns * np.cos(angle)
    canvas = base + ramp[..., None] * rng.normal(0, 50, 3)
    canvas += _stains(height, width, rng)
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    _draw_blobs_and_lines(picture, base, rng)
    return np.array(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5))), np.float64)


def _stains(height, width, rng):
    """Smooth random colour variation, float `[height, width, 3]`."""
    coarse = rng.normal(0, 14, (3, *rng.integers(3, 12, 2))).astype(np.float32)
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in coarse]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _draw_blobs_and_lines(picture, base, rng):
    draw = ImageDraw.Draw(picture)
    size = np.array(picture.size)

    def color():
        return tuple(np.clip(base + rng.normal(0, 35, 3), 0, 255).astype(int).tolist())

    for _ in range(rng.integers(2, 8)):
        center, radii = rng.uniform(0, 1, 2) * size, rng.uniform(8, 60, 2)
        draw.ellipse((*(center - radii), *(center + radii)), fill=color())
    for _ in range(rng.integers(2, 9)):
        # From edge to edge, because a short stroke would look like a 1.
        start, end = rng.uniform(0, 1, (2, 2)) * size
        reach = 2 * (end - start) / np.linalg.norm(end - start) * size.max()
        draw.line((*(start - reach), *(start + reach)), fill=color(), width=int(rng.integers(1, 5)))


def _write_split(folder, split, count, scans, digits, rng):
    """Writes the images, the annotations and the image list of one split."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    dealt = _deal(scans, digits, rng)
    image_ids = [f"{split}_{number:04}" for number in range(1, count + 1)]
    for image_id in image_ids:
        scene = draw_scene(dealt, rng)
        Image.fromarray(scene.pixels).save(folder / "JPEGImages" / f"{image_id}.jpg", quality=92)
        _annotation(image_id, scene).write(folder / "Annotations" / f"{image_id}.xml", encoding="utf-8")
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in image_ids))


def _annotation(image_id, scene):
    """A VOC annotation as an XML tree."""
    height, width = scene.pixels.shape[:2]
    root = ElementTree.Element("annotation")
    _add(root, filename=f"{image_id}.jpg")
    _add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    corners = box_algebra.to_voc(box_algebra.relative(scene.boxes, height, width), height, width)
    for digit, corner in zip(scene.digits, np.rint(corners).astype(int), strict=True):
        element = ElementTree.SubElement(root, "object")
        _add(element, name=CLASS_NAMES[digit], difficult=0)
        corner = dict(zip(("xmin", "ymin", "xmax", "ymax"), corner, strict=True))
        _add(ElementTree.SubElement(element, "bndbox"), **corner)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _add(parent, **children):
    for tag, text in children.items():
        ElementTree.SubElement(parent, tag).text = str(text)
