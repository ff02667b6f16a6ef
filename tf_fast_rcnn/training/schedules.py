"""The optimiser of a recipe, with its schedule of learning rates."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import keras

from tf_fast_rcnn.training.optimizers import adamw, sgd

if TYPE_CHECKING:
    from tf_fast_rcnn.training.settings import Recipe


def optimizer_of(recipe: Recipe, model: keras.Model, steps: int) -> keras.optimizers.Optimizer:
    """The Keras optimiser of a recipe, with its schedule over `steps` mini-batches, and loss scaling for float16."""
    settings = recipe.optimizer
    if isinstance(settings, dict):
        # Deserialising removes what it reads from the configuration.
        optimizer = keras.optimizers.deserialize(copy.deepcopy(settings))
    else:
        optimizer = _own_optimizer(settings, model, steps)
    # Keras would add loss scaling by itself only if the global policy were float16.
    return keras.optimizers.LossScaleOptimizer(optimizer) if recipe.dtype == "mixed_float16" else optimizer


def _own_optimizer(settings, model, steps):
    options = {"decay_biases": settings.decay_biases}
    if settings.accumulation > 1:
        options["gradient_accumulation_steps"] = settings.accumulation
    if settings.average is not None:
        options |= {"use_ema": True, "ema_momentum": settings.average}
    learning_rate = _schedule(settings, steps)
    if settings.kind == "adamw":
        return adamw(model, learning_rate, settings.backbone_lr_multiplier, settings.weight_decay, **options)
    return sgd(learning_rate, settings.momentum, settings.weight_decay, settings.bias_lr_multiplier, **options)


def _schedule(settings, steps):
    schedules = keras.optimizers.schedules
    if settings.schedule == "constant":
        return settings.learning_rate
    if settings.schedule == "step":
        # In Keras, a boundary is the last step (counted from 0) that still has the previous learning rate.
        boundaries = [max(1, round(share * steps)) - 1 for share in settings.lr_milestones]
        rates = [settings.learning_rate * 0.1**number for number in range(len(boundaries) + 1)]
        return schedules.PiecewiseConstantDecay(boundaries, rates)
    warm_up = max(1, steps // 20)
    return schedules.CosineDecay(
        0.0, max(1, steps - warm_up), warmup_target=settings.learning_rate, warmup_steps=warm_up, name="cosine"
    )
