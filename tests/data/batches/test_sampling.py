"""Sampled RoIs, compared with a naive sampler, numbers computed by hand, and expected frequencies."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_sampler import (
    all_candidates,
    drawn_indices,
    example_of,
    naive_candidates,
    naive_iou,
    naive_target,
    near,
    random_boxes,
    random_example,
)

from tf_fast_rcnn.data.batches.sampling import sample_rois
from tf_fast_rcnn.data.batches.settings import SamplingRules


def sampled(example, rules, seed=(0, 0)):
    """RoIs, labels and targets as arrays."""
    tensors = {name: tf.constant(value) for name, value in example.items()}
    return [value.numpy() for value in sample_rois(tensors, rules, list(seed))]


def many_draws(example, rules, draws):
    """The labels `[draws, R/N]` and RoIs `[draws, R/N, 4]` of a number of draws."""
    tensors = {name: tf.constant(value) for name, value in example.items()}

    def draw(number):
        rois, labels, _ = sample_rois(tensors, rules, [5, number])
        return labels, rois

    labels, rois = tf.map_fn(tf.function(draw), tf.range(draws), fn_output_signature=(tf.int32, tf.float32))
    return labels.numpy(), rois.numpy()


RULES = {
    "foreground_fraction": st.sampled_from([0.25, 0.5, 0.0, 1.0]),
    "background_iou": st.sampled_from([(0.1, 0.5), (0.0, 0.5), (0.2, 0.3)]),
    "with_ground_truth": st.booleans(),
    "difficult": st.sampled_from(["train", "ignore", "drop"]),
    "crowd_overlap": st.sampled_from([0.7, 0.2, 1.0]),
}


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    far=st.integers(0, 40),
    close=st.integers(0, 40),
    objects=st.integers(0, 4),
    rois=st.integers(1, 33),
    shares=st.sampled_from([(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.3, 0.3), (1.0, 0.0), (0.0, 1.0)]),
    rules=st.fixed_dictionaries({}, optional=RULES),
)
def test_what_is_drawn_is_what_a_naive_sampler_may_draw(seed, far, close, objects, rois, shares, rules):
    rules = SamplingRules(1, rois, **rules)
    example = random_example(seed, far, close, objects, *shares)
    foreground, background = naive_candidates(example, rules)
    candidates = all_candidates(example)
    found, labels, targets = sampled(example, rules, (seed, 1))
    assert found.shape == targets.shape == (rois, 4)
    assert (labels.shape, labels.dtype) == ((rois,), np.int32)

    share, drawn_foreground = rules.foreground_fraction * rois, (labels >= 1).sum()
    assert min(np.floor(share), len(foreground)) <= drawn_foreground <= min(np.ceil(share), len(foreground))
    assert (labels == 0).sum() == min(rois - drawn_foreground, len(background))
    drawn = drawn_indices(found[labels >= 0], candidates)
    assert len(set(drawn)) == len(drawn)  # without replacement
    for index, label, target in zip(drawn, labels, targets, strict=False):
        assert index in (foreground if label >= 1 else background)
        if label >= 1:
            assert label == foreground[index][0]
            np.testing.assert_allclose(target, naive_target(candidates[index], foreground[index][1]), atol=1e-4)
    np.testing.assert_array_equal(targets[labels < 1], 0)
    np.testing.assert_array_equal(found[labels < 0], 0)


def test_the_papers_shares_by_hand():
    """64 RoIs of an image: 16 foreground, 48 background from [0.1, 0.5)."""
    example = random_example(1, far=600, close=200)
    rois, labels, _ = sampled(example, SamplingRules())
    truth = example["boxes"].astype(np.float64)
    overlaps = np.array([max(naive_iou(roi, box) for box in truth) for roi in rois.astype(np.float64)])
    np.testing.assert_array_equal(labels >= 1, np.arange(64) < 16)
    assert overlaps[:16].min() >= 0.5
    assert overlaps[16:].min() >= 0.1
    assert overlaps[16:].max() < 0.5


@pytest.mark.parametrize(("rois", "fewest", "most"), [(1, 0, 1), (2, 0, 1), (4, 1, 1), (6, 1, 2), (33, 8, 9)])
def test_a_broken_share_of_foreground_is_right_on_average(rois, fewest, most):
    """Also with one RoI per image, when rounding to the nearest number would never sample any foreground."""
    draws = 600
    labels, _ = many_draws(random_example(2, far=200, close=100), SamplingRules(1, rois), draws)
    counts = (labels >= 1).sum(axis=1)
    assert (counts.min(), counts.max()) == (fewest, most)
    assert ((labels >= 0).sum(axis=1) == rois).all()
    chance = 0.25 * rois % 1
    assert abs(counts.mean() - 0.25 * rois) <= 4 * np.sqrt(chance * (1 - chance) / draws)


def test_missing_foreground_is_made_up_with_background():
    proposals = np.tile(np.float32([0, 0, 0.1, 0.5]), (40, 1))
    proposals[:, 3] += np.linspace(0, 0.01, 40)
    _, labels, _ = sampled(example_of(proposals, [[0, 0, 0.1, 0.1]], [2]), SamplingRules(1, 16))
    np.testing.assert_array_equal(labels, [2] + [0] * 15)


def test_without_background_the_rest_is_ignored():
    """Foreground does not replace missing background, as in the released system."""
    truth = np.float32([[0.2, 0.2, 0.8, 0.8]])
    _, labels, _ = sampled(example_of(np.repeat(truth, 9, axis=0), truth, [3]), SamplingRules(1, 8))
    np.testing.assert_array_equal(labels, [3] * 2 + [-1] * 6)


def test_an_image_without_objects_gives_background_from_anywhere():
    proposals = random_boxes(np.random.default_rng(0), 30)
    rois, labels, targets = sampled(example_of(proposals, [], []), SamplingRules())
    np.testing.assert_array_equal(labels, [0] * 30 + [-1] * 34)
    assert sorted(drawn_indices(rois[:30], proposals)) == list(range(30))
    assert not targets.any()


def test_an_image_without_proposals_gives_its_objects():
    truth = [[0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9]]
    rois, labels, _ = sampled(example_of([], truth, [3, 1]), SamplingRules(1, 8))
    np.testing.assert_array_equal(np.sort(labels), [-1] * 6 + [1, 3])
    np.testing.assert_array_equal(np.sort(rois[:2], axis=0), np.float32(truth))
    _, labels, _ = sampled(example_of([], truth, [3, 1]), SamplingRules(1, 8, with_ground_truth=False))
    np.testing.assert_array_equal(labels, -1)


# A difficult object at the top, a normal one below, and proposals for each; the last touches the difficult one.
DIFFICULT = example_of(
    [[0.0, 0.0, 0.4, 0.5], [0.5, 0.0, 0.9, 0.5], [0.2, 0.0, 0.5, 0.5]],
    [[0.0, 0.0, 0.4, 0.45], [0.5, 0.0, 0.9, 0.45]],
    [1, 2],
    difficult=[True, False],
)


@pytest.mark.parametrize(
    ("difficult", "expected"),
    [
        ("train", {0: 1, 1: 2, 2: 0, 3: 1, 4: 2}),
        ("ignore", {1: 2, 2: 0, 4: 2}),
        ("drop", {1: 2, 4: 2}),  # proposals that only overlap the difficult object are not in [0.1, 0.5)
    ],
)
def test_difficult_objects_by_hand(difficult, expected):
    rules = SamplingRules(1, 8, foreground_fraction=0.5, difficult=difficult)
    rois, labels, _ = sampled(DIFFICULT, rules)
    drawn = drawn_indices(rois[labels >= 0], all_candidates(DIFFICULT))
    assert dict(zip(drawn, labels.tolist(), strict=False)) == expected


def test_dropped_objects_are_background_where_it_is_taken_from_0():
    rules = SamplingRules(1, 8, foreground_fraction=0.5, difficult="drop", background_iou=(0.0, 0.5))
    rois, labels, _ = sampled(DIFFICULT, rules)
    assert sorted(drawn_indices(rois[labels == 0], all_candidates(DIFFICULT))) == [0, 2]


@pytest.mark.parametrize(
    ("crowd_overlap", "expected"), [(0.7, {1: 2, 3: 2}), (0.9, {0: 0, 1: 2, 3: 2}), (1.0, {0: 0, 1: 2, 3: 2})]
)
def test_crowd_regions_by_hand(crowd_overlap, expected):
    """A crowd region on the left, an object on the right. Proposal 0 is 80 % inside the region, and proposal 1, on the
    object, not at all. The region itself is not a candidate."""
    example = example_of(
        [[0.0, 0.0, 0.5, 0.5], [0.0, 0.4, 0.5, 0.9]],
        [[0.0, 0.0, 1.0, 0.4], [0.0, 0.4, 0.5, 0.95]],
        [1, 2],
        crowd=[True, False],
    )
    rules = SamplingRules(1, 8, foreground_fraction=0.5, crowd_overlap=crowd_overlap, background_iou=(0.05, 0.5))
    rois, labels, _ = sampled(example, rules)
    drawn = drawn_indices(rois[labels >= 0], all_candidates(example))
    assert dict(zip(drawn, labels.tolist(), strict=False)) == expected


def test_every_candidate_is_drawn_equally_often():
    """Chi-square of inclusion counts; drawing n of N without replacement has variance p (1 - p) N / (N - 1) of it."""
    rules, draws = SamplingRules(1, 12), 2000
    example = random_example(3, far=60, close=12)
    foreground, background = naive_candidates(example, rules)
    _, rois = many_draws(example, rules, draws)
    candidates = all_candidates(example)
    counts = np.zeros(len(candidates))
    for index, candidate in enumerate(candidates):
        counts[index] = (rois == candidate).all(axis=2).sum()
    for eligible, number in ((sorted(foreground), 3), (sorted(background), 9)):
        assert len(eligible) > number + 4
        share = number / len(eligible)
        chi_square = ((counts[eligible] - draws * share) ** 2).sum() / (draws * share * (1 - share))
        freedom = len(eligible) - 1
        assert abs(chi_square * freedom / len(eligible) - freedom) < 4 * np.sqrt(2 * freedom)
    assert counts.sum() == counts[[*foreground, *background]].sum() == 12 * draws


def test_pairs_of_candidates_are_drawn_independently():
    """3 of 6 background proposals are drawn: each pair is drawn together with probability 3/6 * 2/5 = 1/5."""
    rng, truth = np.random.default_rng(4), np.float32([[0.1, 0.1, 0.6, 0.6]])
    proposals = [box for box in near(rng, truth, 300) if 0.1 < naive_iou(box, truth[0]) < 0.5][:6]
    example, draws = example_of(proposals, truth, [1]), 1500
    _, rois = many_draws(example, SamplingRules(1, 4), draws)
    present = np.stack([(rois == box).all(axis=2).any(axis=1) for box in example["proposals"]], axis=1)
    together = (present[:, :, None] & present[:, None, :]).mean(axis=0)[np.triu_indices(6, 1)]
    assert abs(together - 0.2).max() < 4.5 * np.sqrt(0.2 * 0.8 / draws)


def test_other_seeds_draw_other_rois_and_the_same_seed_the_same():
    example, rules = random_example(5, far=60, close=60), SamplingRules(1, 16)
    first, again, other = (sampled(example, rules, seed)[0] for seed in [(1, 2), (1, 2), (1, 3)])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
