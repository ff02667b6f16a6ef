"""Identical and similar images, against a search that compares all pairs."""

import doctest
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from tf_fast_rcnn.browsing import duplicates
from tf_fast_rcnn.browsing.duplicates import DuplicateImages


@pytest.fixture(scope="module")
def photograph():
    """A photograph of a flower, 427 x 640."""
    return load_sample_images().images[1]


def groups(images):
    found = DuplicateImages()
    for index, image in enumerate(images):
        found.add(index, image)
    return found.identical(), found.similar()


def saved_again(image, quality=60):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def resized(image, width, height):
    return np.array(Image.fromarray(image).resize((width, height)))


def test_equal_pixels_are_found_whatever_lies_between(photograph):
    other = np.roll(photograph, 100, axis=1)
    assert groups([photograph, other, photograph.copy(), other[::-1], photograph]) == ([(0, 2, 4)], [])


def test_one_different_pixel_is_similar_and_not_identical(photograph):
    changed = photograph.copy()
    changed[5, 5] ^= 1
    assert groups([photograph, changed]) == ([], [(0, 1)])


@pytest.mark.parametrize("alter", [saved_again, lambda image: resized(image, 320, 214)])
def test_saved_again_or_resized_is_similar(photograph, alter):
    assert groups([photograph, photograph[:, ::-1], alter(photograph)]) == ([], [(0, 2)])


def test_identical_images_are_one_of_a_group_of_similar_ones(photograph):
    again = saved_again(photograph)
    assert groups([photograph, again, photograph, again]) == ([(0, 2), (1, 3)], [(0, 1)])


def test_another_part_of_the_scene_or_another_light_is_not_a_duplicate(photograph):
    darker = (photograph * 0.8).astype(np.uint8)
    assert groups([photograph, photograph[:, 60:], darker, photograph[::-1]]) == ([], [])


def test_uniform_images_of_different_colours_are_not_similar():
    """Their hashes are all equal, so the small copies must decide."""
    assert groups([np.full((40, 60, 3), grey, np.uint8) for grey in range(0, 256, 16)]) == ([], [])


def test_the_same_bytes_in_another_shape_are_not_identical():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    assert groups([pixels, pixels.reshape(40, 30, 3)])[0] == []


def test_buckets_find_what_comparing_with_all_groups_finds():
    """On copies of a few images with noise of many strengths, on both sides of the limits."""
    rng = np.random.default_rng(3)
    scenes = [
        np.array(Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((90, 80), Image.Resampling.BICUBIC))
        for _ in range(6)
    ]
    images = []
    for _ in range(90):
        noisy = scenes[rng.integers(6)] + rng.normal(0, 1, (80, 90, 3)) * rng.choice([2, 10, 40, 80])
        images.append(np.clip(noisy, 0, 255).astype(np.uint8))
    signatures = [duplicates._signature(image) for image in images]
    expected = []
    for index, (code, copy) in enumerate(signatures):
        for group in expected:
            first_code, first_copy = signatures[group[0]]
            bits = bin(int(code) ^ int(first_code)).count("1")
            if bits <= 3 and np.mean(np.abs(copy.astype(float) - first_copy.astype(float))) <= 3:
                group.append(index)
                break
        else:
            expected.append([index])
    similar = groups(images)[1]
    assert similar == [tuple(group) for group in expected if len(group) > 1]
    assert len(similar) >= 3
    assert len(expected) > 6, "some noise is too strong to be similar"


def test_docstring_examples():
    assert doctest.testmod(duplicates) == (0, 3)
