"""Mini-batches, compared with pixels of marked images: boxes, scales, padding, order, reproducibility."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from naive_sampler import CLASS_NAMES, marked_dataset

from tf_fast_rcnn import DetectionDataset, ImageRecord, InputError, boxes
from tf_fast_rcnn.data.batches.hierarchical import hierarchical_batches, roi_centric_batches
from tf_fast_rcnn.data.network_input import PADDING_GREY

SIDES = {"shorter_side": 48, "longer_side": 200}


@pytest.fixture
def marked_images(tmp_path):
    """See `marked_dataset`."""
    return lambda sizes, **options: marked_dataset(tmp_path, sizes, **options)


def batches_of(dataset, number, *arguments, **options):
    batches = hierarchical_batches(dataset, *arguments, **{**SIDES, **options})
    return list(batches.take(number).as_numpy_iterator())


def images_of(batches):
    """The image numbers in a list of mini-batches, from the green values above the object."""
    return [int(np.median(image[:2, :8, 1].round())) for inputs, _ in batches for image in inputs["images"]]


def marked_box(image):
    """The white object's box in pixels."""
    rows, columns = np.nonzero(image[..., 0] > 127)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


def assert_equal_batches(first, second):
    assert len(first) == len(second) > 0
    tf.nest.map_structure(np.testing.assert_array_equal, first, second)


def test_shapes_types_and_names(marked_images):
    [(inputs, targets)] = batches_of(marked_images([(40, 60), (48, 48)]), 1, 2, 10)
    described = {name: (value.shape, value.dtype.name) for name, value in {**inputs, **targets}.items()}
    assert described == {
        "images": ((2, 48, inputs["images"].shape[2], 3), "float32"),
        "rois": ((2, 5, 4), "float32"),
        "class_logits": ((2, 5), "int32"),
        "box_deltas": ((2, 5, 5), "float32"),
    }


@pytest.mark.parametrize(
    "options",
    [
        {"horizontal_flip_prob": 0.0},
        {"horizontal_flip_prob": 1.0},
        {"horizontal_flip_prob": 0.0, "vertical_flip_prob": 1.0},
        {"horizontal_flip_prob": 1.0, "vertical_flip_prob": 1.0, "shorter_side": 80},
        {"shorter_side": (40, 80, 120)},
        {"pad_to": (90, 100)},
    ],
    ids=str,
)
def test_boxes_stay_on_the_marked_pixels(marked_images, options):
    """RoIs and targets decode to the object's box in the resized and possibly flipped image, to the pixel."""
    dataset = marked_images([(40, 60), (52, 40), (40, 40)])
    for inputs, targets in batches_of(dataset, 6, 1, 32, **{"shorter_side": 40, **options}):
        image, labels = inputs["images"][0], targets["class_logits"][0]
        image = image * (image[..., :1] != PADDING_GREY)
        factor = image.shape[0] / 40
        foreground = labels >= 1
        decoded = boxes.decode(inputs["rois"][0][foreground], targets["box_deltas"][0][foreground, 1:])
        assert len(decoded) == 8
        np.testing.assert_allclose(decoded, np.tile(decoded[0], (8, 1)), atol=0.01)
        np.testing.assert_allclose(decoded[0], marked_box(image), atol=0.01 if factor == 1 else 0.9)
        np.testing.assert_array_equal(targets["box_deltas"][0, :, 0], labels)


@pytest.mark.parametrize(("options", "values"), [({}, 2), ({"vertical_flip_prob": 0.5}, 4)])
def test_half_of_the_images_are_flipped(marked_images, options, values):
    batches = batches_of(marked_images([(40, 60)]), 200, 1, 4, **options)
    corners = [tuple(marked_box(inputs["images"][0])[:2]) for inputs, _ in batches]
    found, counts = np.unique(corners, axis=0, return_counts=True)
    assert len(found) == values
    share = 1 / values
    assert abs(counts - 200 * share).max() < 4 * np.sqrt(200 * share * (1 - share))


def test_scales_are_drawn_from_the_list_and_capped(marked_images):
    """For each image separately; images of (40, 60) are at most 100 pixels long, which limits the largest scale."""
    dataset = marked_images([(40, 60)])
    batches = batches_of(dataset, 120, 1, 4, shorter_side=(40, 56, 80), longer_side=100)
    sizes, counts = np.unique([inputs["images"].shape[1:3] for inputs, _ in batches], axis=0, return_counts=True)
    np.testing.assert_array_equal(sizes, [[40, 60], [56, 84], [67, 100]])
    assert abs(counts - 40).max() < 4 * np.sqrt(120 * 2 / 9)
    [(inputs, _)] = batches_of(dataset, 1, 8, 8, shorter_side=(40, 56, 80), longer_side=100)
    assert len({tuple(marked_box(image)) for image in inputs["images"]}) > 2


def test_scale_jitter_stays_in_its_range(marked_images):
    batches = batches_of(marked_images([(40, 60)]), 60, 1, 4, shorter_side=60, scale_jitter=(0.5, 1.25))
    heights = np.array([inputs["images"].shape[1] for inputs, _ in batches])
    assert 30 <= heights.min() < 38
    assert 68 < heights.max() <= 75


def test_colours_change_and_boxes_do_not(marked_images):
    dataset = marked_images([(40, 60), (44, 52)])
    plain = batches_of(dataset, 2, 2, 8)
    jittered = batches_of(dataset, 2, 2, 8, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1)
    for (inputs, targets), (other_inputs, other_targets) in zip(plain, jittered, strict=True):
        assert_equal_batches([(inputs["rois"], targets)], [(other_inputs["rois"], other_targets)])
        assert not np.allclose(inputs["images"], other_inputs["images"])


def test_every_pass_visits_every_image_once_in_an_order_of_its_own(marked_images):
    dataset = marked_images([(40 + number, 60) for number in range(5)])
    visited = np.reshape(images_of(batches_of(dataset, 10, 2, 4)), (4, 5))
    np.testing.assert_array_equal(np.sort(visited, axis=1), np.tile(np.arange(5), (4, 1)))
    assert len({tuple(order) for order in visited}) > 1


def test_images_of_similar_shapes_share_a_mini_batch_and_a_scale(marked_images):
    dataset = marked_images([(40, 60), (60, 40)] * 6)
    batches = batches_of(dataset, 6, 2, 4, similar_shapes=True, shorter_side=(40, 60, 80))
    assert sorted(images_of(batches)) == list(range(12))
    assert not any((inputs["images"] == PADDING_GREY).any() for inputs, _ in batches)
    assert len({min(inputs["images"].shape[1:3]) for inputs, _ in batches}) > 1


# --- the same for every machine ---------------------------------------------------------------------------------------

VARIED = {"shorter_side": (40, 56), "vertical_flip_prob": 0.5, "hue": 0.1, "scale_jitter": (0.9, 1.1)}


def digest(batches):
    return hashlib.sha256(b"".join(value.tobytes() for value in tf.nest.flatten(batches))).hexdigest()


def test_the_seed_decides_whatever_the_number_of_threads(marked_images):
    dataset = marked_images([(40, 60), (44, 52), (48, 40)])
    first = batches_of(dataset, 6, 2, 8, seed=3, **VARIED)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    single = hierarchical_batches(dataset, 2, 8, seed=3, **{**SIDES, **VARIED}).with_options(options)
    assert_equal_batches(first, list(single.take(6).as_numpy_iterator()))

    other = batches_of(dataset, 6, 2, 8, seed=4, **VARIED)
    assert any(not np.array_equal(a["rois"], b["rois"]) for (a, _), (b, _) in zip(first, other, strict=True))


def test_another_process_with_one_thread_goes_on_with_the_same_mini_batches(marked_images, tmp_path):
    expected = batches_of(marked_images([(40, 60), (44, 52), (48, 40)]), 7, 2, 8, seed=3, **VARIED)[4:]
    code = f"""
import pathlib, sys
sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.threading.set_intra_op_parallelism_threads(1)
from naive_sampler import marked_dataset
from test_batches import VARIED, batches_of, digest
dataset = marked_dataset(pathlib.Path(sys.argv[1]), [(40, 60), (44, 52), (48, 40)])
print(digest(batches_of(dataset, 3, 2, 8, seed=3, start=4, **VARIED)))
"""
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(expected)


@pytest.mark.parametrize("start", [1, 5])
@pytest.mark.parametrize("options", [{}, {"similar_shapes": True}], ids=str)
def test_start_is_what_skipping_gives(marked_images, start, options):
    dataset = marked_images([(40, 60), (44, 52), (48, 40)])
    batches = hierarchical_batches(dataset, 2, 8, seed=1, **SIDES, **options)
    skipped = list(batches.skip(start).take(3).as_numpy_iterator())
    assert_equal_batches(skipped, batches_of(dataset, 3, 2, 8, seed=1, start=start, **options))


def test_start_reads_nothing_that_came_before(marked_images, tmp_path):
    """The images before `start` may even have been deleted."""
    dataset = marked_images([(40 + number, 60) for number in range(6)])
    expected = batches_of(dataset, 3, 2, 8)
    for number in images_of(expected[:2]):
        (tmp_path / f"{number}.png").unlink()
    [(inputs, _)] = hierarchical_batches(dataset, 2, 8, start=2, **SIDES).take(1).as_numpy_iterator()
    np.testing.assert_array_equal(inputs["images"], expected[2][0]["images"])


def test_visits_of_one_image_draw_other_rois(marked_images):
    batches = batches_of(marked_images([(40, 60)]), 6, 1, 8, horizontal_flip_prob=0.0)
    assert len({inputs["rois"].tobytes() for inputs, _ in batches}) == 6


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "padded"), [({}, (60, 60)), ({"pad_to": (70, 80)}, (70, 80))])
def test_padding_is_grey(marked_images, options, padded):
    dataset = marked_images([(40, 60), (60, 40)])
    [(inputs, targets)] = batches_of(dataset, 1, 2, 8, shorter_side=40, **options)
    assert inputs["images"].shape == (2, *padded, 3)
    sizes = [(dataset[number].height, dataset[number].width) for number in images_of([(inputs, targets)])]
    assert sorted(sizes) == [(40, 60), (60, 40)]
    for image, rois, (height, width) in zip(inputs["images"], inputs["rois"], sizes, strict=True):
        np.testing.assert_array_equal(image[height:], PADDING_GREY)
        np.testing.assert_array_equal(image[:, width:], PADDING_GREY)
        assert (image[:height, :width, 0] % 255 == 0).all()  # only black and white
        assert (rois <= [height, width, height, width]).all()


def test_static_shapes_compile_with_xla(marked_images):
    dataset = marked_images([(40, 60), (60, 40), (44, 52)])
    batches = hierarchical_batches(dataset, 2, 8, pad_to=(50, 60), **SIDES)
    shapes = {name: spec.shape.as_list() for part in batches.element_spec for name, spec in part.items()}
    assert shapes == {"images": [2, 50, 60, 3], "rois": [2, 4, 4], "class_logits": [2, 4], "box_deltas": [2, 4, 5]}

    def step(inputs, targets):
        return tf.reduce_sum(inputs["images"], axis=[1, 2]), tf.reduce_sum(targets["class_logits"])

    compiled = tf.function(step, jit_compile=True, input_signature=batches.element_spec)
    for inputs, targets in batches.take(3):
        sums, labels = compiled(inputs, targets)
        np.testing.assert_allclose(sums, inputs["images"].numpy().sum(axis=(1, 2)), rtol=1e-4)
        assert labels == targets["class_logits"].numpy().sum()


def test_images_larger_than_the_static_size_are_resized_to_fit(marked_images):
    [(inputs, _)] = batches_of(marked_images([(60, 40)]), 1, 1, 4, shorter_side=60, pad_to=(45, 90))
    assert (inputs["images"][0, :45, :30] != PADDING_GREY).all()
    np.testing.assert_array_equal(inputs["images"][0, :, 30:], PADDING_GREY)


# --- what is special --------------------------------------------------------------------------------------------------


def test_images_without_objects_are_background(marked_images):
    dataset = marked_images([(40, 60), (44, 52)])
    bare = ImageRecord("bare", dataset[0].image_path, 40, 60, [], [], [], proposal_boxes=dataset[0].proposals())
    [(_, targets)] = batches_of(dataset.with_records([bare, bare]), 1, 2, 8)
    assert not targets["class_logits"].any()
    assert not targets["box_deltas"].any()


def test_difficult_and_crowd_objects_reach_the_sampler(marked_images):
    [record] = marked_images([(40, 60)])
    for changes, options in (({"difficult": [True]}, {"difficult": "drop"}), ({"crowd": [True]}, {"crowd_overlap": 1})):
        dataset = marked_images([(40, 60)]).with_records([dataclasses.replace(record, **changes)])
        [(_, targets)] = batches_of(dataset, 1, 1, 32, **options)
        assert not (targets["class_logits"] >= 1).any()


def test_roi_centric_mini_batches_have_one_roi_of_each_image(marked_images):
    dataset = marked_images([(40 + number, 60) for number in range(8)], count=40)
    batches = list(roi_centric_batches(dataset, 8, **SIDES).take(50).as_numpy_iterator())
    for inputs, targets in batches:
        assert inputs["rois"].shape == (8, 1, 4)
        assert (targets["class_logits"] >= 0).all()
        assert sorted(images_of([(inputs, targets)])) == list(range(8))
    foreground = np.mean([targets["class_logits"] >= 1 for _, targets in batches])
    assert abs(foreground - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


def test_an_empty_data_set_is_an_input_error():
    with pytest.raises(InputError, match=r"^nothing: found no images"):
        hierarchical_batches(DetectionDataset("nothing", CLASS_NAMES, []))


def test_proposals_that_are_missing_are_computed(marked_images, tmp_path):
    dataset = marked_images([(40, 60), (44, 52)])
    bare = [dataclasses.replace(record, proposal_boxes=None) for record in dataset]
    dataset = DetectionDataset("bare", CLASS_NAMES, bare)
    [(_, targets)] = batches_of(dataset, 1, 2, 8, cache_dir=tmp_path / "cache")
    assert (targets["class_logits"] >= 1).any()
    assert list((tmp_path / "cache").rglob("manifest.json"))
