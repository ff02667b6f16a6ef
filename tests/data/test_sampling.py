"""The hierarchical sampler against a naive one, against the pixels of marked images, and against chance."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_fast_rcnn import DetectionDataset, ImageRecord, InputError, boxes
from tf_fast_rcnn.data.batches import hierarchical_batches
from tf_fast_rcnn.data.network_input import PADDING_COLOUR
from tf_fast_rcnn.data.proposals import DenseBoxes, ProposalSettings
from tf_fast_rcnn.data.sampling import SamplingRules, sample_rois
from tf_fast_rcnn.data.statistics import box_statistics

CLASS_NAMES = ("cat", "dog", "cow")
SOME_SETTINGS = ProposalSettings(dense=DenseBoxes(sizes=((0.5, 0.5),), step=0.5))


# --- sample_rois ------------------------------------------------------------------------------------------------------


def naive_iou(first, second):
    top, left = max(first[0], second[0]), max(first[1], second[1])
    bottom, right = min(first[2], second[2]), min(first[3], second[3])
    overlap = max(bottom - top, 0) * max(right - left, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return overlap / (sum(areas) - overlap)


def naive_candidates(proposals, truth, labels, rules):
    """What may be drawn: `{index: (label, object)}` of foreground and `{index}` of background, in float64."""
    foreground, background = {}, set()
    for index, box in enumerate(np.concatenate([proposals, truth]).astype(np.float64)):
        overlaps = [naive_iou(box, other) for other in truth.astype(np.float64)]
        best = int(np.argmax(overlaps)) if overlaps else None
        if overlaps and overlaps[best] >= rules.foreground_iou:
            foreground[index] = (labels[best], truth[best])
        elif not overlaps or rules.background_iou[0] <= overlaps[best] < rules.background_iou[1]:
            background.add(index)
    return foreground, background


def random_boxes(rng, number):
    """Boxes of at least a twentieth of the image, all different."""
    corners = np.sort(rng.uniform(0, 1, (number, 2, 2)), axis=1)
    corners[:, 1] += 0.05
    return corners.reshape(number, 4).astype(np.float32)


def near(rng, truth, number):
    """Jittered copies, of which many are foreground."""
    if not len(truth):
        return np.zeros((0, 4), np.float32)
    copies = truth[rng.integers(0, len(truth), number)]
    sizes = np.tile(copies[:, 2:] - copies[:, :2], 2)
    return (copies + rng.uniform(-0.25, 0.25, copies.shape) * sizes).astype(np.float32)


def random_image(seed, far=20, close=10, objects=3):
    rng = np.random.default_rng(seed)
    truth = random_boxes(rng, objects)
    proposals = np.concatenate([random_boxes(rng, far), near(rng, truth, close)])
    return proposals, truth, rng.integers(1, len(CLASS_NAMES) + 1, objects).astype(np.int32)


def drawn_indices(rois, candidates):
    """Which candidate each RoI is."""
    return [int(np.flatnonzero((candidates == roi).all(axis=1))[0]) for roi in rois]


def sampled(proposals, truth, labels, rules, seed=(0, 0)):
    values = sample_rois(tf.constant(proposals), tf.constant(truth), tf.constant(labels), rules, list(seed))
    return [value.numpy() for value in values]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    far=st.integers(0, 40),
    close=st.integers(0, 40),
    objects=st.integers(0, 4),
    rois=st.integers(1, 33),
    fraction=st.sampled_from([0.25, 0.5, 0.0, 1.0]),
    background_iou=st.sampled_from([(0.1, 0.5), (0.0, 0.5), (0.2, 0.3)]),
)
def test_what_is_drawn_is_what_a_naive_sampler_may_draw(seed, far, close, objects, rois, fraction, background_iou):
    rules = SamplingRules(1, rois, foreground_fraction=fraction, background_iou=background_iou)
    proposals, truth, labels = random_image(seed, far, close, objects)
    foreground, background = naive_candidates(proposals, truth, labels, rules)
    candidates = np.concatenate([proposals, truth])
    found, found_labels, targets = sampled(proposals, truth, labels, rules, (seed, 1))
    assert found.shape == targets.shape == (rois, 4)
    assert (found_labels.shape, found_labels.dtype) == ((rois,), np.int32)

    most_foreground = int(np.round(fraction * rois))
    assert (found_labels >= 1).sum() == min(most_foreground, len(foreground))
    assert (found_labels == 0).sum() == min(rois - (found_labels >= 1).sum(), len(background))
    drawn = drawn_indices(found[found_labels >= 0], candidates)
    assert len(set(drawn)) == len(drawn)  # without replacement
    for index, label, target in zip(drawn, found_labels, targets, strict=False):
        assert index in (foreground if label >= 1 else background)
        if label >= 1:
            assert label == foreground[index][0]
            np.testing.assert_allclose(target, boxes.encode(candidates[index], foreground[index][1]), atol=1e-6)
    np.testing.assert_array_equal(targets[found_labels < 1], 0)
    np.testing.assert_array_equal(found[found_labels < 0], 0)


def test_the_papers_shares_by_hand():
    """64 RoIs of an image: 16 foreground, 48 background from [0.1, 0.5)."""
    proposals, truth, labels = random_image(1, far=600, close=200)
    rois, found_labels, _ = sampled(proposals, truth, labels, SamplingRules())
    overlaps = np.array([max(naive_iou(roi, box) for box in truth) for roi in rois.astype(np.float64)])
    np.testing.assert_array_equal(found_labels >= 1, np.arange(64) < 16)
    assert overlaps[:16].min() >= 0.5
    assert overlaps[16:].min() >= 0.1
    assert overlaps[16:].max() < 0.5


@pytest.mark.parametrize(("rois", "foreground"), [(1, 0), (5, 1), (6, 2), (7, 2), (33, 8)])
def test_any_number_of_rois_an_image(rois, foreground):
    proposals, truth, labels = random_image(2, far=200, close=100)
    _, found_labels, _ = sampled(proposals, truth, labels, SamplingRules(1, rois))
    assert ((found_labels >= 1).sum(), (found_labels == 0).sum()) == (foreground, rois - foreground)


def test_missing_foreground_is_made_up_with_background():
    truth = np.float32([[0, 0, 0.1, 0.1]])
    proposals = np.float32([[0, 0, 0.1, 0.5]] * 40) + np.linspace(0, 0.01, 40, dtype=np.float32)[:, None] * [0, 0, 0, 1]
    _, found_labels, _ = sampled(proposals.astype(np.float32), truth, np.int32([2]), SamplingRules(1, 16))
    np.testing.assert_array_equal(found_labels, [2] + [0] * 15)


def test_without_background_the_rest_is_ignored():
    truth = np.float32([[0.2, 0.2, 0.8, 0.8]])
    _, found_labels, _ = sampled(np.repeat(truth, 9, axis=0), truth, np.int32([3]), SamplingRules(1, 8))
    np.testing.assert_array_equal(found_labels, [3] * 2 + [-1] * 6)


def test_an_image_without_objects_gives_background_from_anywhere():
    proposals = random_boxes(np.random.default_rng(0), 30)
    rois, found_labels, targets = sampled(
        proposals, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), SamplingRules()
    )
    np.testing.assert_array_equal(found_labels, [0] * 30 + [-1] * 34)
    assert sorted(drawn_indices(rois[:30], proposals)) == list(range(30))
    assert not targets.any()


def test_every_candidate_is_drawn_equally_often():
    """Chi-square of inclusion counts; drawing n of N without replacement has variance p (1 - p) N / (N - 1) of it."""
    rules, draws = SamplingRules(1, 12), 2000
    proposals, truth, labels = random_image(3, far=60, close=12)
    foreground, background = naive_candidates(proposals, truth, labels, rules)
    draw = tf.function(lambda seed: sample_rois(proposals, truth, labels, rules, [5, seed])[0])
    rois = tf.map_fn(draw, tf.range(draws), fn_output_signature=tf.float32).numpy()
    candidates = np.concatenate([proposals, truth])
    counts = np.zeros(len(candidates))
    for roi in itertools.chain(*rois):
        counts[(candidates == roi).all(axis=1)] += 1
    for eligible, number in ((sorted(foreground), 3), (sorted(background), 9)):
        assert len(eligible) > number + 4
        share = number / len(eligible)
        chi_square = ((counts[eligible] - draws * share) ** 2).sum() / (draws * share * (1 - share))
        freedom = len(eligible) - 1
        assert abs(chi_square * freedom / len(eligible) - freedom) < 4 * np.sqrt(2 * freedom)
    assert counts.sum() == counts[[*foreground, *background]].sum() == 12 * draws


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"images_per_batch": 3}, r"^rois_per_batch: found 128 for 3 images"),
        ({"images_per_batch": 0}, r"^rois_per_batch: found 128 for 0 images"),
        ({"background_iou": (0.5, 0.1)}, r"^background_iou: found \[0\.5, 0\.1\)"),
        ({"background_iou": (0.1, 0.6)}, r"^background_iou: found \[0\.1, 0\.6\)"),
        ({"background_iou": (-0.1, 0.5)}, r"^background_iou: "),
        ({"foreground_iou": 0.4}, r"^background_iou: .*foreground_iou \(0\.4\)"),
    ],
)
def test_contradicting_rules_are_input_errors(rules, message):
    with pytest.raises(InputError, match=message):
        SamplingRules(**rules)


# --- hierarchical_batches ---------------------------------------------------------------------------------------------


@pytest.fixture
def marked_images(tmp_path):
    """`marked_images([(height, width), ...])`: a black image of each size with one white object. Its green value
    outside the object is the image's number."""

    def make(sizes, count=30):
        rng = np.random.default_rng(0)
        records = []
        for number, (height, width) in enumerate(sizes):
            top, left = rng.integers(2, height // 2), rng.integers(2, width // 2)
            bottom, right = top + rng.integers(12, height // 2), left + rng.integers(12, width // 2)
            pixels = np.zeros((height, width, 3), np.uint8)
            pixels[..., 1] = number
            pixels[top:bottom, left:right] = 255
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
            truth = boxes.relative(np.float32([[top, left, bottom, right]]), height, width)
            candidates = np.concatenate([random_boxes(rng, count), near(rng, truth, count)])
            path = str(tmp_path / f"{number}.png")
            labels, proposals = [1 + number % len(CLASS_NAMES)], boxes.clip(candidates)
            records.append(
                ImageRecord(str(number), path, height, width, truth, labels, [False], proposal_boxes=proposals)
            )
        return DetectionDataset("marked", CLASS_NAMES, records, proposal_settings=SOME_SETTINGS)

    return make


def batches_of(dataset, number, *arguments, **options):
    batches = hierarchical_batches(dataset, *arguments, **{"shorter_side": 48, "longer_side": 200, **options})
    return list(batches.take(number).as_numpy_iterator())


def images_of(batches):
    """The numbers of the images in a list of mini-batches: green values above the object."""
    return [int(np.median(image[:2, :, 1].round())) for inputs, _ in batches for image in inputs["images"]]


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


@pytest.mark.parametrize(("flip", "factor"), [(0.0, 1), (1.0, 1), (1.0, 2)])
def test_boxes_stay_on_the_marked_pixels(marked_images, flip, factor):
    """RoIs and targets, decoded, give the object's box in the resized and perhaps mirrored image, to the pixel."""
    dataset = marked_images([(40, 60), (52, 40), (40, 40)])
    for inputs, targets in batches_of(dataset, 3, 1, 32, flip=flip, shorter_side=40 * factor):
        image, labels = inputs["images"][0], targets["class_logits"][0]
        rows, columns = np.nonzero(image[..., 0] > 127)
        marked = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
        assert len(rows) > 100
        foreground = labels >= 1
        decoded = boxes.decode(inputs["rois"][0][foreground], targets["box_deltas"][0][foreground, 1:])
        assert len(decoded) == 8
        np.testing.assert_allclose(decoded, np.tile(marked, (8, 1)), atol=0.01)
        np.testing.assert_array_equal(targets["box_deltas"][0, :, 0], labels)


def test_half_of_the_images_are_flipped(marked_images):
    dataset = marked_images([(40, 60)])
    lefts = [np.nonzero(inputs["images"][0][..., 0] > 127)[1].min() for inputs, _ in batches_of(dataset, 200, 1, 4)]
    values, counts = np.unique(lefts, return_counts=True)
    assert len(values) == 2
    assert abs(counts[0] - 100) < 4 * np.sqrt(50)


def test_every_pass_visits_every_image_once_in_an_order_of_its_own(marked_images):
    dataset = marked_images([(40 + number, 60) for number in range(5)])
    visited = np.reshape(images_of(batches_of(dataset, 10, 2, 4)), (4, 5))
    np.testing.assert_array_equal(np.sort(visited, axis=1), np.tile(np.arange(5), (4, 1)))
    assert len({tuple(order) for order in visited}) > 1


def test_the_seed_decides_whatever_the_number_of_threads(marked_images):
    dataset = marked_images([(40, 60), (44, 52), (48, 40)])
    first = batches_of(dataset, 6, 2, 8, seed=3)
    assert_equal_batches(first, batches_of(dataset, 6, 2, 8, seed=3))

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    single = hierarchical_batches(dataset, 2, 8, seed=3, shorter_side=48, longer_side=200).with_options(options)
    assert_equal_batches(first, list(single.take(6).as_numpy_iterator()))

    other = batches_of(dataset, 6, 2, 8, seed=4)
    assert any(not np.array_equal(a["rois"], b["rois"]) for (a, _), (b, _) in zip(first, other, strict=True))


@pytest.mark.parametrize("start", [1, 5])
def test_start_passes_over_mini_batches(marked_images, start):
    dataset = marked_images([(40, 60), (44, 52), (48, 40)])
    every = batches_of(dataset, start + 3, 2, 8, seed=1)
    assert_equal_batches(every[start:], batches_of(dataset, 3, 2, 8, seed=1, start=start))


def test_visits_of_one_image_draw_other_rois(marked_images):
    batches = batches_of(marked_images([(40, 60)]), 6, 1, 8, flip=0.0)
    assert len({inputs["rois"].tobytes() for inputs, _ in batches}) == 6


def test_padding_has_imagenets_mean_colour(marked_images):
    dataset = marked_images([(40, 60), (60, 40)])
    [(inputs, targets)] = batches_of(dataset, 1, 2, 8, shorter_side=40)
    assert inputs["images"].shape == (2, 60, 60, 3)
    sizes = [(dataset[number].height, dataset[number].width) for number in images_of([(inputs, targets)])]
    assert sorted(sizes) == [(40, 60), (60, 40)]
    for image, rois, (height, width) in zip(inputs["images"], inputs["rois"], sizes, strict=True):
        padding = np.concatenate([image[height:].reshape(-1, 3), image[:, width:].reshape(-1, 3)])
        np.testing.assert_array_equal(padding, np.tile(np.float32(PADDING_COLOUR), (1200, 1)))
        assert (image[:height, :width, 0] % 255 == 0).all()  # black and white alone
        assert (rois <= [height, width, height, width]).all()


def test_images_without_objects_are_background(marked_images):
    dataset = marked_images([(40, 60), (44, 52)])
    bare = ImageRecord("bare", dataset[0].image_path, 40, 60, [], [], [], proposal_boxes=dataset[0].proposals())
    [(_, targets)] = batches_of(dataset.with_records([bare, bare]), 1, 2, 8)
    assert not targets["class_logits"].any()
    assert not targets["box_deltas"].any()


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


# --- box_statistics ---------------------------------------------------------------------------------------------------


def dataset_of(images):
    """A data set of `(proposals, truth, labels)`; its images are never read."""
    records = []
    for number, (proposals, truth, labels) in enumerate(images):
        difficult = np.zeros(len(labels), bool)
        records.append(
            ImageRecord(str(number), "unread.png", 10, 10, truth, labels, difficult, proposal_boxes=proposals)
        )
    return DetectionDataset("boxes", CLASS_NAMES, records, proposal_settings=SOME_SETTINGS)


def naive_targets(dataset, iou=0.5):
    """The regression targets of each class's foreground candidates: `{label: [n, 4]}`."""
    targets = {label: [] for label in range(1, len(CLASS_NAMES) + 1)}
    for record in dataset:
        rules = SamplingRules(1, 1, foreground_iou=iou, background_iou=(0, iou))
        proposals = record.proposals()
        foreground, _ = naive_candidates(proposals, record.boxes, record.labels, rules)
        candidates = np.concatenate([proposals, record.boxes])
        for index, (label, truth) in foreground.items():
            targets[int(label)].append(boxes.encode(candidates[index], truth).astype(np.float64))
    return {label: np.array(values).reshape(-1, 4) for label, values in targets.items()}


def test_statistics_are_those_of_the_foreground_proposals():
    images = [random_image(seed, far=20, close=120, objects=2 + seed % 3) for seed in range(8)]
    dataset = dataset_of([*images, (random_boxes(np.random.default_rng(0), 5), [], [])])
    statistics = box_statistics(dataset)
    targets = naive_targets(dataset)
    assert all(len(values) >= 50 for values in targets.values())
    assert statistics.mean.dtype == statistics.deviation.dtype == np.float32
    np.testing.assert_allclose(statistics.mean, [t.mean(axis=0) for t in targets.values()], atol=1e-5)
    np.testing.assert_allclose(statistics.deviation, [t.std(axis=0) for t in targets.values()], rtol=1e-4)


def test_a_rare_class_leans_on_all_classes():
    """20 of its own targets and 30 of the average class; a class without any has the statistics of all."""
    proposals, truth, _ = random_image(0, far=0, close=150, objects=1)
    rare_proposals, rare_truth, _ = random_image(1, far=0, close=60, objects=1)
    dataset = dataset_of([(proposals, truth, [1])])
    rare = naive_targets(dataset_of([(rare_proposals, rare_truth, [2])]))[2]
    foreground, _ = naive_candidates(rare_proposals, rare_truth, [2], SamplingRules())
    kept = [index for index in sorted(foreground) if index < len(rare_proposals)][:19]  # and the object itself
    rare = boxes.encode(np.concatenate([rare_proposals[kept], rare_truth]), np.tile(rare_truth, (20, 1)))
    dataset = dataset_of([(proposals, truth, [1]), (rare_proposals[kept], rare_truth, [2])])

    everything = np.concatenate(list(naive_targets(dataset).values()))
    weights = np.concatenate([np.full(20, 1 / 50), np.full(len(everything), 30 / 50 / len(everything))])[:, None]
    values = np.concatenate([rare, everything]).astype(np.float64)
    mean = (weights * values).sum(axis=0)
    deviation = np.sqrt((weights * (values - mean) ** 2).sum(axis=0))
    statistics = box_statistics(dataset)
    np.testing.assert_allclose(statistics.mean[1:], [mean, everything.mean(axis=0)], atol=1e-5)
    np.testing.assert_allclose(statistics.deviation[1:], [deviation, everything.std(axis=0)], rtol=1e-4)


def test_deviations_are_never_0():
    """Objects that are their own only proposals have targets of 0: dividing by their deviation must be possible."""
    truth = random_boxes(np.random.default_rng(0), 60)
    statistics = box_statistics(dataset_of([(np.zeros((0, 4)), truth, [1] * 60)]))
    np.testing.assert_allclose(statistics.mean, 0, atol=1e-6)
    np.testing.assert_allclose(statistics.deviation, 0.01)
