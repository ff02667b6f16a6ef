"""Search for the smallest ranks of truncated SVD that stay within a given loss of mAP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.models import evaluate
from tf_fast_rcnn.models.pretrained import kernel_and_bias
from tf_fast_rcnn.models.truncated_svd import (
    break_even,
    factor_ranks,
    factorize,
    fully_connected_names,
    singular_vectors,
)

if TYPE_CHECKING:
    import keras

    from tf_fast_rcnn.data.datasets import DetectionDataset

# Candidate ranks as fractions of the break-even rank, in steps of a tenth of an octave.
_SHARES = 2.0 ** (-np.arange(1, 65) / 10)


def smallest_ranks(
    model: keras.Model,
    dataset: DetectionDataset,
    max_loss: float,
    protocol: str = "voc07",
    *,
    progress: bool = True,
    **options: Any,
) -> dict[str, int]:
    """Finds the smallest rank t of each fully connected layer that lowers the mAP on a dataset by at most `max_loss`.

    The layers are searched one by one by bisection, starting with the most expensive one: for each layer the smallest
    t that loses at most `max_loss` together with the ranks found so far. The mAP of the returned ranks has been
    measured. As mAP is not necessarily monotonic in t, a smaller t may also satisfy the limit.

    Args:
        model: a model created by `fast_rcnn`.
        dataset: `DetectionDataset`, preferably used neither for training nor for testing.
        max_loss: largest loss in percentage points of mAP, at least 0.
        protocol, options: passed to `evaluate`.
        progress: whether to show a progress bar on standard error.

    Returns:
        dict from layer names to t, for `compress(model, ranks=...)`; empty if every compression loses more.

    Raises:
        InputError: for a negative `max_loss`, or as `evaluate`.

    Example:
        >>> ranks = smallest_ranks(model, load_dataset("voc:cells@val"), max_loss=0.3)      # doctest: +SKIP
        >>> small = compress(model, ranks=ranks)                                            # doctest: +SKIP
    """
    if not max_loss >= 0:
        raise InputError(f"max_loss: found {max_loss}; expected mAP percentage points, at least 0; the paper loses 0.3")

    def mean_ap(candidate):
        return evaluate(candidate, dataset, protocol, progress=False, **options).mean_ap

    names = [name for name in fully_connected_names(model) if name not in factor_ranks(model)]
    names.sort(key=lambda name: -math.prod(model.get_layer(name).kernel.shape))
    ranks, vectors, tries = {}, {}, len(_SHARES).bit_length()
    with tqdm(total=1 + tries * len(names), desc="search", unit="evaluation", disable=not progress) as bar:
        enough = mean_ap(model) - max_loss / 100.0
        bar.update()
        for name in names:
            layer = model.get_layer(name)
            vectors[name] = singular_vectors(kernel_and_bias(layer)[0])
            candidates = sorted({max(1, int(share * break_even(layer))) for share in _SHARES})
            low, high = 0, len(candidates)
            while low < high:
                middle = (low + high) // 2
                found = mean_ap(factorize(model, {**ranks, name: candidates[middle]}, vectors))
                low, high = (low, middle) if found >= enough else (middle + 1, high)
                bar.update()
            if low < len(candidates):
                ranks[name] = candidates[low]
    return ranks
