"""Statistics of regression targets, compared with those of a naive sampler's candidates."""

import numpy as np
import pytest
from naive_sampler import (
    CLASS_NAMES,
    SOME_SETTINGS,
    all_candidates,
    example_of,
    naive_candidates,
    random_boxes,
    random_example,
)

from tf_fast_rcnn import DetectionDataset, ImageRecord, boxes
from tf_fast_rcnn.data.batches.settings import SamplingRules
from tf_fast_rcnn.data.statistics import box_statistics


def dataset_of(examples):
    """A data set of examples; its images are never read."""
    records = [
        ImageRecord(
            str(number),
            "unread.png",
            10,
            10,
            example["boxes"],
            example["class_ids"],
            example["difficult"],
            example["crowd"],
            proposal_boxes=example["proposals"],
        )
        for number, example in enumerate(examples)
    ]
    return DetectionDataset("boxes", CLASS_NAMES, records, proposals=SOME_SETTINGS)


def naive_targets(examples, **rules):
    """The regression targets of each class's foreground candidates: `{label: [n, 4]}`."""
    targets = {label: [] for label in range(1, len(CLASS_NAMES) + 1)}
    for example in examples:
        foreground, _ = naive_candidates(example, SamplingRules(crowd_overlap=1.0, **rules))
        for index, (label, truth) in foreground.items():
            targets[int(label)].append(boxes.encode(all_candidates(example)[index], truth).astype(np.float64))
    return {label: np.array(values).reshape(-1, 4) for label, values in targets.items()}


def assert_statistics_are_of(statistics, targets):
    assert all(len(values) >= 50 for values in targets.values())
    np.testing.assert_allclose(statistics.mean, [t.mean(axis=0) for t in targets.values()], atol=1e-5)
    np.testing.assert_allclose(statistics.std, [t.std(axis=0) for t in targets.values()], rtol=1e-4)


def test_statistics_are_those_of_the_foreground_proposals():
    examples = [random_example(seed, far=20, close=120, objects=2 + seed % 3) for seed in range(8)]
    examples.append(example_of(random_boxes(np.random.default_rng(0), 5), [], []))
    statistics = box_statistics(dataset_of(examples))
    assert statistics.mean.dtype == statistics.std.dtype == np.float32
    assert_statistics_are_of(statistics, naive_targets(examples))


@pytest.mark.parametrize("difficult", ["train", "drop"])
def test_crowds_and_dropped_objects_have_no_targets(difficult):
    examples = [random_example(seed, 20, 200, 4, difficult=0.3, crowd=0.3) for seed in range(8)]
    assert any((example["crowd"] & ~example["difficult"]).any() for example in examples)
    statistics = box_statistics(dataset_of(examples), difficult=difficult)
    assert_statistics_are_of(statistics, naive_targets(examples, difficult=difficult))


def test_a_rare_class_leans_on_all_classes():
    """A class with 20 targets is completed with 30 average ones; one without any has the statistics of all classes."""
    common, rare = random_example(0, far=0, close=150, objects=1), random_example(1, far=0, close=60, objects=1)
    common["class_ids"][:], rare["class_ids"][:] = 1, 2
    foreground, _ = naive_candidates(rare, SamplingRules())
    kept = [index for index in sorted(foreground) if index < len(rare["proposals"])][:19]  # and the object itself
    rare["proposals"] = rare["proposals"][kept]

    targets = naive_targets([common, rare])
    assert len(targets[2]) == 20
    everything = np.concatenate(list(targets.values()))
    weights = np.concatenate([np.full(20, 1 / 50), np.full(len(everything), 30 / 50 / len(everything))])[:, None]
    values = np.concatenate([targets[2], everything]).astype(np.float64)
    mean = (weights * values).sum(axis=0)
    deviation = np.sqrt((weights * (values - mean) ** 2).sum(axis=0))
    statistics = box_statistics(dataset_of([common, rare]))
    np.testing.assert_allclose(statistics.mean[1:], [mean, everything.mean(axis=0)], atol=1e-5)
    np.testing.assert_allclose(statistics.std[1:], [deviation, everything.std(axis=0)], rtol=1e-4)


def test_deviations_are_never_0():
    """If objects are their only proposals, all targets are 0; it must be possible to divide by their deviation."""
    truth = random_boxes(np.random.default_rng(0), 60)
    statistics = box_statistics(dataset_of([example_of([], truth, [1] * 60)]))
    np.testing.assert_allclose(statistics.mean, 0, atol=1e-6)
    np.testing.assert_allclose(statistics.std, 0.01)
