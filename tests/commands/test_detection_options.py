"""The options for the fields of `DetectionSettings`."""

import argparse

import pytest

from tf_fast_rcnn.commands.detection_options import add_detection_arguments, chosen_settings
from tf_fast_rcnn.data.tiles import Tiles
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.training.run_folder import Run


def settings_of(*arguments, **recipe):
    """The settings of a run whose recipe has another NMS threshold than the paper."""
    parser = argparse.ArgumentParser()
    add_detection_arguments(parser)
    run = Run("runs/cells", None, ("cat", "dog"), None, 480, 800, {"recipe": {"nms_iou_threshold": 0.45, **recipe}})
    return chosen_settings(parser.parse_args(arguments), run)


def test_without_options_the_settings_are_those_of_training():
    settings = settings_of()
    assert (settings.shorter_side, settings.longer_side, settings.nms_iou_threshold) == (480, 800, 0.45)


@pytest.mark.parametrize("option", ["--nms-iou-threshold", "--nms-iou"])
def test_an_nms_threshold_replaces_the_recipes(option):
    assert settings_of(option, "0.2").nms_iou_threshold == 0.2


def test_tiles_are_those_of_training_or_of_the_options():
    in_tiles = {"tile": 240, "tile_overlap": 0.3, "whole_image": False}
    assert settings_of().tiles is None
    assert settings_of(**in_tiles).tiles == Tiles(240, 0.3, False)
    assert settings_of("--tile", "100", "--overlap", "0.25", **in_tiles).tiles == Tiles(100, 0.25, False)
    assert settings_of("--tile", "none", **in_tiles).tiles is None
    assert settings_of("--tile", "100").tiles == Tiles(100, 0.2, True)


def test_the_first_pass_is_that_of_the_recipe_or_of_the_option():
    assert settings_of().screening_rank is None
    assert settings_of(screening_rank=32).screening_rank == 32
    assert settings_of("--screening-rank", "16", screening_rank=32).screening_rank == 16
    assert settings_of("--screening-rank", "none", screening_rank=32).screening_rank is None


@pytest.mark.parametrize("tile", [(), ("--tile", "none")])
def test_an_overlap_without_tiles(tile):
    with pytest.raises(InputError, match=r"^--overlap: found 0.3 without tiles; expected --tile PIXELS with it"):
        settings_of("--overlap", "0.3", *tile)


def test_tiles_and_an_image_pyramid_exclude_each_other():
    with pytest.raises(InputError, match=r"^shorter_side: found \(480, 600\); expected one number of pixels"):
        settings_of("--tile", "100", "--shorter-side", "480,600")


def test_kinds_of_suppression_and_box_voting():
    default = settings_of()
    assert (default.nms, default.soft_nms_sigma, default.box_voting) == ("per-class", 0.5, None)
    changed = settings_of("--nms", "soft", "--soft-nms-sigma", "0.25", "--box-voting")
    assert (changed.nms, changed.soft_nms_sigma, changed.box_voting) == ("soft", 0.25, 0.5)
    assert settings_of("--nms", "across-classes").nms == "across-classes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nms", "soft", "--nms-iou-threshold", "0.3"), "--nms-iou-threshold: found with --nms soft"),
        (("--soft-nms-sigma", "0.3"), "--soft-nms-sigma: found with --nms per-class; only --nms soft"),
        (("--nms", "across-classes", "--soft-nms-sigma", "1"), "--soft-nms-sigma: found with --nms across-classes"),
    ],
    ids=str,
)
def test_options_without_effect_are_refused(arguments, message):
    with pytest.raises(InputError, match=f"^{message}"):
        settings_of(*arguments)


@pytest.mark.parametrize("sigma", ["0", "-1", "nan", "inf", "x"])
def test_a_sigma_that_is_none(sigma, capsys):
    with pytest.raises(SystemExit):
        settings_of("--nms", "soft", "--soft-nms-sigma", sigma)
    assert "--soft-nms-sigma: " in capsys.readouterr().err
