"""Choices that a recipe leaves to the data, against datasets whose object sizes are worked out by hand."""

import dataclasses

import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.training.choices import settle
from tf_fast_rcnn.training.recipes import small_data, voc07

SIDE = 480  # of the images and of the network's input: a relative side of 0.1 is 48 pixels


def dataset(*sides_of_classes, crowd=()):
    """One image of 480 x 480 with square objects of the given sides in pixels, a tuple for each class."""
    boxes, class_ids = [], []
    for class_id, sides in enumerate(sides_of_classes, start=1):
        for side in sides:
            boxes.append([0.0, 0.0, side / SIDE, side / SIDE])
            class_ids.append(class_id)
    record = frcnn.ImageRecord(
        "image",
        "image.png",
        SIDE,
        SIDE,
        np.float32(boxes).reshape(-1, 4),
        np.int32(class_ids),
        np.zeros(len(boxes), bool),
        crowd=np.isin(np.arange(len(boxes)), crowd),
    )
    return frcnn.DetectionDataset("made", [f"c{number + 1}" for number in range(len(sides_of_classes))], [record])


def strides(data, backbone="efficientnet_lite0", recipe=None):
    settled, reasons = settle(recipe or small_data(), data, backbone)
    return settled.network.stride, reasons


def test_objects_of_at_least_seven_cells_of_stride_16_do_without_stride_8():
    assert strides(dataset((112, 200, 300)))[0] == (16, 32)
    assert strides(dataset((100,)))[0] == (8, 16, 32)


def test_the_class_with_the_smallest_objects_decides():
    stride, (reason, _) = strides(dataset((300, 300), (40, 40)))
    assert stride == (8, 16, 32)
    assert "of class c2 (tenth percentile) are 40 pixels" in reason


def test_a_few_small_objects_of_a_class_do_not_decide():
    # The tenth percentile of one 20 and nineteen 200 is 200.
    assert strides(dataset((20, *[200] * 19)))[0] == (16, 32)


def test_crowds_are_no_objects():
    assert strides(dataset((20, 200, 200), crowd=(0,)))[0] == (16, 32)


def test_sizes_are_those_in_the_networks_input():
    recipe = small_data()
    half = dataclasses.replace(recipe, sampling=dataclasses.replace(recipe.sampling, shorter_side=SIDE // 2))
    assert strides(dataset((200,)), recipe=half)[0] == (8, 16, 32)


def test_a_network_without_a_stride_is_not_asked_for_it(tiny_backbone):
    stride, (reason, _) = strides(dataset((40,)), tiny_backbone)
    assert stride == (8,)  # its feature maps have strides 4 and 8
    assert reason.endswith("tiny_network has strides 1, 4, 8")


def test_a_reused_head_continues_from_one_map(tiny_backbone):
    recipe = frcnn.recipe("small-data", {"network.head": "reuse"})
    assert strides(dataset((40,)), recipe=recipe)[0] == 16
    assert strides(dataset((40,)), tiny_backbone, recipe)[0] == 8


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "caffenet", "vgg_cnn_m_1024", "caffe_vgg16"])
def test_reused_fully_connected_layers_continue_from_one_map(name):
    assert strides(dataset((40,)), name)[0] == 16
    new_layers = frcnn.recipe("small-data", {"network.head": "fc"})
    assert strides(dataset((40,)), name, new_layers)[0] == (8, 16, 32)


def test_a_run_to_start_from_decides():
    for stride, expected in (([8, 16], (8, 16)), (16, 16)):
        start = {"recipe": {"network": {"stride": stride}}}
        assert settle(small_data(), dataset((300,)), "efficientnet_lite0", start)[0].network.stride == expected


@pytest.mark.parametrize(
    "recipe", [voc07(), frcnn.recipe("small-data", {"network.stride": 8, "jitter": "given", "tile": None})]
)
def test_given_choices_stay(recipe):
    assert settle(recipe, dataset((40,)), recipe.backbone) == (recipe, [])


def jitter(data, changes=None):
    settled, reasons = settle(frcnn.recipe("small-data", changes or {}), data, "efficientnet_lite0")
    assert settled.jitter == "given"
    return settled.sampling, reasons[-1]


def test_images_of_large_objects_change_their_scale_and_colours():
    sampling, reason = jitter(dataset((112, 200)))
    assert sampling.scale_jitter == (0.7, 1.2)
    assert (sampling.brightness, sampling.contrast, sampling.saturation, sampling.hue) == (0.1, 0.2, 0.2, 0.0)
    assert reason.startswith("images are scaled by 0.7 to 1.2 and change their colours at random: ")


def test_images_of_small_objects_stay_as_they_are():
    sampling, reason = jitter(dataset((200, 300), (60,)))
    assert sampling == small_data().sampling
    assert "the small objects of class c2 are 60 pixels in the network's input, smaller than 112" in reason


def test_ranges_of_your_own_are_kept():
    sampling, _ = jitter(dataset((200,)), {"sampling.brightness": "0.3"})
    assert (sampling.brightness, sampling.scale_jitter) == (0.3, (1.0, 1.0))


def test_the_papers_recipes_have_no_jitter():
    assert settle(voc07(), dataset((200,)), "vgg16")[0].sampling.scale_jitter == (1.0, 1.0)


# --- tiles ------------------------------------------------------------------------------------------------------------


def large_image(*sides, height=1080, width=1920):
    """One image with square objects of the given sides in pixels."""
    boxes = [[0.0, 0.0, side / height, side / width] for side in sides]
    record = frcnn.ImageRecord("image", "image.png", height, width, boxes, [1] * len(boxes), [False] * len(boxes))
    return frcnn.DetectionDataset("made", ["c1"], [record])


def tiled(data, **changes):
    settled, reasons = settle(frcnn.recipe("small-data", changes), data, "efficientnet_lite0")
    return settled, reasons


def test_small_objects_of_large_images_are_seen_in_tiles():
    """All 12 pixels: 5.3 in a network's input of 480 rows. In tiles of 240 they have 24 of 480 rows."""
    settled, reasons = tiled(large_image(*[12] * 20))
    # One and a half objects are 18 of 240 pixels, less than the smallest overlap.
    assert (settled.tile, settled.tile_overlap, settled.whole_image) == (240, 0.1, False)
    assert settled.sampling.difficult == "ignore"
    assert reasons[0].startswith("half of the objects are smaller than 5 pixels in the network's input")
    assert reasons[1] == "images are seen in tiles of 240 pixels that overlap by 10%"
    assert settled.tiles == frcnn.Tiles(240, 0.1, False)


def test_larger_objects_are_seen_in_the_whole_image():
    settled, reasons = tiled(large_image(*[12] * 18, 40, 300))
    assert (settled.tile, settled.tile_overlap, settled.whole_image) == (240, 0.3, True)
    assert reasons[1].endswith("; objects above 72 pixels are found in the whole image")


@pytest.mark.parametrize(
    "data",
    [
        large_image(*[60] * 20),  # 27 pixels in the network's input
        dataset((20,) * 20),  # a tile would be 400 of 480 pixels
        large_image(*[12] * 9, *[60] * 11),  # the median object is large
    ],
)
def test_other_objects_are_seen_in_whole_images(data):
    settled, _ = tiled(data)
    assert (settled.tile, settled.tiles, settled.sampling.difficult) == (None, None, "train")


def test_given_tiles_stay():
    settled, reasons = tiled(large_image(100, 100), tile=300, tile_overlap=0.5)
    assert settled.tiles == frcnn.Tiles(300, 0.5, False)
    assert reasons[0] == "images are seen in tiles of 300 pixels that overlap by 50%"


def test_tiles_that_are_given_as_a_whole_still_ignore_cut_objects():
    settled, _ = tiled(large_image(20, 20), tile=300, tile_overlap=0.5, whole_image=False)
    assert (settled.tiles, settled.sampling.difficult) == (frcnn.Tiles(300, 0.5, False), "ignore")


def test_objects_that_no_view_shows_are_refused():
    with pytest.raises(frcnn.InputError, match=r"^whole_image: found false, and objects of up to 100 pixels"):
        tiled(large_image(20, 100), tile=300, tile_overlap=0.2, whole_image=False)


def test_strides_are_chosen_for_the_size_in_tiles():
    _, reasons = tiled(large_image(*[12] * 20))
    assert "are 24 pixels in the network's input" in reasons[2]
