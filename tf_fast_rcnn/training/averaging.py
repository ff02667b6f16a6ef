"""The exponential moving average of the weights, kept by Keras optimisers and used for evaluation and saving."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[keras.Model]:
    """Gives the model its averaged weights within the context, if its optimiser keeps any.

    Keras's callback for this swaps weights by addition and subtraction, which changes their last bits.

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
    """Prevents `fit` from ending with the averaged weights: a run calls `fit` several times and continues from the raw
    ones."""
    _inner(model.optimizer).finalize_variable_values = lambda variables: None


def _inner(optimizer):
    """The optimiser itself, even if it is wrapped for loss scaling."""
    return getattr(optimizer, "inner_optimizer", optimizer)
