"""Naive detection (Python loops over a model's raw outputs), and the images and proposals that its tests use."""

import cv2
import numpy as np
from PIL import Image

import tf_fast_rcnn as frcnn


def some_image(height=90, width=120, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def some_proposals(number=60, seed=0):
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 0.7, (number, 2)), rng.uniform(0.1, 0.3, (number, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def overlap(first, second):
    """IoU of two boxes."""
    height = min(first[2], second[2]) - max(first[0], second[0])
    width = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(height, 0) * max(width, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared) if shared else 0.0


def raw_outputs(model, image, proposals, settings):
    """Class probabilities `[R, K + 1]` and relative, clipped boxes `[R, K, 4]`, computed by NumPy from the outputs."""
    height, width = image.shape[:2]
    factor = min(settings.shorter_side / min(height, width), settings.longer_side / max(height, width))
    size = round(width * factor), round(height * factor)
    resized = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    rois = proposals * np.float32([size[1], size[0], size[1], size[0]])
    outputs = model({"images": resized[None], "rois": rois[None]}, training=False)
    logits, deltas = outputs["class_logits"].numpy()[0], outputs["box_deltas"].numpy()[0]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    decoded = np.zeros_like(deltas)
    for row, (ymin, xmin, ymax, xmax) in enumerate(proposals):
        h, w = ymax - ymin, xmax - xmin
        for column, (ty, tx, th, tw) in enumerate(deltas[row]):
            y, x = (ymin + ymax) / 2 + ty * h, (xmin + xmax) / 2 + tx * w
            h_, w_ = h * min(np.exp(th), 62.5), w * min(np.exp(tw), 62.5)
            decoded[row, column] = y - h_ / 2, x - w_ / 2, y + h_ / 2, x + w_ / 2
    return exponentials / exponentials.sum(axis=1, keepdims=True), np.clip(decoded, 0, 1)


def naive_detections(model, image, proposals, settings):
    """(score, class, box) of each detection, by decreasing score."""
    return naive_suppression(*raw_outputs(model, image, proposals, settings), settings)


def naive_suppression(probabilities, class_boxes, settings):
    """Non-maximum suppression of the kind that the settings name, box voting, and then the best detections. Of equal
    scores, the lower class and then the earlier row comes first; boxes without area are no detections."""
    candidates = [
        (probabilities[row, label], label, class_boxes[row, label - 1])
        for label in settings.class_ids or range(1, probabilities.shape[1])
        for row in range(len(probabilities))
        if probabilities[row, label] > settings.score_threshold
        and np.all(class_boxes[row, label - 1, 2:] - class_boxes[row, label - 1, :2] >= 1e-6)
    ]
    if settings.nms == "soft":
        found = naive_soft_nms(candidates, settings.soft_nms_sigma, settings.score_threshold)
    else:
        found = []
        for score, label, box in sorted(candidates, key=lambda candidate: -candidate[0]):
            rivals = [kept for _, other, kept in found if other == label or settings.nms == "across-classes"]
            if all(overlap(box, kept) <= settings.nms_iou_threshold for kept in rivals):
                found.append((score, label, box))
    found = found[: settings.max_detections]
    if settings.box_voting is not None:
        found = [
            (score, label, naive_vote(box, probabilities[:, label], class_boxes[:, label - 1], settings.box_voting))
            for score, label, box in found
        ]
    return found


def naive_soft_nms(candidates, sigma, score_threshold):
    """Figure 2 of the Soft-NMS paper, with its Gaussian: (score, class, box) of each detection, in order.

    Args:
        candidates: (score, class, box) in the order that decides between equal scores. Scores within 1e-5 of the
            highest are equal to it.
    """
    left, found = [(float(score), label, box) for score, label, box in candidates], []
    while left:
        highest = max(score for score, _, _ in left)
        if highest <= score_threshold:
            break
        best = next(index for index, (score, _, _) in enumerate(left) if score >= highest * (1 - 1e-5))
        found.append(left.pop(best))
        _, label, box = found[-1]
        left = [
            (score * np.exp(-(overlap(box, other) ** 2) / sigma) if name == label else score, name, other)
            for score, name, other in left
        ]
    return found


def naive_vote(box, scores, boxes, least):
    """The mean of the boxes of a class, weighted by their scores, that have at least this IoU with a detection."""
    voters = [(score, other) for score, other in zip(scores, boxes, strict=True) if overlap(box, other) >= least - 1e-5]
    return sum(score * other for score, other in voters) / sum(score for score, _ in voters)


def assert_same(found, expected):
    """Asserts that `Detections` equal other `Detections`, or (score, class, box) rows, in the same order.

    Detections of two classes may swap places if their scores differ only by rounding.
    """
    if not isinstance(expected, frcnn.Detections):
        scores, classes, boxes = zip(*expected, strict=True)
        expected = frcnn.Detections(np.array(boxes), np.array(scores), np.array(classes))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    for label in {*found.class_ids, *expected.class_ids}:
        mine, theirs = found.class_ids == label, expected.class_ids == label
        np.testing.assert_allclose(found.scores[mine], expected.scores[theirs], atol=1e-4)
        np.testing.assert_allclose(found.boxes[mine], expected.boxes[theirs], atol=1e-4)
