"""Recipes: the paper's numbers, schedules against their formulas, and names that fit what takes them."""

import dataclasses
import inspect
import json
import math

import keras
import numpy as np
import pytest

from tf_fast_rcnn import InputError, fast_rcnn
from tf_fast_rcnn.data.proposals.settings import METHODS
from tf_fast_rcnn.training.optimizers import FineTuningAdamW, FineTuningSGD
from tf_fast_rcnn.training.recipes import RECIPES, Recipe, optimizer_of, paper, recipe_by_name, small_data


@pytest.fixture(scope="module")
def tiny_detector():
    layers = keras.layers
    backbone = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(4, 3, 2, name="conv"), layers.GlobalMaxPooling2D(), layers.Dense(2)]
    )
    return fast_rcnn(backbone, 2, stride=2, pooled_size=(2, 2), fc_units=(6,))


def rates(optimizer, steps):
    schedule = optimizer._learning_rate
    return np.array([float(schedule(step)) for step in range(steps)])


def test_the_papers_numbers():
    """Section 2.3: N = 2, R = 128, 25 % foreground, background from [0.1, 0.5), flips with probability 0.5, momentum
    0.9, decay 0.0005, 30k mini-batches at 0.001 and 10k at 0.0001; section 5.2: 600 and 1000 pixels."""
    recipe = paper()
    expected = {
        "images_per_batch": 2,
        "rois_per_batch": 128,
        "foreground_fraction": 0.25,
        "background_iou": (0.1, 0.5),
        "flip": 0.5,
        "shorter_side": 600,
        "longer_side": 1000,
        "optimizer": "sgd",
        "rate": 0.001,
        "weight_decay": 0.0005,
        "steps": 40_000,
        "proposals": "selective-search",
        "box_weight": 1.0,
    }
    assert {name: getattr(recipe, name) for name in expected} == expected


def test_the_paper_falls_to_a_tenth_after_30_000_of_40_000(tiny_detector):
    optimizer = optimizer_of(paper(), tiny_detector, 40_000)
    assert isinstance(optimizer, FineTuningSGD)
    assert (optimizer.momentum, optimizer.gradient_decay, optimizer.bias_rate) == (0.9, 0.0005, 2.0)
    schedule = optimizer._learning_rate
    found = [float(schedule(step)) for step in (0, 29_999, 30_001, 39_999)]
    np.testing.assert_allclose(found, [1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 7, 100, 701])
def test_the_cosine_warms_up_over_a_twentieth_and_ends_near_0(tiny_detector, steps):
    found = rates(optimizer_of(small_data(), tiny_detector, steps), steps)
    warm_up = max(1, steps // 20)
    rate = small_data().rate
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
    np.testing.assert_allclose([optimizer.slow_rate, optimizer.weight_decay], [0.2, 1e-4])
    assert {path.split("/")[-2] for path in optimizer.slow_variables} == {"conv"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_what_takes_it(name):
    recipe = recipe_by_name(name)
    assert recipe.name == name
    assert recipe.proposals in METHODS
    assert (recipe.steps is None) != (recipe.epochs is None)
    values = dataclasses.asdict(recipe)
    network = set(inspect.signature(fast_rcnn).parameters)
    assert {"dropout", "fc_units", "tune_from", "stride"} <= network & set(values)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    recipe = recipe_by_name(name)
    values = json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert Recipe(**values) == recipe


def test_a_recipe_takes_every_rule_of_the_sampler():
    rules = {"shorter_side": (480, 600), "pad_to": (600, 1000), "difficult": "drop", "hue": 0.1}
    recipe = Recipe(**json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(small_data(), **rules)))))
    assert {name: getattr(recipe, name) for name in rules} == rules
    with pytest.raises(InputError, match=r"^difficult: found 'often'; "):
        dataclasses.replace(recipe, difficult="often")


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(InputError, match=r"^recipe: found 'best'; expected one of small-data, paper; "):
        recipe_by_name("best")
