"""Recipes: everything that a training run depends on, by name.

A recipe is a function that returns a `Recipe`; its docstring says when to take it, what it costs and what it gives.
The run writes the recipe that it used, with every value, into its folder.
"""

import dataclasses

import keras

from tf_fast_rcnn.data.sampling_rules import SamplingRules
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.training.optimizers import adamw, sgd


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(SamplingRules):
    """One way to train; the defaults are the paper's. All attributes of `SamplingRules`, and these.

    Attributes:
        name: of the recipe.
        proposals: "dense", "selective-search" or "selective-search+dense".
        optimizer: "sgd" or "adamw".
        rate: learning rate at the start.
        schedule: "step" (a tenth of the rate for the last quarter, as 30k + 10k in the paper) or "cosine" (a linear
            warm-up over a twentieth of the steps, then half a cosine down to 0).
        backbone_rate: multiple of the rate for the backbone (adamw only).
        weight_decay: see `training.optimizers`.
        steps: mini-batches; None for `epochs` passes over the training images.
        epochs: passes over the training images where `steps` is None.
        box_weight: lambda of the multi-task loss.
        dropout, fc_units, tune_from, stride: see `fast_rcnn`.
    """

    name: str
    proposals: str = "selective-search"
    optimizer: str = "sgd"
    rate: float = 0.001
    schedule: str = "step"
    backbone_rate: float = 1.0
    weight_decay: float = 0.0005
    steps: int | None = 40_000
    epochs: int | None = None
    box_weight: float = 1.0
    dropout: float = 0.5
    fc_units: tuple = (1024, 1024)
    tune_from: str | None = None
    stride: int | tuple = 16


def paper():
    """The paper's VOC07 training: SGD, 30k mini-batches at 0.001 and 10k at 0.0001, selective search.

    Command: tf-fast-rcnn train --recipe paper --backbone vgg16 --train voc:VOC2007@trainval --out runs/voc07
    Cost: days on a CPU; 9.5 hours on the paper's K40 (its table 4).
    The paper's result: mAP 66.9 on VOC07 test with VGG16 (table 1). Not run here.
    """
    return Recipe(name="paper")


def small_data():
    """For tens to thousands of images of one's own, in minutes on a CPU: AdamW, cosine decay, dense proposals.

    Command: tf-fast-rcnn train --train voc:DIR@trainval --out runs/mine
    Background is drawn from IoU 0 on: with dense proposals the hard examples are not only those near the objects. RoIs
    are pooled from a stride-8 layer too, for small objects' sake.
    """
    return Recipe(
        name="small-data",
        proposals="dense",
        optimizer="adamw",
        rate=3e-4,
        schedule="cosine",
        backbone_rate=0.2,
        weight_decay=1e-4,
        steps=1000,
        background_iou=(0.0, 0.5),
        shorter_side=480,
        longer_side=800,
        stride=(8, 16),
    )


RECIPES = {"small-data": small_data, "paper": paper}


def recipe_by_name(name):
    """The `Recipe` of a name; InputError lists the names where there is none of it."""
    if name not in RECIPES:
        raise InputError(f"recipe: found {name!r}; expected one of {', '.join(RECIPES)}; give one of these")
    return RECIPES[name]()


def optimizer_of(recipe, model, steps):
    """The Keras optimiser of a recipe with its schedule over `steps` mini-batches."""
    rate = _schedule(recipe, steps)
    if recipe.optimizer == "adamw":
        return adamw(model, rate, recipe.backbone_rate, recipe.weight_decay)
    return sgd(rate, weight_decay=recipe.weight_decay)


def _schedule(recipe, steps):
    schedules = keras.optimizers.schedules
    if recipe.schedule == "step":
        return schedules.PiecewiseConstantDecay([max(1, round(0.75 * steps))], [recipe.rate, 0.1 * recipe.rate])
    warm_up = max(1, steps // 20)
    return schedules.CosineDecay(
        0.0, max(1, steps - warm_up), warmup_target=recipe.rate, warmup_steps=warm_up, name="cosine"
    )
