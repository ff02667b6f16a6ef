"""Recipes: the paper's numbers, schedules compared with their formulas, and the commands in the docstrings."""

import dataclasses
import itertools
import json
import math
import re
import shlex

import keras
import numpy as np
import pytest

from tf_fast_rcnn import InputError, cli, fast_rcnn, recipe
from tf_fast_rcnn.data.proposals.settings import METHODS
from tf_fast_rcnn.models.backbones import backbone_names
from tf_fast_rcnn.training.optimizers import FineTuningAdamW, FineTuningSGD
from tf_fast_rcnn.training.recipes import COCO_CLASSES, RECIPES, VOC_CLASSES, small_data, voc07
from tf_fast_rcnn.training.schedules import optimizer_of
from tf_fast_rcnn.training.settings import OptimizerSettings, with_changes


@pytest.fixture(scope="module")
def tiny_detector():
    layers = keras.layers
    backbone = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(4, 3, 2, name="conv"), layers.GlobalMaxPooling2D(), layers.Dense(2)]
    )
    return fast_rcnn(backbone, 2, stride=2, roi_output_size=(2, 2), fc_units=(6,))


def rates(optimizer, steps):
    schedule = optimizer._learning_rate
    return np.array([float(schedule(step)) for step in steps])


def test_the_papers_numbers():
    """Section 2.3: N = 2, R = 128, 25 % foreground, background from [0.1, 0.5), flips with probability 0.5, momentum
    0.9, decay 0.0005, 30k mini-batches at 0.001 and 10k at 0.0001; section 5.2: 600 and 1000 pixels."""
    found = voc07()
    sampling = {
        "images_per_batch": 2,
        "rois_per_batch": 128,
        "foreground_fraction": 0.25,
        "background_iou": (0.1, 0.5),
        "horizontal_flip_prob": 0.5,
        "shorter_side": 600,
        "longer_side": 1000,
    }
    assert {name: getattr(found.sampling, name) for name in sampling} == sampling
    assert found.optimizer == OptimizerSettings(
        kind="sgd", learning_rate=0.001, momentum=0.9, weight_decay=0.0005, bias_lr_multiplier=2.0, decay_biases=False
    )
    assert (found.steps, found.proposals, found.box_weight) == (40_000, "selective-search", 1.0)
    assert found.network.dropout == 0.5


@pytest.mark.parametrize(
    ("name", "steps", "falls"),
    [
        ("voc07", 40_000, [30_000]),
        ("voc0712", 60_000, [40_000]),
        ("voc10", 100_000, [40_000, 80_000]),
        ("voc12", 100_000, [40_000, 80_000]),
        ("coco", 240_000, [200_000]),
    ],
)
def test_when_the_rate_falls(tiny_detector, name, steps, falls):
    """Mini-batches are counted from 0: the first `falls[0]` have the first rate."""
    found = recipe(name)
    assert found.steps == steps
    optimizer = optimizer_of(found, tiny_detector, steps)
    assert isinstance(optimizer, FineTuningSGD)
    assert (optimizer.momentum, optimizer.gradient_decay, optimizer.bias_lr_multiplier) == (0.9, 0.0005, 2.0)
    ends = [0, *falls, steps]
    for number, (first, end) in enumerate(itertools.pairwise(ends)):
        np.testing.assert_allclose(rates(optimizer, [first, end - 1]), 0.001 * 0.1**number, rtol=1e-5)


def test_fewer_steps_keep_the_schedules_shape(tiny_detector):
    optimizer = optimizer_of(voc07(), tiny_detector, 8)
    np.testing.assert_allclose(rates(optimizer, range(8)), [1e-3] * 6 + [1e-4] * 2, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 7, 100, 701])
def test_the_cosine_warms_up_over_a_twentieth_and_ends_near_0(tiny_detector, steps):
    found = rates(optimizer_of(small_data(), tiny_detector, steps), range(steps))
    warm_up = max(1, steps // 20)
    rate = small_data().optimizer.learning_rate
    expected = [
        rate * step / warm_up
        if step < warm_up
        else rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
        for step in range(steps)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_small_data_slows_the_backbone(tiny_detector):
    optimizer = optimizer_of(small_data(), tiny_detector, 100)
    assert isinstance(optimizer, FineTuningAdamW)
    np.testing.assert_allclose([optimizer.slow_lr_multiplier, optimizer.decoupled_decay], [0.1, 1e-4])
    assert {path.split("/")[-2] for path in optimizer.slow_variables} == {"conv"}


def test_settings_reach_the_optimiser(tiny_detector):
    changes = {"bias_lr_multiplier": 3.0, "decay_biases": True, "momentum": 0.5, "accumulation": 4, "average": 0.9}
    changes = {f"optimizer.{name}": value for name, value in changes.items()}
    optimizer = optimizer_of(with_changes(voc07(), changes | {"optimizer.schedule": "constant"}), tiny_detector, 10)
    assert (optimizer.bias_lr_multiplier, optimizer.decay_biases, optimizer.momentum) == (3.0, True, 0.5)
    assert optimizer.gradient_accumulation_steps == 4
    assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.9)
    np.testing.assert_allclose(optimizer.learning_rate, 0.001)


def test_float16_scales_the_loss_and_other_types_do_not(tiny_detector):
    def optimizer(dtype):
        return optimizer_of(with_changes(voc07(), {"dtype": dtype}), tiny_detector, 10)

    scaled = optimizer("mixed_float16")
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer)
    assert isinstance(scaled.inner_optimizer, FineTuningSGD)
    assert isinstance(optimizer("mixed_bfloat16"), FineTuningSGD)


def test_a_keras_optimiser_is_taken_as_it_is(tiny_detector):
    mine = dataclasses.replace(small_data(), optimizer=keras.optimizers.Lion(0.125, beta_1=0.5))
    for _ in range(2):
        optimizer = optimizer_of(mine, tiny_detector, 100)
        assert isinstance(optimizer, keras.optimizers.Lion)
        assert (float(optimizer.learning_rate), optimizer.beta_1) == (0.125, 0.5)


def test_classes_of_the_data_sets():
    assert (len(set(VOC_CLASSES)), len(set(COCO_CLASSES))) == (20, 80)
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_what_takes_it(name):
    found = recipe(name)
    assert found.name == name
    assert found.proposals in METHODS
    assert found.backbone in [each.lower() for each in backbone_names()]


@pytest.mark.parametrize("name", RECIPES)
def test_the_docstrings_commands_are_known(name):
    docstring = RECIPES[name].__doc__
    command = re.search(r"Command: tf-fast-rcnn (.*?--out \S+)", docstring, flags=re.DOTALL).group(1)
    arguments = shlex.split(command)
    options = cli._parser(arguments).parse_args(arguments)
    assert options.recipe == name
    # Numbers are marked as the paper's, and as not measured by us.
    words = " ".join(docstring.split())
    assert name == "small-data" or ("in the paper" in words and "We have not run it." in words)


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(InputError, match=r"^recipe: found 'best'; expected one of small-data, voc07, voc0712, voc10, "):
        recipe("best")


def write_run(folder, description):
    (folder / "run.json").write_text(json.dumps(description))
    return str(folder)


def test_the_recipe_of_a_run(tmp_path):
    mine = with_changes(small_data(), {"steps": 7, "sampling.horizontal_flip_prob": 0.0})
    folder = write_run(tmp_path, {"recipe": dataclasses.asdict(mine)})
    assert recipe(folder) == mine
    assert recipe(folder, {"steps": "9"}) == dataclasses.replace(mine, steps=9)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({}, r"run.json: found no usable recipe \('recipe'\)"),
        ({"recipe": 5}, r"run.json: found no usable recipe"),
        ({"recipe": {"name": "x", "speed": 3}}, r"run.json: speed: found no such setting of a recipe"),
        ({"recipe": {"name": "x", "sampling": 3}}, r"run.json: found no usable recipe"),
    ],
)
def test_a_run_without_a_usable_recipe(tmp_path, description, message):
    with pytest.raises(InputError, match=message) as error:
        recipe(write_run(tmp_path, description))
    assert "\n" not in str(error.value)
