"""The exponential moving average of the weights that Keras's optimisers keep: evaluated and saved, not trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[keras.Model]:
    """The model with its averaged weights, if its optimiser keeps any, for as long as the context lasts.

    Keras's callback for this swaps by adding and subtracting, which changes the last bits of the weights.

    Example:
        >>> with averaged_weights(model):                                       # doctest: +SKIP
        ...     evaluate(model, validation)
    """
    optimizer = _inner(getattr(model, "optimizer", None))
    pairs = []
    if getattr(optimizer, "use_ema", False) and optimizer.built:
        pairs = list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))
    raw = [weight.numpy() for weight, _ in pairs]
    for weight, average in pairs:
        weight.assign(average)
    try:
        yield model
    finally:
        for (weight, _), value in zip(pairs, raw, strict=True):
            weight.assign(value)


def keep_raw_weights(model: keras.Model) -> None:
    """Keeps `fit` from ending with the averaged weights: a run fits several times and goes on from the raw ones."""
    _inner(model.optimizer).finalize_variable_values = lambda variables: None


def _inner(optimizer):
    """The optimiser itself, also where loss scaling wraps it."""
    return getattr(optimizer, "inner_optimizer", optimizer)
