"""End to end, from generated images to AP: the default recipe fits its training images.

It is trained and evaluated on the same eight images of drawn shapes. A bug in the targets, the normalisation, the
losses, RoI pooling or the decoding keeps AP well below 1 here.
"""

import numpy as np
import pytest
from PIL import Image, ImageDraw

import tf_fast_rcnn as frcnn

IMAGES, SIDES = 8, (160, 208)
SHAPES = ("disc", "square", "triangle")
# Object sizes relative to the image's shorter side, and the number of objects per image.
SIZES = {"large": (0.6, 0.9, 1), "medium": (0.3, 0.45, 2), "small": (0.14, 0.2, 4)}


def shape_points(shape, box):
    left, top, right, bottom = box
    return {
        "square": [(left, top), (right, top), (right, bottom), (left, bottom)],
        "triangle": [((left + right) / 2, top), (right, bottom), (left, bottom)],
    }.get(shape)


def draw_shape(canvas, shape, box, colour):
    if shape == "disc":
        canvas.ellipse(box, fill=colour)
    else:
        canvas.polygon(shape_points(shape, box), fill=colour)


def place(random, taken, low, high):
    """A box `(left, top, right, bottom)` that overlaps no other, with sides relative to those of the image."""
    for _ in range(1000):
        height, width = random.uniform(low, high, 2) * min(SIDES)
        top, left = random.uniform(0, SIDES[0] - height), random.uniform(0, SIDES[1] - width)
        box = (left, top, left + width, top + height)
        if all(box[2] < a[0] or a[2] < box[0] or box[3] < a[1] or a[3] < box[1] for a in taken):
            return box
    raise AssertionError("no place for another object")


def write_images(folder, size, classes):
    """A CSV dataset of shapes on noise; returns its SPEC."""
    random = np.random.default_rng(1)
    low, high, count = SIZES[size]
    rows = ["filename,class,xmin,ymin,xmax,ymax"]
    for number in range(IMAGES):
        noise = random.integers(60, 196, (SIDES[0] // 8, SIDES[1] // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize(SIDES[::-1], Image.Resampling.BICUBIC)
        canvas, taken = ImageDraw.Draw(picture), []
        for _ in range(count):
            box = place(random, taken, low, high)
            shape = SHAPES[random.integers(classes)]
            draw_shape(canvas, shape, box, tuple(int(value) for value in random.integers(0, 256, 3)))
            taken.append(box)
            rows.append(f"{number}.png,{shape}," + ",".join(f"{value:.1f}" for value in box))
        picture.save(folder / f"{number}.png")
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    return f"csv:{folder / 'boxes.csv'},{folder}"


@pytest.mark.parametrize(
    ("size", "classes"),
    [
        pytest.param("large", 1, marks=pytest.mark.slow),
        pytest.param("medium", 3, marks=pytest.mark.slow),
        ("small", 1),
    ],
)
def test_eight_images_are_fitted(tmp_path, size, classes):
    data = frcnn.load_dataset(write_images(tmp_path, size, classes))
    recipe = frcnn.recipe("small-data", {"steps": 120, "sampling.shorter_side": SIDES[0], "tile": None})
    frcnn.train(data, tmp_path / "run", recipe=recipe, workers=1, progress=False)
    run = frcnn.load_run(tmp_path / "run")
    settings = frcnn.DetectionSettings(shorter_side=SIDES[0], longer_side=1000, score_threshold=0.01)
    result = frcnn.evaluate(run.model, data, "voc10", proposals=run.proposals, settings=settings, progress=False)
    assert result.mean_ap >= 0.98
