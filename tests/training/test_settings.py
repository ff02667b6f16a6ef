"""Settings by dotted names: what text stands for, what is refused, and JSON there and back."""

import dataclasses
import inspect
import json
import re

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn import InputError, fast_rcnn, recipe, sgd
from tf_fast_rcnn.data.batches.settings import SamplingRules
from tf_fast_rcnn.training.recipes import RECIPES, small_data, voc07
from tf_fast_rcnn.training.settings import EARLIER_NAMES, NetworkSettings, Recipe, recipe_from_json, with_changes


def value_of(recipe, name):
    for part in name.split("."):
        recipe = getattr(recipe, part)
    return recipe


def through_json(recipe):
    return recipe_from_json(json.loads(json.dumps(dataclasses.asdict(recipe))))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("optimizer.learning_rate", "0.01", 0.01),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.learning_rate", "2e-4", 2e-4),
        ("sampling.horizontal_flip_prob", "0", 0.0),
        ("steps", "700", 700),
        ("optimizer.average", "none", None),
        ("optimizer.average", "0.99", 0.99),
        ("optimizer.decay_biases", "true", True),
        ("sampling.with_ground_truth", "False", False),
        ("optimizer.kind", "adamw", "adamw"),
        ("network.finetune_from", "block4_conv1", "block4_conv1"),
        ("network.finetune_from", "none", None),
        ("network.fc_units", "256,128", (256, 128)),
        ("network.fc_units", "[256, 128]", (256, 128)),
        ("network.fc_units", "64", (64,)),
        ("network.stride", "8,16", (8, 16)),
        ("network.stride", "8", 8),
        ("network.head", "reuse", "reuse"),
        ("network.roi_output_size", "14", 14),
        ("network.roi_output_size", "6,7", (6, 7)),
        ("network.roi_output_size", "1,2,3,6", (1, 2, 3, 6)),
        ("network.roi_output_size", "[[3, 3], [6, 7]]", ((3, 3), (6, 7))),
        ("network.roi_output_size", "[2, 4],3", ((2, 4), 3)),
        ("network.roi_output_size", "none", None),
        ("sampling.shorter_side", "480,600", (480, 600)),
        ("sampling.shorter_side", "480", 480),
        ("sampling.background_iou", "0,0.5", (0, 0.5)),
        ("sampling.pad_to", "null", None),
        ("class_names", "cat, dog", ("cat", "dog")),
        ("only_layers", "box_regression", ("box_regression",)),
        ("class_names", '["traffic light"]', ("traffic light",)),
        ("class_weights", '{"cat": 2}', {"cat": 2}),
        ("dtype", "mixed_bfloat16", "mixed_bfloat16"),
    ],
)
def test_text_becomes_the_settings_type(name, text, value):
    found = value_of(with_changes(voc07(), {name: text}), name)
    assert found == value
    assert type(found) is type(value)
    assert value_of(with_changes(voc07(), {name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimizer.learning_rate", "fast", "optimizer.learning_rate: found 'fast'; expected a number"),
        ("optimizer.learning_rate", "nan", "optimizer.learning_rate: found 'nan'; expected a number"),
        ("optimizer.learning_rate", "NaN", "optimizer.learning_rate: found nan; expected a number above 0"),
        ("optimizer.learning_rate", "0", "optimizer.learning_rate: found 0.0; expected a number above 0"),
        ("optimizer.learning_rate", "true", "optimizer.learning_rate: found 'true'; expected a number"),
        ("optimizer.learning_rate", "", "optimizer.learning_rate: found ''; expected a number"),
        ("optimizer.kind", "adam", "optimizer.kind: found 'adam'; expected one of sgd, adamw"),
        ("network.head", "conv5", "network.head: found 'conv5'; expected one of auto, fc, reuse"),
        ("network.roi_output_size", "7,0", "network.roi_output_size: found (7, 0); expected one number"),
        ("network.roi_output_size", "big", "network.roi_output_size: found 'big'; expected a whole number or a list"),
        ("network.stride", "[[8, 16]]", "network.stride: found '[[8, 16]]'; expected a whole number or a list"),
        ("optimizer.schedule", "poly", "optimizer.schedule: found 'poly'; expected one of step, cosine, constant"),
        ("optimizer.lr_milestones", "0.8,0.4", "optimizer.lr_milestones: found (0.8, 0.4); expected rising shares"),
        ("optimizer.lr_milestones", "30000", "optimizer.lr_milestones: found (30000,); expected rising shares"),
        ("optimizer.momentum", "1", "optimizer.momentum: found 1.0; expected a number from 0 to below 1"),
        ("optimizer.accumulation", "0", "optimizer.accumulation: found 0; expected a whole number from 1"),
        ("optimizer.average", "1", "optimizer.average: found 1.0; expected none or a number between 0 and 1"),
        ("steps", "1.5", "steps: found '1.5'; expected a whole number or none"),
        ("steps", "0", "steps: found 0; expected none or a whole number from 1"),
        ("steps", "none", "steps, epochs: found neither; expected one of them"),
        ("sampling.with_ground_truth", "0", "sampling.with_ground_truth: found '0'; expected true or false"),
        ("sampling.shorter_side", "a,b", "sampling.shorter_side: found 'a,b'; expected a whole number or a list such"),
        ("sampling.horizontal_flip_prob", "2", "horizontal_flip_prob: found 2.0; expected 0 to 1.0"),
        ("network.dropout", "1", "network.dropout: found 1.0; expected a number from 0 to below 1"),
        ("network.fc_units", "0", "network.fc_units: found (0,); expected whole numbers from 1"),
        ("class_weights", "2", """class_weights: found '2'; expected JSON such as {"cat": 2} or none"""),
        ("class_weights", '{"cat": "x"}', "class_weights: found {'cat': 'x'}; expected numbers from 0 by class name"),
        ("dtype", "float16", "dtype: found 'float16'; expected one of float32, mixed_bfloat16, mixed_float16"),
        ("early_stopping", "-1", "early_stopping: found -1; expected none or a whole number from 1"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(name, value, message):
    with pytest.raises(InputError) as error:
        with_changes(voc07(), {name: value})
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("rate", "optimizer.learning_rate"),
        ("flip", "sampling.horizontal_flip_prob"),
        ("optimizer.learningrate", "optimizer.learning_rate"),
        ("sampling.horizontal_fliip_prob", "sampling.horizontal_flip_prob"),
    ],
)
def test_an_unknown_key_is_refused_with_the_known_ones(name, meant):
    with pytest.raises(InputError) as error:
        with_changes(voc07(), {name: "1"})
    line = str(error.value)
    assert line.startswith(f"{name}: found no such setting of a recipe; expected one of name, backbone, ")
    assert line.endswith(f"; did you mean {meant}?")
    assert all(f"sampling.{field.name}" in line for field in dataclasses.fields(SamplingRules))
    assert "\n" not in line


@pytest.mark.parametrize("name", ["optimizer", "sampling", "sampling.horizontal_flip_prob.more", "", "_check"])
def test_groups_and_nonsense_are_no_keys(name):
    with pytest.raises(InputError, match="found no such setting of a recipe"):
        with_changes(voc07(), {name: "1"})


@given(
    text=st.text(max_size=12),
    name=st.sampled_from(
        [
            "optimizer.learning_rate",
            "network.stride",
            "network.roi_output_size",
            "class_names",
            "steps",
            "class_weights",
        ]
    ),
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_value_or_one_line(name, text):
    try:
        changed = with_changes(voc07(), {name: text})
    except InputError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 (hypothesis: either outcome is right)
    else:
        assert value_of(through_json(changed), name) == value_of(changed, name)


def test_values_that_are_checked_together_change_together():
    changes = {"sampling.images_per_batch": 3, "sampling.rois_per_batch": 96}
    assert with_changes(voc07(), changes).sampling.rois_per_image == 32
    with pytest.raises(InputError, match="rois_per_batch: found 128 for 3 images"):
        with_changes(voc07(), {"sampling.images_per_batch": 3})


def test_the_recipe_itself_stays_as_it_is():
    before = small_data()
    with_changes(before, {"optimizer.learning_rate": 1.0})
    assert before == small_data()


def test_network_settings_are_options_of_fast_rcnn():
    names = {field.name for field in dataclasses.fields(NetworkSettings)}
    assert names < set(inspect.signature(fast_rcnn).parameters)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    assert through_json(RECIPES[name]()) == RECIPES[name]()


def test_json_with_an_unknown_key_is_refused():
    values = dataclasses.asdict(voc07())
    values["optimizer"]["warm_up"] = 3
    with pytest.raises(InputError, match=r"^optimizer\.warm_up: found no such setting"):
        recipe_from_json(values)


@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.Lion(keras.optimizers.schedules.CosineDecay(1e-4, 100)), sgd(0.1, use_ema=True)],
    ids=["keras", "ours"],
)
def test_a_recipe_takes_any_keras_optimiser(optimizer):
    mine = dataclasses.replace(small_data(), optimizer=optimizer)
    assert through_json(mine) == mine
    again = keras.optimizers.deserialize(through_json(mine).optimizer)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()
    with pytest.raises(
        InputError, match=r"^optimizer\.learning_rate: found a Keras optimiser, which has its own settings"
    ):
        with_changes(mine, {"optimizer.learning_rate": 0.1})
    assert with_changes(mine, {"steps": 5}).optimizer == mine.optimizer


def test_defaults_are_the_papers():
    assert Recipe(name="voc07", class_names=voc07().class_names) == voc07() == recipe("voc07")


# --- what 0.1 saved ---------------------------------------------------------------------------------------------------

# As run.json of 0.1 has a recipe, but for the settings whose names are as they were.
RECIPE_OF_0_1 = {
    "name": "mine",
    "classes": ["cat", "dog"],
    "steps": 7,
    "optimizer": {"kind": "adamw", "rate": 0.02, "rate_drops": [0.5], "bias_rate": 3.0, "backbone_rate": 0.1},
    "network": {"tune_from": "block4_conv1", "head": "carry", "pooled_size": [[3, 3], [6, 7]]},
    "sampling": {"flip": 0.25, "vertical_flip": 0.125},
}
RENAMED = {
    "class_names": ("cat", "dog"),
    "optimizer.learning_rate": 0.02,
    "optimizer.lr_milestones": (0.5,),
    "optimizer.bias_lr_multiplier": 3.0,
    "optimizer.backbone_lr_multiplier": 0.1,
    "network.finetune_from": "block4_conv1",
    "network.head": "reuse",
    "network.roi_output_size": ((3, 3), (6, 7)),
    "sampling.horizontal_flip_prob": 0.25,
    "sampling.vertical_flip_prob": 0.125,
}


def test_a_recipe_of_0_1_is_read():
    read = recipe_from_json(RECIPE_OF_0_1)
    assert {name: value_of(read, name) for name in RENAMED} == RENAMED
    assert read == with_changes(Recipe(name="mine", steps=7), {"optimizer.kind": "adamw", **RENAMED})
    assert "rate" in RECIPE_OF_0_1["optimizer"]  # what was read is left as it is


def test_a_keras_optimiser_of_0_1_is_read():
    saved = keras.optimizers.serialize(sgd(0.1, bias_lr_multiplier=4.0))
    earlier = {**saved, "config": dict(saved["config"])}
    earlier["config"]["bias_rate"] = earlier["config"].pop("bias_lr_multiplier")
    assert recipe_from_json({"name": "mine", "optimizer": earlier}).optimizer == saved


@pytest.mark.parametrize("name", EARLIER_NAMES)
def test_an_earlier_name_is_refused_with_the_new_one(name):
    new = EARLIER_NAMES[name]
    with pytest.raises(InputError, match=f"^{re.escape(name)}: .* expected {re.escape(new)}; give that$"):
        with_changes(voc07(), {name: "1"})
    assert with_changes(voc07(), {new: value_of(voc07(), new)}) == voc07()
