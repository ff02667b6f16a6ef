"""The findings and statistics that one pass over a dataset collects."""

import dataclasses
import weakref

import numpy as np
import pytest

from tf_fast_rcnn.browsing.findings import KINDS
from tf_fast_rcnn.browsing.survey import survey_dataset
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.errors import InputError


def places(survey):
    """A dict from kind to `(images, objects)` of its findings."""
    return {
        kind: [(each.images, each.objects) for each in findings]
        for kind, findings in survey.findings.items()
        if findings
    }


def test_each_kind_of_finding_is_where_it_was_put(odd_dataset):
    survey = survey_dataset(odd_dataset, progress=False)
    assert places(survey) == {
        "mistyped_classes": [((), ())],
        "classes_without_objects": [((), ())],
        "rare_classes": [((), ()), ((), ())],
        "images_without_labels": [((3,), ())],
        "identical_images": [((0, 3), ())],
        "similar_images": [((2, 4), ())],
        "duplicate_boxes": [((0,), (0, 1))],
        "boxes_of_two_classes": [((2,), (1, 2))],
        "tiny_boxes": [((1,), (1,))],
        "huge_boxes": [((1,), (0,))],
        "extreme_aspects": [((2,), (0,))],
        "missed_objects": [((4,), (0,))],
    }
    assert set(survey.findings) == set(KINDS)


def test_correct_images_have_no_findings(odd_dataset):
    survey = survey_dataset(odd_dataset[5:].with_class_names(["cat"]), progress=False)
    assert places(survey) == {"rare_classes": [((), ())]}
    assert survey.findings["rare_classes"][0].text == "cat: 6 objects"


def test_numbers_of_classes_by_hand(odd_dataset):
    cat, other_cat, hostile, ghost = survey_dataset(odd_dataset, progress=False).classes
    assert cat[:4] == (1, "cat", 12, 10)
    assert cat.recall == pytest.approx(11 / 12)
    assert cat.median_size == pytest.approx(np.sqrt(0.15), abs=1e-6)
    assert other_cat[:4] == (2, "Cat ", 1, 1)
    assert (hostile.objects, hostile.images, hostile.recall) == (2, 1, 1.0)
    assert ghost[2:] == (0, 0, 0, 0, None, None)


def random_boxes(rng, count):
    corners = rng.uniform(0, 0.5, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(0.1, 0.5, (count, 2))], axis=1).astype(np.float32)


def test_recall_is_that_of_a_naive_count(odd_dataset):
    """Crowds do not count, and objects in images without proposals count as missed."""
    rng = np.random.default_rng(0)
    records = []
    for index in range(8):
        count = int(rng.integers(0, 5))
        records.append(
            dataclasses.replace(
                odd_dataset[index],
                boxes=random_boxes(rng, count),
                class_ids=rng.integers(1, 3, count),
                difficult=rng.random(count) < 0.3,
                crowd=rng.random(count) < 0.3,
                proposal_boxes=random_boxes(rng, 0 if index == 3 else 40),
            )
        )
    survey = survey_dataset(odd_dataset.with_records(records), progress=False)
    best, best_of_ten = {1: [], 2: []}, []
    for record in records:
        for box, label, crowd in zip(record.boxes, record.class_ids, record.crowd, strict=True):
            ious = [naive_iou(box, proposal) for proposal in record.proposals()]
            if not crowd:
                best[label].append(max(ious, default=0))
                best_of_ten.append(max(ious[:10], default=0))
    both = np.array(best[1] + best[2])
    assert len(both) > 5
    by_iou = dict(zip(survey.recall.thresholds, survey.recall.by_iou, strict=True))
    for iou in (0.5, 0.6, 0.75):
        assert by_iou[iou] == pytest.approx(np.mean(both >= iou))
    assert survey.recall.counts == (1, 3, 10, 30, 40)
    assert survey.recall.by_count[2] == pytest.approx(np.mean(np.array(best_of_ten) >= 0.5))
    for of_class in survey.classes[:2]:
        assert of_class.recall == pytest.approx(np.mean(np.array(best[of_class.label]) >= 0.5))
    assert survey.proposals_per_image.tolist() == [40, 40, 40, 0, 40, 40, 40, 40]


def naive_iou(first, second):
    height = max(min(first[2], second[2]) - max(first[0], second[0]), 0)
    width = max(min(first[3], second[3]) - max(first[1], second[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return height * width / (sum(areas) - height * width)


def test_unreadable_images_are_listed_or_raised(odd_dataset, tmp_path):
    broken = dataclasses.replace(odd_dataset[1], image_path=str(tmp_path / "gone.png"))
    dataset = odd_dataset.with_records([odd_dataset[0], broken, odd_dataset[2]])
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        survey_dataset(dataset, progress=False)
    drawn = []
    survey = survey_dataset(dataset, skip_bad=True, progress=False, draw=lambda facts, image: drawn.append(facts.index))
    (finding,) = survey.findings["unreadable_images"]
    assert finding.images == (1,)
    assert "gone.png: no such file" in finding.text
    assert drawn == [0, 2]


def test_no_images_at_all(odd_dataset):
    survey = survey_dataset(odd_dataset[:0], progress=False)
    assert [each.objects for each in survey.classes] == [0, 0, 0, 0]
    assert survey.recall is None
    assert len(survey.measures.class_ids) == 0


def test_every_image_is_read_once_and_none_is_kept(odd_dataset, monkeypatch):
    """Memory does not grow with the number of images."""
    images = []
    original = ImageRecord.image

    def image(record):
        pixels = original(record)
        images.append(weakref.ref(pixels))
        assert sum(each() is not None for each in images) <= 2, "this image and the one before it"
        return pixels

    monkeypatch.setattr(ImageRecord, "image", image)
    survey_dataset(odd_dataset, progress=False)
    assert len(images) == len(odd_dataset)
