"""Types of errors: cases made by hand, a loop over detections with the definitions of TIDE, and gains compared with
detections that are fixed and scored again."""

import dataclasses
import json

import numpy as np
import pytest

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.breakdown import KINDS, break_down

SIDE = 100


def record(image_id, boxes, labels, difficult=None):
    difficult = np.zeros(len(labels)) if difficult is None else difficult
    return ImageRecord(image_id, "", SIDE, SIDE, np.float32(boxes).reshape(-1, 4) / SIDE, labels, difficult)


def detections(boxes, scores, classes):
    return Detections(np.float32(boxes).reshape(-1, 4) / SIDE, np.float32(scores), np.int32(classes))


def broken_down(records, found, names=("cat", "dog"), protocol="voc10"):
    dataset = DetectionDataset("errors", names, records)
    return break_down(dataset, found, score_detections(dataset, found, protocol))


CAT, DOG = [0, 0, 20, 20], [50, 50, 90, 90]


@pytest.mark.parametrize(
    ("box", "label", "kind"),
    [
        ([0, 0, 20, 6], 1, "localisation"),  # IoU 0.3 with the cat
        (CAT, 2, "classification"),
        ([0, 0, 20, 6], 2, "both"),
        ([0, 0, 20, 1], 1, "background"),  # IoU 0.05
        ([20, 20, 40, 40], 2, "background"),
        ([0, 0, 20, 15], 1, "duplicate"),
        ([0, 0, 20, 10], 1, "duplicate"),  # IoU of exactly 0.5
        ([0, 0, 20, 2], 1, "localisation"),  # exactly 0.1
    ],
)
@pytest.mark.parametrize("protocol", ["voc07", "voc10", "coco"])
def test_each_kind(box, label, kind, protocol):
    """Another detection finds the cat; the dog is missed."""
    found = [detections([CAT, box], [0.9, 0.4], [1, label])]
    errors = broken_down([record("0", [CAT, DOG], [1, 2])], found, protocol=protocol)
    assert errors.kinds.tolist() == [-1, KINDS.index(kind)]
    assert errors.missed.tolist() == [False, True]
    expected = np.zeros((6, 2), int)
    expected[KINDS.index(kind), label - 1] += 1
    expected[KINDS.index("missed"), 1] += 1
    np.testing.assert_array_equal(errors.counts, expected)
    expected[KINDS.index(kind), label - 1] -= 1  # its score is below 0.5
    np.testing.assert_array_equal(errors.confident_counts, expected)


def test_an_object_that_an_error_is_about_is_not_missed():
    near, wrong = [0, 0, 20, 6], [50, 50, 90, 88]
    errors = broken_down([record("0", [CAT, DOG], [1, 2])], [detections([near, wrong], [0.9, 0.8], [1, 1])])
    assert [KINDS[kind] for kind in errors.kinds] == ["localisation", "classification"]
    assert not errors.missed.any()
    # AP of cats: 0, and 1 with the first box fixed. AP of dogs: 0.
    assert errors.mean_ap == 0
    assert errors.gains["localisation"] == pytest.approx(0.5)
    assert errors.gains["classification"] == pytest.approx(0.5)
    assert errors.gains["background"] == errors.gains["missed"] == 0


def test_a_class_that_is_missed_altogether_gains_all_of_its_ap():
    errors = broken_down([record("0", [CAT, DOG], [1, 2])], [detections([CAT], [0.9], [1])])
    assert errors.mean_ap == 0.5
    assert errors.gains["missed"] == errors.gains["false negatives"] == 0.5
    assert errors.gains["false positives"] == 0


def test_difficult_objects_are_not_looked_at():
    records = [record("0", [CAT, DOG], [1, 2], [True, True])]
    errors = broken_down(records, [detections([CAT, DOG, [0, 0, 20, 6]], [0.9, 0.8, 0.7], [1, 1, 1])])
    assert errors.kinds.tolist() == [-1, KINDS.index("background"), KINDS.index("background")]
    assert not errors.missed.any()
    assert errors.to_json(["cat", "dog"])["mean_ap"] is None


@pytest.mark.parametrize("protocol", ["voc07", "coco"])
def test_nothing_at_all(protocol):
    errors = broken_down([record("0", [], []), record("1", [], [])], [detections([], [], [])] * 2, protocol=protocol)
    assert not errors.counts.any()
    only_false = broken_down([record("0", [], [])], [detections([CAT], [0.9], [2])], protocol=protocol)
    assert only_false.counts[KINDS.index("background")].tolist() == [0, 1]


def random_case(seed, num_images=25):
    """Errors of every type; some objects of every class are detected."""
    rng = np.random.default_rng(seed)
    records, found = [], []
    for number in range(num_images):
        corners = rng.integers(0, 60, (5, 2))
        boxes = np.concatenate([corners, corners + rng.integers(10, 40, (5, 2))], axis=1)
        labels = rng.integers(1, 4, 5)
        shifts = rng.choice([0, 4, 10, 30], (3, 5, 1), p=[0.4, 0.3, 0.2, 0.1]) * rng.choice([-1, 1], (3, 5, 4))
        boxes_found = np.sort((boxes + shifts).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        classes = np.where(rng.random((3, 5)) < 0.75, labels, rng.integers(1, 4, (3, 5))).reshape(-1)
        kept = rng.permutation(15)[:9]
        records.append(record(f"{number}", boxes, labels, rng.random(5) < 0.15))
        scores = rng.permutation(1000)[:9] / 1000 + number / 1e5  # all different
        found.append(detections(boxes_found[kept], scores, classes[kept]))
    return records, found


def overlap(first, second):
    height = min(first[2], second[2]) - max(first[0], second[0])
    width = min(first[3], second[3]) - max(first[1], second[1])
    both = max(height, 0) * max(width, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)


def naive_errors(dataset, found, true, counts):
    """`(image, detection, type, object or None)` of each false positive, by the definitions of TIDE in their order."""
    position, errors = 0, []
    for image, (record, of_image) in enumerate(zip(dataset, found, strict=True)):
        objects = [n for n in range(len(record.class_ids)) if not record.difficult[n]]
        for index, (box, label) in enumerate(zip(of_image.boxes, of_image.class_ids, strict=True)):
            ious = {n: overlap(np.rint(box * 100), np.rint(record.boxes[n] * 100)) for n in objects}
            same = {n: iou for n, iou in ious.items() if record.class_ids[n] == label}
            other = {n: iou for n, iou in ious.items() if record.class_ids[n] != label}
            best_same = max(same, key=same.get) if same else None
            best_other = max(other, key=other.get) if other else None
            if true[position] or not counts[position]:
                pass
            elif same and 0.1 <= same[best_same] < 0.5:
                errors.append((image, index, "localisation", best_same))
            elif other and other[best_other] >= 0.5:
                errors.append((image, index, "classification", best_other))
            elif same and same[best_same] >= 0.5:
                errors.append((image, index, "duplicate", None))
            elif max(ious.values(), default=0) < 0.1:
                errors.append((image, index, "background", None))
            else:
                errors.append((image, index, "both", None))
            position += 1
    return errors


def fixed(dataset, found, errors, kind, object_found):
    """The detections with all errors of a type fixed."""
    found = [[list(column) for column in (each.boxes, each.scores, each.class_ids)] for each in found]
    removed = []
    claimed = set()
    chosen = [error for error in errors if error[2] == kind]
    for image, index, _, about in sorted(chosen, key=lambda error: -found[error[0]][1][error[1]]):
        if about is None or object_found[image][about] or (image, about) in claimed:
            removed.append((image, index))
            continue
        claimed.add((image, about))
        found[image][0][index] = dataset[image].boxes[about]
        found[image][2][index] = dataset[image].class_ids[about]
    for image, index in sorted(removed, reverse=True):
        for column in found[image]:
            del column[index]
    return [Detections(np.float32(b).reshape(-1, 4), np.float32(s), np.int32(c)) for b, s, c in found]


def score(dataset, found, protocol):
    result = score_detections(dataset, found, protocol)
    return result.metrics["AP50"] if protocol == "coco" else result.mean_ap


@pytest.mark.parametrize("protocol", ["voc07", "voc10", "coco"])
@pytest.mark.parametrize("seed", range(3))
def test_gains_are_those_of_fixed_detections(protocol, seed):
    records, found = random_case(seed)
    dataset = DetectionDataset("random", ["cat", "dog", "ox"], records)
    result = score_detections(dataset, found, protocol)
    breakdown = break_down(dataset, found, result)
    matching = result.matchings[0]
    assert breakdown.mean_ap == pytest.approx(score(dataset, found, protocol))
    errors = naive_errors(dataset, found, matching.true, matching.counts)
    expected = np.full(len(matching.scores), -1)
    for image, index, kind, _ in errors:
        expected[sum(len(each.scores) for each in found[:image]) + index] = KINDS.index(kind)
    np.testing.assert_array_equal(breakdown.kinds, expected)
    object_found = np.split(matching.found(), np.cumsum([len(each.class_ids) for each in records])[:-1])
    for kind in KINDS[:-1]:
        assert sum(error[2] == kind for error in errors) > 3
        gained = score(dataset, fixed(dataset, found, errors, kind, object_found), protocol) - breakdown.mean_ap
        assert breakdown.gains[kind] == pytest.approx(gained, abs=1e-9), kind
    about = {(image, number) for image, _, _, number in errors}
    missed = [
        [
            not (there or difficult or (image, number) in about)
            for number, (there, difficult) in enumerate(zip(of_image, records[image].difficult, strict=True))
        ]
        for image, of_image in enumerate(object_found)
    ]
    np.testing.assert_array_equal(breakdown.missed, np.concatenate(missed))
    assert breakdown.missed.sum() > 3
    for name, dropped in (
        ("missed", missed),
        ("false negatives", [~there & ~r.difficult for there, r in zip(object_found, records, strict=True)]),
    ):
        fewer = [without(each, np.array(drop)) for each, drop in zip(records, dropped, strict=True)]
        gained = score(dataset.with_records(fewer), found, protocol) - breakdown.mean_ap
        assert breakdown.gains[name] == pytest.approx(gained, abs=1e-9), name


def without(record, dropped):
    kept = ~dropped
    return dataclasses.replace(
        record,
        boxes=record.boxes[kept],
        class_ids=record.class_ids[kept],
        difficult=record.difficult[kept],
        crowd=record.crowd[kept],
    )


def test_json_names_kinds_and_classes():
    found = [detections([CAT, [0, 0, 20, 6]], [0.9, 0.8], [1, 2])]
    errors = broken_down([record("0", [CAT, DOG], [1, 2])], found)
    facts = json.loads(json.dumps(errors.to_json(["cat", "dog"]), allow_nan=False))
    assert list(facts["counts"]) == list(KINDS)
    assert facts["counts"]["both"] == facts["confident_counts"]["both"] == {"cat": 0, "dog": 1}
    assert facts["gains"]["missed"] == pytest.approx(0.5)
