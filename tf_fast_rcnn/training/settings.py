"""The settings of a recipe: validation, changes by dotted name, and conversion from JSON."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import keras

from tf_fast_rcnn.data.batches.settings import SamplingRules
from tf_fast_rcnn.data.tiles import Tiles
from tf_fast_rcnn.errors import InputError, check_choice, check_setting
from tf_fast_rcnn.files import renamed
from tf_fast_rcnn.models.backbone_split import HEADS
from tf_fast_rcnn.ops.roi_pooling import pooling_grids
from tf_fast_rcnn.training import optimizers

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset

DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("step", "cosine", "constant")
BACKGROUND = "background"  # the name of class 0 in `class_weights`


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Settings for one of the two optimisers of `training.optimizers` and its schedule; the defaults are the paper's.

    Attributes:
        kind: "sgd" or "adamw".
        learning_rate: initial learning rate.
        schedule: "step" (the rate is divided by 10 at each of `lr_milestones`), "cosine" (a linear warm-up over a
            twentieth of the steps, then cosine decay to 0) or "constant".
        lr_milestones: fractions of all steps, in ascending order: (0.75,) means 30k of 40k steps at the first rate and
            10k at the second.
        momentum: sgd only.
        weight_decay: for sgd part of the gradient, as in Caffe; for adamw decoupled from it.
        bias_lr_multiplier: sgd only: factor for the learning rate of biases.
        decay_biases: whether weight decay also applies to biases. It does in the paper, but not in the released solver.
        backbone_lr_multiplier: adamw only: factor for the learning rate of the pre-trained backbone.
        accumulation: number of mini-batches whose gradients are averaged for each update. Steps, schedules and
            `average` still count mini-batches.
        average: momentum of an exponential moving average of the weights, which is then used for evaluation and saving;
            for example 0.999. None: no average.
    """

    kind: str = "sgd"
    learning_rate: float = 0.001
    schedule: str = "step"
    lr_milestones: tuple = (0.75,)
    momentum: float = 0.9
    weight_decay: float = 0.0005
    bias_lr_multiplier: float = 2.0
    decay_biases: bool = False
    backbone_lr_multiplier: float = 1.0
    accumulation: int = 1
    average: float | None = None

    def __post_init__(self) -> None:
        check_choice("optimizer.kind", self.kind, OPTIMIZERS)
        check_choice("optimizer.schedule", self.schedule, SCHEDULES)
        check_setting(
            "optimizer.learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "a number above 0"
        )
        check_setting("optimizer.momentum", self.momentum, 0 <= self.momentum < 1, "a number from 0 to below 1")
        for name in ("weight_decay", "bias_lr_multiplier", "backbone_lr_multiplier"):
            value = getattr(self, name)
            check_setting(f"optimizer.{name}", value, 0 <= value < math.inf, "a number from 0")
        check_setting("optimizer.accumulation", self.accumulation, self.accumulation >= 1, "a whole number from 1")
        average = self.average
        holds = average is None or 0 < average < 1
        check_setting("optimizer.average", average, holds, "none or a number between 0 and 1")
        drops = self.lr_milestones
        rising = list(drops) == sorted(set(drops)) and all(0 < share < 1 for share in drops)
        check_setting("optimizer.lr_milestones", drops, rising, "rising shares of the steps, between 0 and 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The options of `fast_rcnn` with the same names.

    Attributes:
        stride: also "auto": chosen from the sizes of the training objects, see `training.choices`.
    """

    dropout: float = 0.5
    fc_units: tuple = (1024, 1024)
    finetune_from: str | None = None
    head: str = "auto"
    stride: int | tuple | Literal["auto"] = 16
    lateral_channels: int | None = None
    context: float = 1.0
    roi_output_size: int | tuple[tuple, ...] | None = None

    def __post_init__(self) -> None:
        check_choice("network.head", self.head, HEADS)
        if self.roi_output_size is not None:
            pooling_grids(self.roi_output_size, "network.roi_output_size")
        check_setting("network.dropout", self.dropout, 0 <= self.dropout < 1, "a number from 0 to below 1")
        channels = self.lateral_channels
        check_setting(
            "network.lateral_channels", channels, channels is None or channels >= 1, "none or a number from 1"
        )
        check_setting("network.context", self.context, 1 <= self.context <= 8, "a number from 1 to 8")
        sizes = all(isinstance(units, int) and units >= 1 for units in self.fc_units)
        check_setting("network.fc_units", self.fc_units, sizes, "whole numbers from 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run; the defaults are the paper's.

    Attributes:
        name: name of the recipe.
        backbone: the network to fine-tune, unless `train` is given another.
        class_names: the classes that the recipe is for; data with other classes are an error. None: any classes.
        proposals: one of `data.proposals.METHODS`, unless `train` is given other proposals.
        steps: number of mini-batches; None for `epochs` passes over the training images.
        epochs: number of passes over the training images if `steps` is None.
        box_weight: lambda of the multi-task loss.
        class_weights: weights of classes in the classification loss, by name, for example {"platelet": 2.0}; classes
            that are not listed have weight 1; "background" is class 0. See `multi_task_loss`.
        only_layers: names of the only layers to train, for example ("box_regression",); all others are frozen. None:
            all layers, except those that `network.finetune_from` freezes.
        early_stopping: training ends after this number of epochs without a better validation mAP, and RUN's model is
            the best one, not the last. None: all steps, and the last model.
        nms_iou_threshold: threshold of non-maximum suppression when the trained model detects; see
            `DetectionSettings`.
        screening_rank: rank of the first pass of detection, which drops clear background; None: no first pass; see
            `DetectionSettings`.
        tile: side of the tiles in which large images are seen, in pixels of the image (see `Tiles`); None: images are
            seen as a whole; "auto": chosen from the data, see `training.choices`.
        tile_overlap: overlap of tiles as a share of their side; "auto": chosen from the data.
        whole_image: with tiles, whether the whole image is seen too; "auto": if some objects are larger than the
            overlap.
        jitter: "given": random changes of scale and colours as `sampling` says; "auto": chosen from the data, unless
            `sampling` has ranges of its own; see `training.choices`.
        dtype: the dtype in which layers compute: "float32", "mixed_bfloat16", or "mixed_float16" with loss scaling.
            Weights, RoIs, scores, boxes and losses are always float32, and so is the saved model.
        optimizer: `OptimizerSettings`, or any Keras optimiser with its own schedule, which is stored as its
            configuration, `keras.optimizers.serialize(optimizer)`.
        network: `NetworkSettings`.
        sampling: `SamplingRules`.

    Example:
        >>> recipe = dataclasses.replace(small_data(), optimizer=keras.optimizers.Lion(1e-4))       # doctest: +SKIP
    """

    name: str
    backbone: str = "vgg16"
    class_names: tuple[str, ...] | None = None
    proposals: str = "selective-search"
    steps: int | None = 40_000
    epochs: int | None = None
    box_weight: float = 1.0
    class_weights: dict | None = None
    only_layers: tuple[str, ...] | None = None
    early_stopping: int | None = None
    nms_iou_threshold: float = 0.3
    screening_rank: int | None = None
    tile: int | Literal["auto"] | None = None
    tile_overlap: float | Literal["auto"] = "auto"
    whole_image: bool | Literal["auto"] = "auto"
    jitter: str = "given"
    dtype: str = "float32"
    optimizer: OptimizerSettings | dict = dataclasses.field(default_factory=OptimizerSettings)
    network: NetworkSettings = dataclasses.field(default_factory=NetworkSettings)
    sampling: SamplingRules = dataclasses.field(default_factory=SamplingRules)

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, keras.optimizers.Optimizer):
            # object.__setattr__ is how a frozen dataclass normalises its own fields.
            object.__setattr__(self, "optimizer", keras.optimizers.serialize(self.optimizer))
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("jitter", self.jitter, ("given", "auto"))
        check_setting("box_weight", self.box_weight, 0 <= self.box_weight < math.inf, "a number from 0")
        if isinstance(self.tile, int):
            Tiles(self.tile, Tiles.overlap if self.tile_overlap == "auto" else self.tile_overlap)
        threshold = self.nms_iou_threshold
        check_setting("nms_iou_threshold", threshold, 0 <= threshold <= 1, "a number from 0 to 1")
        for name in ("steps", "epochs", "early_stopping", "screening_rank"):
            value = getattr(self, name)
            check_setting(name, value, value is None or value >= 1, "none or a whole number from 1")
        if self.steps is None and self.epochs is None:
            raise InputError("steps, epochs: found neither; expected one of them; set one")
        weights = (self.class_weights or {}).values()
        positive = all(isinstance(weight, (int, float)) and 0 <= weight < math.inf for weight in weights)
        check_setting("class_weights", self.class_weights, positive, "numbers from 0 by class name")

    @property
    def tiles(self) -> Tiles | None:
        """The `Tiles` in which images are seen, or None without tiles, or if some of their settings are "auto"."""
        if not isinstance(self.tile, int) or self.tile_overlap == "auto" or self.whole_image == "auto":
            return None
        return Tiles(self.tile, self.tile_overlap, self.whole_image)


def check_classes(recipe: Recipe, dataset: DetectionDataset) -> None:
    """Raises InputError if a dataset has classes that the recipe is not for, or if the recipe has weights for classes
    that the dataset does not have."""
    known = recipe.class_names or dataset.class_names
    strange = [name for name in dataset.class_names if name not in known]
    if strange:
        raise InputError(
            f"recipe {recipe.name}: found class {strange[0]!r} in {dataset.name}; expected "
            f"{', '.join(known)}; choose another recipe, or pass --set class_names=none"
        )
    names = (BACKGROUND, *dataset.class_names)
    strange = [name for name in recipe.class_weights or () if name not in names]
    if strange:
        raise InputError(
            f"class_weights: found class {strange[0]!r}; expected one of {', '.join(names)}; change the recipe"
        )


def check_objects(dataset: DetectionDataset) -> None:
    """Raises InputError if all objects of a data set are crowds, on which nothing is trained but the background."""
    num_crowds = 0
    for record in dataset:
        if not record.crowd.all():
            return
        num_crowds += len(record.crowd)
    if num_crowds:
        raise InputError(
            f"{dataset.name}: all {num_crowds} objects are crowds (iscrowd=1), which are ignored in training; expected "
            "single objects; set iscrowd to 0 where a box is one object"
        )


_GROUPS = {"optimizer": OptimizerSettings, "network": NetworkSettings, "sampling": SamplingRules}


# The names of settings and values in version 0.1. They are accepted in files; `with_changes` reports the new name.
EARLIER_NAMES = {
    "classes": "class_names",
    "optimizer.rate": "optimizer.learning_rate",
    "optimizer.rate_drops": "optimizer.lr_milestones",
    "optimizer.bias_rate": "optimizer.bias_lr_multiplier",
    "optimizer.backbone_rate": "optimizer.backbone_lr_multiplier",
    "network.tune_from": "network.finetune_from",
    "network.pooled_size": "network.roi_output_size",
    "sampling.flip": "sampling.horizontal_flip_prob",
    "sampling.vertical_flip": "sampling.vertical_flip_prob",
}
_EARLIER_VALUES = {("network.head", "carry"): "reuse"}


def with_current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the JSON of a recipe written by any version to the names of this version.

    Example:
        >>> with_current_names({"name": "mine", "optimizer": {"rate": 0.01}, "network": {"head": "carry"}})
        {'name': 'mine', 'optimizer': {'learning_rate': 0.01}, 'network': {'head': 'reuse'}}
    """
    values = _with_current_names(values, "")
    for group in _GROUPS.keys() & values.keys():
        if isinstance(values[group], dict):
            values[group] = _with_current_names(values[group], f"{group}.")
    config = values["optimizer"].get("config") if isinstance(values.get("optimizer"), dict) else None
    if isinstance(config, dict):  # a Keras optimiser
        values["optimizer"] |= {"config": renamed(config, optimizers.EARLIER_NAMES)}
    return values


def _with_current_names(values, prefix):
    """The same for one group, whose dotted names begin with `prefix`."""
    current = {}
    for name, value in values.items():
        known = EARLIER_NAMES.get(prefix + name, prefix + name).removeprefix(prefix)
        current[known] = _EARLIER_VALUES.get((prefix + name, value), value) if isinstance(value, str) else value
    return current


def _known_settings():
    """The type annotations of all settings of a recipe, by dotted name."""
    known = {name: hint for name, hint in typing.get_type_hints(Recipe).items() if name not in _GROUPS}
    for group, kind in _GROUPS.items():
        known |= {f"{group}.{name}": hint for name, hint in typing.get_type_hints(kind).items()}
    return known


def with_changes(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A copy of a recipe with other values.

    Args:
        recipe: `Recipe`.
        changes: dict from dotted names to values: `{"optimizer.learning_rate": 0.01, "steps": 2000}`. Text is parsed
            by the type of the setting: "0.01", "none", "480,600" or "[480, 600]" for several numbers, JSON for a dict.

    Raises:
        InputError: if a name is unknown (the message lists the valid ones), or a value has the wrong type or is out of
            range.

    Example:
        >>> with_changes(Recipe(name="mine"), {"sampling.horizontal_flip_prob": "0"}).sampling.horizontal_flip_prob
        0.0
    """
    known = _known_settings()
    groups = {}
    for name, value in changes.items():
        if name not in known:
            _refuse_unknown(name, known)
        group, _, field = name.rpartition(".")
        if group and not dataclasses.is_dataclass(getattr(recipe, group)):
            raise InputError(
                f"{name}: found a Keras optimiser, which has its own settings; expected one of this package's; "
                "change the optimiser in Python"
            )
        groups.setdefault(group, {})[field] = _typed(name, value, known[name])
    # All at once, because some values are checked together.
    top = groups.pop("", {})
    top |= {group: dataclasses.replace(getattr(recipe, group), **values) for group, values in groups.items()}
    return dataclasses.replace(recipe, **top)


def recipe_from_json(values: Mapping[str, Any]) -> Recipe:
    """Converts the result of `dataclasses.asdict(recipe)` back to a `Recipe`; JSON of older versions is accepted.

    Raises:
        InputError: as in `with_changes`.
    """
    changes, whole = {}, {}
    for name, value in with_current_names(values).items():
        if name == "optimizer" and "class_name" in value:
            whole[name] = value
        elif name in _GROUPS:
            changes |= {f"{name}.{field}": each for field, each in value.items()}
        else:
            changes[name] = value
    return dataclasses.replace(with_changes(Recipe(name=""), changes), **whole)


def _refuse_unknown(name, known):
    if name in EARLIER_NAMES:
        raise InputError(
            f"{name}: found the name of this setting in version 0.1; expected {EARLIER_NAMES[name]}; use that"
        )
    earlier = [each for old, each in EARLIER_NAMES.items() if old.split(".")[-1] == name]
    close = (
        earlier
        or [each for each in known if each.split(".")[-1] == name]
        or difflib.get_close_matches(name, known, n=1)
    )
    hint = f"did you mean {close[0]}?" if close else "choose one of these"
    raise InputError(f"{name}: found no such setting of a recipe; expected one of {', '.join(known)}; {hint}")


# The types of settings in plain words; only class_weights is a dict.
_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a list such as 1,2",
    dict: 'JSON such as {"cat": 2}',
    type(None): "none",
}


def _typed(name, value, hint):
    """A value converted to the type of its setting; text is parsed."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    words = [word for kind in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind)]
    if isinstance(value, str) and value in words:
        return value
    kinds = [kind for kind in kinds if typing.get_origin(kind) is not Literal]
    of_texts, of_tuples = tuple[str, ...] in kinds, tuple[tuple, ...] in kinds
    kinds = [typing.get_origin(kind) or kind for kind in kinds]
    found = value
    if isinstance(value, str):
        value = _parsed(value, kinds)
    if isinstance(value, list):
        value = tuple(tuple(each) if of_tuples and isinstance(each, list) else each for each in value)
    if _is_number(value) and type(value) not in kinds:
        if isinstance(value, int) and float in kinds:
            value = float(value)
        elif tuple in kinds and int not in kinds:
            value = (value,)
    fits = type(value) in kinds
    if isinstance(value, tuple):
        fits = fits and all(
            isinstance(each, str) if of_texts else _is_number(each) or (of_tuples and isinstance(each, tuple))
            for each in value
        )
    if not fits:
        expected = " or ".join([_TYPE_NAMES[kind] for kind in kinds] + words)
        raise InputError(f"{name}: found {found!r}; expected {expected}; change it")
    return value


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _parsed(text, kinds):
    words = {"true": True, "false": False} if bool in kinds else {}
    if type(None) in kinds:
        words |= {"none": None, "null": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    if str in kinds:
        return text
    for candidate in (text, f"[{text}]"):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    if tuple in kinds and text:
        return tuple(part.strip() for part in text.split(","))
    return text
