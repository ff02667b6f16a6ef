"""The options for the fields of `DetectionSettings`."""

import argparse

import pytest

from tf_fast_rcnn.commands.detection_options import add_detection_arguments, chosen_settings
from tf_fast_rcnn.training.run_folder import Run


def settings_of(*arguments):
    """The settings of a run whose recipe has another NMS threshold than the paper."""
    parser = argparse.ArgumentParser()
    add_detection_arguments(parser)
    run = Run("runs/cells", None, ("cat", "dog"), None, 480, 800, {"recipe": {"nms_iou_threshold": 0.45}})
    return chosen_settings(parser.parse_args(arguments), run)


def test_without_options_the_settings_are_those_of_training():
    settings = settings_of()
    assert (settings.shorter_side, settings.longer_side, settings.nms_iou_threshold) == (480, 800, 0.45)


@pytest.mark.parametrize("option", ["--nms-iou-threshold", "--nms-iou"])
def test_an_nms_threshold_replaces_the_recipes(option):
    assert settings_of(option, "0.2").nms_iou_threshold == 0.2
