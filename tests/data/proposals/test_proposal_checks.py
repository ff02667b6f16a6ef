"""Wrong coordinate orders, bases and rows of proposal files are detected, and the error names the right ones."""

import itertools

import numpy as np
import proposal_writers as writers
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from proposal_writers import make_record

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import ORDERS
from tf_fast_rcnn.data.proposals import file_proposals
from tf_fast_rcnn.errors import InputError

# The inverse of each order's conversion.
TO_ORDER = {
    "yxyx-relative": lambda boxes, height, width: boxes,
    "xyxy-relative": lambda boxes, height, width: box_algebra.to_xyxy(boxes, 1, 1),
    "xywh-relative": lambda boxes, height, width: box_algebra.to_coco(boxes, 1, 1),
    "xyxy-edges": box_algebra.to_xyxy,
    "yxyx-edges": box_algebra.scale,
    "xywh-edges": box_algebra.to_coco,
    "yxhw-edges": box_algebra.to_paper,
}
for axes, base in itertools.product(("xyxy", "yxyx"), (0, 1)):
    TO_ORDER[f"{axes}-{base}based"] = lambda boxes, height, width, axes=axes, base=base: box_algebra.to_corners(
        boxes, height, width, axes, base
    )


def random_boxes(rng, number, height, width, shorter=0.1):
    """Boxes of whole pixels, a few of which touch the borders, as is usual for regions."""
    sides = rng.uniform(shorter, 0.6, (number, 2))
    corners = rng.uniform(-0.1, 1.1 - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1).clip(0, 1)
    return box_algebra.relative(np.round(box_algebra.scale(boxes, height, width)), height, width)


def make_data(seed, images=12, objects=5, proposals=40, noise=0.1):
    """Records and the proposals of each image: its objects slightly displaced, and random boxes."""
    rng = np.random.default_rng(seed)
    records, boxes = [], {}
    for number in range(images):
        height, width = rng.integers(200, 500, 2)
        truth = random_boxes(rng, objects, height, width)
        sides = np.tile(truth[:, 2:] - truth[:, :2], 2)
        near = (truth + rng.uniform(-noise, noise, truth.shape) * sides).clip(0, 1)
        # Limits the noise so that boxes are not reversed or too small.
        near = np.concatenate([np.minimum(near[:, :2], near[:, 2:]), np.maximum(near[:, :2], near[:, 2:])], axis=1)
        near[:, :2] -= np.where(near[:, 2:] - near[:, :2] < 0.05, np.minimum(near[:, :2], 0.05), 0)
        records.append(make_record(f"image{number}", int(height), int(width), truth))
        anywhere = random_boxes(rng, proposals, height, width)
        boxes[f"image{number}"] = rng.permutation(np.concatenate([near, anywhere])).astype(np.float32)
    return records, boxes


def write_npz(path, records, boxes, order):
    rows = {record.image_id: TO_ORDER[order](boxes[record.image_id], record.height, record.width) for record in records}
    path.write_bytes(writers.npz(rows))
    return path


def near_orders(order):
    """Orders that differ from `order` by at most a pixel."""
    axes, unit = order.split("-")
    units = ("0based", "1based", "edges") if unit != "relative" and axes in ("xyxy", "yxyx") else (unit,)
    return {f"{axes}-{unit}" for unit in units}


PAIRS = [(right, given) for right, given in itertools.permutations(ORDERS, 2) if given not in near_orders(right)]


@settings(max_examples=60, deadline=None)
@given(pair=st.sampled_from(PAIRS), seed=st.integers(0, 10**6))
def test_a_wrong_order_is_recognised_and_the_right_one_named(tmp_path_factory, pair, seed):
    right, given_order = pair
    path = tmp_path_factory.mktemp("order") / "a.npz"
    records, boxes = make_data(seed)
    write_npz(path, records, boxes, right)
    assert file_proposals(path, records, right).report.recall > 0.8
    with pytest.raises(InputError) as error:
        file_proposals(path, records, given_order)
    message = str(error.value)
    assert f"read as {given_order} (recall at IoU 0.5: 0." in message
    assert "(recall 0." in message or "(recall 1.0" in message
    named = message.rpartition("--proposals-order ")[2]
    assert named in near_orders(right)


@pytest.mark.parametrize("axes", ["xyxy", "yxyx"])
@pytest.mark.parametrize(("right", "given_base"), [("0based", "1based"), ("1based", "0based"), ("edges", "0based")])
@pytest.mark.parametrize("objects", [0, 5])
def test_a_wrong_base_shows_at_the_borders(tmp_path, axes, right, given_base, objects):
    records, boxes = make_data(3, objects=objects)
    path = write_npz(tmp_path / "a.npz", records, boxes, f"{axes}-{right}")
    assert file_proposals(path, records, f"{axes}-{right}")
    with pytest.raises(InputError, match=f"they fit as {axes}-{right} .*; use --proposals-order {axes}-{right}"):
        file_proposals(path, records, f"{axes}-{given_base}")


@pytest.mark.parametrize(("shift", "which"), [(1, "previous"), (-1, "next")])
def test_rows_of_the_neighbouring_image(tmp_path, shift, which):
    records, boxes = make_data(4, images=20)
    names = list(boxes)
    # Each name has the proposals of another image.
    shifted = {name: boxes[names[(place - shift) % len(names)]] for place, name in enumerate(names)}
    path = write_npz(tmp_path / "a.npz", records, shifted, "yxyx-relative")
    other = {"previous": "next", "next": "previous"}[which]
    with pytest.raises(
        InputError, match=f"they fit as yxyx-relative of the {other} image .*check the order of the rows"
    ):
        file_proposals(path, records)


@settings(max_examples=40, deadline=None)
@given(
    order=st.sampled_from(list(ORDERS)),
    seed=st.integers(0, 10**6),
    noise=st.floats(0, 1),
    proposals=st.integers(0, 60),
    images=st.integers(1, 12),
    objects=st.integers(0, 8),
)
def test_honest_proposals_pass_however_poor(tmp_path_factory, order, seed, noise, proposals, images, objects):
    assume(proposals + objects)
    path = tmp_path_factory.mktemp("honest") / "a.npz"
    records, boxes = make_data(seed, images, objects, proposals, noise)
    # Poor proposals: the displaced objects are left out.
    if noise > 0.5:
        boxes = {name: rows[::2] for name, rows in boxes.items()}
    report = file_proposals(write_npz(path, records, boxes, order), records, order).report
    best = [
        max([float(box_algebra.iou(truth[None], row[None])[0, 0]) for row in boxes[record.image_id]], default=0)
        for record in records
        for truth in record.boxes
    ]
    if objects:
        assert report.recall == pytest.approx(np.mean([value >= 0.5 for value in best]), abs=1.01 / len(best))
    assert any("recall" in line for line in report.lines()) == (objects > 0 and report.recall < 0.5)


def test_images_are_matched_with_entries(tmp_path):
    records, boxes = make_data(5, images=5)
    path = write_npz(tmp_path / "a.npz", records, boxes, "yxyx-relative")
    assert file_proposals(path, records[:3]).report.fixes == {"images of the file that are not in the data set": 2}
    others = [make_record(f"other{number}") for number in range(4)]
    with pytest.raises(InputError, match=r"no proposals for 4 of 9 images \(other0, other1, other2, ...\)"):
        file_proposals(path, records + others)
    with pytest.raises(InputError, match="2 images match the entry 'image0'; expected one entry per image"):
        file_proposals(path, [*records, make_record("folder/image0")])


def test_numbers_that_are_not_finite(tmp_path):
    path = tmp_path / "a.npz"
    for bad in (np.nan, np.inf, 1e300):
        path.write_bytes(writers.npz({"7": np.array([[0, 0, 0.5, 0.5], [0, 0, bad, 0.5]])}))
        with pytest.raises(InputError, match=r"a.npz, image 7: found \[.*\], not finite"):
            file_proposals(path, [make_record("7")])


def test_boxes_beyond_the_image_in_every_order(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(writers.npz({"7": np.random.default_rng(0).uniform(5000, 9000, (50, 4))}))
    with pytest.raises(InputError, match="found 100% of the proposals beyond their image, reversed or tiny, read as"):
        file_proposals(path, [make_record("7")], "xyxy-0based")
