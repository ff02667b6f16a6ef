"""Truncated SVD for faster detection (section 3.1 of the paper): how far which layer of a model is compressed, and what
that changes."""

import dataclasses
import math
from typing import NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.models import evaluate
from tf_fast_rcnn.factorization import factor_ranks, factorize, fully_connected_names, singular_vectors

# The search tries t at these shares of the number that changes nothing in cost, each a tenth of an octave apart.
_SHARES = 2.0 ** (-np.arange(1, 65) / 10)


def compress(model, fc6=None, fc7=None, *, energy=None, ranks=None):
    """A copy of a model whose fully connected layers are compressed by truncated SVD.

    A layer of v inputs and u outputs becomes two: `NAME_v` with t outputs, without bias or activation, and `NAME_u`
    with those of the original (`class_logits` and `box_regression` keep their names). It costs t (u + v)
    multiplications a RoI in place of u v. The result is a model as `fast_rcnn` returns them: it is saved, exported and
    trained further.

    Args:
        model: what `fast_rcnn` returned.
        fc6, fc7: the number t of singular values of the first and of the second fully connected layer, whatever their
            names are; the paper's are 1024 and 256 for VGG16. None leaves a layer as it is.
        energy: for all fully connected layers that no t is given for: the smallest t that keeps this share of the sum
            of squares of the singular values, 0 to 1. A layer to which that would save nothing stays as it is.
        ranks: t by layer name, for any layer, `class_logits` and `box_regression` among them.

    Returns:
        `keras.Model` with weights of its own.

    Raises:
        InputError: for a layer that is not there, that is compressed already or that is named twice, for a t that is
            no rank of it, and where nothing is asked for.

    Example:
        >>> small = compress(model, fc6=1024, fc7=256)                         # doctest: +SKIP
        >>> print(compression_summary(model, small).table())                   # doctest: +SKIP

    Reference:
        R. Girshick, "Fast R-CNN", ICCV 2015, section 3.1 and figure 2.
    """
    asked = _by_name(model, fc6, fc7, ranks or {})
    if energy is None and not asked:
        raise InputError("compress: found no layer to compress; expected fc6, fc7, energy or ranks; give one of them")
    vectors = {}
    if energy is not None:
        if not 0 < energy <= 1:
            raise InputError(f"energy: found {energy}; expected a share above 0, at most 1; 0.9 keeps nine tenths")
        left = [name for name in fully_connected_names(model) if name not in {*asked, *factor_ranks(model)}]
        vectors = {name: singular_vectors(model.get_layer(name).get_weights()[0]) for name in left}
        asked |= _ranks_by_energy(model, vectors, energy)
    return factorize(model, asked, vectors)


def _by_name(model, fc6, fc7, ranks):
    """`ranks` with those of the first and the second fully connected layer."""
    asked = dict(ranks)
    names = fully_connected_names(model)
    for position, (argument, rank) in enumerate((("fc6", fc6), ("fc7", fc7))):
        if rank is None:
            continue
        if position >= len(names):
            raise InputError(
                f"{argument}: found the fully connected layers {', '.join(names) or 'none'}; expected "
                f"{('one', 'two')[position]} or more; leave {argument} out"
            )
        if names[position] in asked:
            raise InputError(f"{argument}: found a second t for {names[position]}, which ranks names; expected one")
        asked[names[position]] = rank
    return asked


def _ranks_by_energy(model, vectors, energy):
    """The smallest t that keeps a share of each layer's energy, where that makes it smaller."""
    ranks = {}
    for name, (squares, _) in vectors.items():
        kept = np.cumsum(squares) / squares.sum()
        # The sum of all may come out a rounding error below 1.
        rank = int(np.searchsorted(kept, min(energy, kept[-1]))) + 1
        if rank < _break_even(model.get_layer(name)):
            ranks[name] = rank
    return ranks


def _break_even(layer):
    """The t at which two layers cost as much as one."""
    inputs, outputs = layer.kernel.shape
    return inputs * outputs / (inputs + outputs)


def smallest_ranks(model, dataset, max_loss, protocol="voc07", *, progress=True, **options):
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
            candidates = sorted({max(1, int(share * _break_even(layer))) for share in _SHARES})
            low, high = 0, len(candidates)
            while low < high:
                middle = (low + high) // 2
                found = mean_ap(factorize(model, {**ranks, name: candidates[middle]}, vectors))
                low, high = (low, middle) if found >= enough else (middle + 1, high)
                bar.update()
            if low < len(candidates):
                ranks[name] = candidates[low]
    return ranks


class LayerChange(NamedTuple):
    """What compression made of one layer.

    Attributes:
        name: of the layer.
        inputs, outputs: v and u.
        rank: t.
        parameters_before, parameters_after: numbers of weights and biases.
        energy: share of the sum of squares of the singular values that is kept.
    """

    name: str
    inputs: int
    outputs: int
    rank: int
    parameters_before: int
    parameters_after: int
    energy: float


@dataclasses.dataclass(frozen=True)
class CompressionSummary:
    """What compression changed.

    Attributes:
        layers: a `LayerChange` for each layer that was compressed.
        parameters: of the whole model, before and after.
        flops_per_roi: multiplications and additions of the fully connected layers, the siblings among them, before and
            after.
    """

    layers: list
    parameters: tuple
    flops_per_roi: tuple

    def to_json(self):
        return {
            "layers": {
                layer.name: {key: value for key, value in layer._asdict().items() if key != "name"}
                for layer in self.layers
            },
            "parameters": list(self.parameters),
            "flops_per_roi": list(self.flops_per_roi),
        }

    def table(self):
        """The summary as lines of text."""
        lines = [f"{'layer':<16}{'shape':>14}{'t':>7}{'parameters':>27}{'energy kept':>14}"]
        for layer in self.layers:
            shape = f"{layer.inputs} x {layer.outputs}"
            parameters = f"{layer.parameters_before:,} -> {layer.parameters_after:,}"
            lines.append(f"{layer.name:<16}{shape:>14}{layer.rank:>7}{parameters:>27}{layer.energy:>14.4f}")
        (before, after), (work_before, work_after) = self.parameters, self.flops_per_roi
        lines.append(f"parameters of the model: {before:,} -> {after:,}, {after / before:.1%}")
        ratio = work_after / work_before
        lines.append(f"operations a RoI, fully connected: {work_before:,} -> {work_after:,}, {ratio:.1%}")
        return "\n".join(lines)


def compression_summary(model, compressed):
    """The `CompressionSummary` of a model and of what `compress` made of it."""
    layers = []
    for name, rank in factor_ranks(compressed).items():
        if name in factor_ranks(model):
            continue
        layer, first = model.get_layer(name), compressed.get_layer(f"{name}_v")
        inputs, outputs = layer.kernel.shape
        kernel, small = (each.get_weights()[0].astype(np.float64) for each in (layer, first))
        before = layer.count_params()
        after = before - inputs * outputs + rank * (inputs + outputs)
        # The rows of the second layer are orthonormal: the singular values are all in the first.
        energy = float((small**2).sum() / (kernel**2).sum())
        layers.append(LayerChange(name, inputs, outputs, rank, before, after, energy))
    both = (model, compressed)
    return CompressionSummary(layers, tuple(each.count_params() for each in both), tuple(map(_flops_per_roi, both)))


def _flops_per_roi(model):
    dense = (layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    return sum(2 * math.prod(layer.kernel.shape) for layer in dense)
