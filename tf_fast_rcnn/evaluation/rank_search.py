"""How far truncated SVD can go: the smallest ranks that lose no more mAP than asked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.models import evaluate
from tf_fast_rcnn.models.truncated_svd import (
    break_even,
    factor_ranks,
    factorize,
    fully_connected_names,
    singular_vectors,
)

if TYPE_CHECKING:
    import keras

    from tf_fast_rcnn.data.records import DetectionDataset

# The search tries t at these shares of the number that changes nothing in cost, each a tenth of an octave apart.
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
    """The smallest t of each fully connected layer with which the mAP on a data set falls by no more than asked.

    One layer after the other, the most costly first, by bisection: for each the smallest t that, with those found
    before, loses at most `max_loss`. The mAP of what is returned has been measured; as it need not fall steadily with
    t, a smaller t may do too.

    Args:
        model: what `fast_rcnn` returned.
        dataset: `DetectionDataset`, best one that was neither trained on nor is tested on.
        max_loss: percentage points of mAP, from 0.
        protocol, options: of `evaluate`.
        progress: whether to show a progress bar on standard error.

    Returns:
        t by layer name, for `compress(model, ranks=...)`; empty where every compression loses more.

    Example:
        >>> ranks = smallest_ranks(model, load_dataset("voc:cells@val"), max_loss=0.3)      # doctest: +SKIP
        >>> small = compress(model, ranks=ranks)                                            # doctest: +SKIP
    """
    if not max_loss >= 0:
        raise InputError(f"max_loss: found {max_loss}; expected percentage points of mAP, from 0; 0.3 is the paper's")

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
            vectors[name] = singular_vectors(layer.get_weights()[0])
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
