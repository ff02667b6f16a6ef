"""The order of images: permutations, resumption, and mini-batches of similar shapes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn.data.batches.image_order import image_order


def numbers(*arguments, count, **options):
    """The first images in order, after checking the positions."""
    pairs = list(itertools.islice(image_order(*arguments, **options).as_numpy_iterator(), count))
    begin = options.get("start", 0) * arguments[1]
    assert [position for position, _ in pairs] == list(range(begin, begin + count))
    return [int(image) for _, image in pairs]


def random_sizes(number, seed=0):
    return np.random.default_rng(seed).integers(300, 700, (number, 2))


@settings(deadline=None, max_examples=15)
@given(
    images=st.integers(1, 40),
    batch=st.integers(1, 9),
    seed=st.integers(-3, 2**31),
    start=st.integers(0, 30),
    similar=st.booleans(),
)
def test_every_pass_is_a_permutation_and_start_goes_on_within_it(images, batch, seed, start, similar):
    sizes = random_sizes(images) if similar else None
    count = 3 * images + start * batch
    every = numbers(images, batch, seed, sizes=sizes, count=count)
    for number in range(3):
        assert sorted(every[number * images : (number + 1) * images]) == list(range(images))
    resumed = numbers(images, batch, seed, start=start, sizes=sizes, count=count - start * batch)
    assert resumed == every[start * batch :]


def test_passes_and_seeds_differ():
    every = numbers(30, 2, 1, count=60)
    assert every[:30] != every[30:]
    assert every != numbers(30, 2, 2, count=60)
    assert every == numbers(30, 2, 1, count=60)


def test_every_image_comes_first_equally_often():
    """Chi-square over the first images of 1500 passes."""
    counts = np.bincount(numbers(5, 1, 3, count=7500)[::5], minlength=5)
    assert ((counts - 300) ** 2 / 300).sum() < 18.5  # exceeded by chance once in a thousand times, at 4 degrees


@pytest.mark.parametrize("start", [10**6, 10**12])
def test_a_far_start_costs_nothing(start):
    """If the earlier positions were skipped one by one, this would take minutes or forever."""
    assert len(set(numbers(50, 2, 0, start=start, count=50))) == 50


@pytest.mark.parametrize(("images", "batch"), [(60, 2), (61, 4), (400, 4)])
def test_similar_shapes_share_mini_batches(images, batch):
    """All mini-batches that do not span two passes consist of neighbours in the order of aspect ratios."""
    sizes = random_sizes(images)
    aspects = np.log(sizes[:, 0] / sizes[:, 1])
    groups = -(-images // (50 * batch))

    def spreads(sizes):
        order = np.array(numbers(images, batch, 0, sizes=sizes, count=5 * images // batch * batch))
        return np.ptp(aspects[order.reshape(-1, batch)], axis=1)

    similar, mixed = spreads(sizes), spreads(None)
    shared = np.array(
        [number * batch // images != (number * batch + batch - 1) // images for number in range(len(mixed))]
    )
    # After sorting, the spreads of a group's mini-batches add up to no more than the total range.
    assert similar[~shared].sum() <= 5 * groups * np.ptp(aspects)
    assert similar[~shared].sum() < 0.25 * mixed[~shared].sum()
    assert shared.sum() == (0 if images % batch == 0 else 3)


def test_partners_and_order_of_similar_shapes_change_from_pass_to_pass():
    sizes = random_sizes(400)
    batches = np.reshape(numbers(400, 2, 0, sizes=sizes, count=800), (2, 200, 2))
    first, second = ({frozenset(pair) for pair in one_pass.tolist()} for one_pass in batches)
    assert len(first & second) < 20
    aspects = np.log(sizes[:, 0] / sizes[:, 1])[batches[0, :, 0]]
    assert abs(np.corrcoef(aspects, np.arange(200))[0, 1]) < 0.25  # shuffled, not ordered from wide to tall
