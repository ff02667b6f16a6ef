"""The sampler's settings: contradictions are one-line errors, and settings survive JSON."""

import dataclasses
import json

import pytest

from tf_fast_rcnn import InputError
from tf_fast_rcnn.data.batches.settings import SamplingRules, detection_side


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"images_per_batch": 3}, r"^rois_per_batch: found 128 for 3 images"),
        ({"images_per_batch": 0}, r"^rois_per_batch: found 128 for 0 images"),
        ({"rois_per_batch": 0}, r"^rois_per_batch: found 0 for 2 images"),
        ({"background_iou": (0.5, 0.1)}, r"^background_iou: found \[0\.5, 0\.1\)"),
        ({"background_iou": (0.1, 0.6)}, r"^background_iou: found \[0\.1, 0\.6\)"),
        ({"background_iou": (-0.1, 0.5)}, r"^background_iou: "),
        ({"background_iou": 0.1}, r"^background_iou: found 0\.1; expected two numbers"),
        ({"foreground_iou": 0.4}, r"^background_iou: .*foreground_iou \(0\.4\)"),
        ({"foreground_fraction": 1.5}, r"^foreground_fraction: found 1\.5; expected 0 to 1"),
        ({"difficult": "yes"}, r"^difficult: found 'yes'; expected one of train, ignore, drop"),
        ({"crowd_overlap": -1.0}, r"^crowd_overlap: found -1\.0"),
        ({"horizontal_flip_prob": 2.0}, r"^horizontal_flip_prob: found 2\.0"),
        ({"vertical_flip_prob": float("nan")}, r"^vertical_flip_prob: found nan"),
        ({"shorter_side": ()}, r"^shorter_side, longer_side: found \(\), 1000"),
        ({"shorter_side": (480, 0)}, r"^shorter_side, longer_side: found \(480, 0\), 1000"),
        ({"longer_side": 0}, r"^shorter_side, longer_side: found 600, 0"),
        ({"scale_jitter": (1.2, 0.8)}, r"^scale_jitter: found \(1\.2, 0\.8\)"),
        ({"hue": 0.6}, r"^hue: found 0\.6; expected 0 to 0\.5"),
        ({"brightness": -0.1}, r"^brightness: found -0\.1"),
        ({"pad_to": (600,)}, r"^pad_to: found \(600,\); expected two numbers"),
        ({"pad_to": (600, 0)}, r"^pad_to: found \(600, 0\)"),
    ],
)
def test_contradicting_rules_are_input_errors(rules, message):
    with pytest.raises(InputError, match=message) as error:
        SamplingRules(**rules)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "rules", [{}, {"shorter_side": (480, 1200), "pad_to": (600, 1000), "scale_jitter": (0.5, 2.0), "difficult": "drop"}]
)
def test_rules_survive_json(rules):
    rules = SamplingRules(**rules)
    assert SamplingRules(**json.loads(json.dumps(dataclasses.asdict(rules)))) == rules


@pytest.mark.parametrize(("images", "rois", "expected"), [(2, 128, 64), (1, 128, 128), (128, 128, 1)])
def test_rois_of_an_image(images, rois, expected):
    assert SamplingRules(images, rois).rois_per_image == expected


@pytest.mark.parametrize(("shorter_side", "expected"), [(600, 600), ((600,), 600), ([1200, 480, 688, 864, 576], 688)])
def test_detection_after_multi_scale_training_takes_the_middle_scale(shorter_side, expected):
    assert detection_side(shorter_side) == expected
