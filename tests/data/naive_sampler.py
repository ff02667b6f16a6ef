"""A reference sampler of plain loops in float64, and random images and boxes, some with known pixels."""

import math

import numpy as np
from PIL import Image

from tf_fast_rcnn import DetectionDataset, ImageRecord, boxes
from tf_fast_rcnn.data.proposals import DenseBoxes, ProposalSettings

CLASS_NAMES = ("cat", "dog", "cow")
SOME_SETTINGS = ProposalSettings(dense=DenseBoxes(sizes=((0.5, 0.5),), step=0.5))


def naive_overlap(first, second):
    """The area of the intersection of two boxes, and their areas."""
    height = min(first[2], second[2]) - max(first[0], second[0])
    width = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return max(height, 0) * max(width, 0), *areas


def naive_iou(first, second):
    overlap, area, other_area = naive_overlap(first, second)
    return overlap / (area + other_area - overlap)


def naive_target(proposal, truth):
    """(ty, tx, th, tw) of appendix C of the R-CNN paper, in Python's floats."""
    (top, left, bottom, right), (g_top, g_left, g_bottom, g_right) = map(float, proposal), map(float, truth)
    height, width = bottom - top, right - left
    return [
        ((g_top + g_bottom) / 2 - (top + bottom) / 2) / height,
        ((g_left + g_right) / 2 - (left + right) / 2) / width,
        math.log((g_bottom - g_top) / height),
        math.log((g_right - g_left) / width),
    ]


def naive_candidates(example, rules):
    """The candidates of an image: `{index: (label, object)}` for foreground, `{index}` for background."""
    foreground, background = {}, set()
    flags = list(zip(example["difficult"], example["crowd"], strict=True))
    objects = [
        number for number, (difficult, crowd) in enumerate(flags) if not crowd and not (difficult and _dropped(rules))
    ]
    truth = example["boxes"].astype(np.float64)
    count = len(example["proposals"])
    candidates = [(index, box) for index, box in enumerate(example["proposals"].astype(np.float64))]
    candidates = [(index, box) for index, box in candidates if not _crowded(box, truth[example["crowd"]], rules)]
    if rules.with_ground_truth:
        candidates += [(count + number, truth[number]) for number in objects]
    for index, box in candidates:
        overlaps = [naive_iou(box, truth[number]) for number in objects]
        best = int(np.argmax(overlaps)) if overlaps else None
        if overlaps and overlaps[best] >= rules.foreground_iou:
            if not (example["difficult"][objects[best]] and rules.difficult == "ignore"):
                foreground[index] = (example["class_ids"][objects[best]], truth[objects[best]])
        elif not overlaps or rules.background_iou[0] <= overlaps[best] < rules.background_iou[1]:
            background.add(index)
    return foreground, background


def _dropped(rules):
    return rules.difficult == "drop"


def _crowded(box, regions, rules):
    for region in regions:
        overlap, area, _ = naive_overlap(box, region)
        if overlap > rules.crowd_overlap * area:
            return True
    return False


def random_boxes(rng, number):
    """Boxes of at least a twentieth of the image, all different."""
    corners = np.sort(rng.uniform(0, 1, (number, 2, 2)), axis=1)
    corners[:, 1] += 0.05
    return corners.reshape(number, 4).astype(np.float32)


def near(rng, truth, number):
    """Jittered copies of boxes, many of which are foreground."""
    if not len(truth):
        return np.zeros((0, 4), np.float32)
    copies = truth[rng.integers(0, len(truth), number)]
    sizes = np.tile(copies[:, 2:] - copies[:, :2], 2)
    return (copies + rng.uniform(-0.25, 0.25, copies.shape) * sizes).astype(np.float32)


def example_of(proposals, truth, labels, difficult=None, crowd=None):
    """An image as returned by `example_reader`, but as NumPy arrays."""
    none = np.zeros(len(truth), bool)
    return {
        "proposals": np.asarray(proposals, np.float32).reshape(-1, 4),
        "boxes": np.asarray(truth, np.float32).reshape(-1, 4),
        "class_ids": np.asarray(labels, np.int32),
        "difficult": none if difficult is None else np.asarray(difficult, bool),
        "crowd": none if crowd is None else np.asarray(crowd, bool),
    }


def random_example(seed, far=20, close=10, objects=3, difficult=0.0, crowd=0.0):
    """Random objects with proposals near and far; some of the objects are difficult, or crowds."""
    rng = np.random.default_rng(seed)
    truth = random_boxes(rng, objects)
    proposals = np.concatenate([random_boxes(rng, far), near(rng, truth, close)])
    labels = rng.integers(1, len(CLASS_NAMES) + 1, objects)
    return example_of(proposals, truth, labels, rng.random(objects) < difficult, rng.random(objects) < crowd)


def all_candidates(example):
    return np.concatenate([example["proposals"], example["boxes"]])


def drawn_indices(rois, candidates):
    """The index of each RoI among the candidates."""
    return [int(np.flatnonzero((candidates == roi).all(axis=1))[0]) for roi in rois]


def marked_dataset(folder, sizes, count=30):
    """Black images of sizes (height, width) with one white object each, and twice `count` proposals. Their green value
    outside the object is the image's number."""
    rng = np.random.default_rng(0)
    records = []
    for number, (height, width) in enumerate(sizes):
        top, left = rng.integers(2, height // 2), rng.integers(2, width // 2)
        bottom, right = top + rng.integers(12, height // 2), left + rng.integers(12, width // 2)
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 1] = number
        pixels[top:bottom, left:right] = 255
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        truth = boxes.relative(np.float32([[top, left, bottom, right]]), height, width)
        proposals = boxes.clip(np.concatenate([random_boxes(rng, count), near(rng, truth, count)]))
        labels = [1 + number % len(CLASS_NAMES)]
        records.append(
            ImageRecord(str(number), str(path), height, width, truth, labels, [False], proposal_boxes=proposals)
        )
    return DetectionDataset("marked", CLASS_NAMES, records, proposals=SOME_SETTINGS)
