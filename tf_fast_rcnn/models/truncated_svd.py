"""Truncated SVD for faster detection (section 3.1 of the paper): fully connected layers as two smaller ones each.

A layer of weights W, u outputs by v inputs, is W ~ U S V^T with the t largest singular values: first a layer S V^T of t
outputs without bias or activation, then a layer U with the bias and the activation of the original. Keras's kernels are
the transposes of these: `[v, t]` and `[t, u]`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.parts import PREDICTOR_LAYERS

if TYPE_CHECKING:
    import numpy.typing as npt

# What the names of the first and the second layer end in: ours, and those of the released system's files.
_SUFFIXES = (("_v", "_u"), ("_L", "_U"))


def fully_connected_names(model: keras.Model) -> list[str]:
    """Names of the fully connected layers before the two predictor layers, in order; one that is two layers already has
    its original name.

    Example:
        >>> fully_connected_names(fast_rcnn("vgg16", 20, weights=None))         # doctest: +SKIP
        ['fc1', 'fc2']
    """
    factors = factor_ranks(model)
    seconds = {name + second for name in factors for _, second in _SUFFIXES}
    names = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense) and layer.name not in seconds:
            names.append(next((name for name in factors if layer.name.removeprefix(name) in ("_v", "_L")), layer.name))
    return [name for name in names if name not in PREDICTOR_LAYERS]


def factor_ranks(model: keras.Model) -> dict[str, int]:
    """The number t of singular values by the original name of each layer that is two."""
    layers = {layer.name: layer for layer in model.layers if isinstance(layer, keras.layers.Dense)}
    ranks = {}
    for first, second in _SUFFIXES:
        for layer in layers.values():
            name = layer.name.removesuffix(first)
            is_second = name in PREDICTOR_LAYERS and name in layers
            if layer.name.endswith(first) and (name + second in layers or is_second):
                ranks[name] = layer.units
    return ranks


def singular_vectors(kernel: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Squares of the singular values of a kernel `[v, u]`, float64 `[u]` falling, and the columns of U, float64
    `[u, u]`.

    By the eigenvectors of the u x u products of the kernel's columns: fc6 of VGG16 has six times as many rows.
    """
    kernel = np.asarray(kernel, np.float64)
    squares, vectors = np.linalg.eigh(kernel.T @ kernel)
    return np.maximum(squares[::-1], 0.0), vectors[:, ::-1]


def with_factors(model: keras.Model, ranks: Mapping[str, int]) -> keras.Model:
    """A copy of a model in which layers are two, whose weights are not set; all others have the model's.

    Args:
        model: what `fast_rcnn` returned.
        ranks: the number t by layer name.

    Raises:
        InputError: for a name of no fully connected layer or of one that is two already, or a t out of range.
    """
    for name, rank in ranks.items():
        _check(model, name, rank)

    def call(layer, *args, **kwargs):
        if layer.name not in ranks:
            return layer(*args, **kwargs)
        first = keras.layers.Dense(
            ranks[layer.name],
            use_bias=False,
            name=f"{layer.name}_v",
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
        )
        name = layer.name if layer.name in PREDICTOR_LAYERS else f"{layer.name}_u"
        return type(layer).from_config({**layer.get_config(), "name": name})(first(*args))

    copy = keras.models.clone_model(model, call_function=call)
    known = {layer.name: layer for layer in model.layers if layer.name not in ranks}
    for layer in copy.layers:
        if layer.name in known:
            layer.set_weights(known[layer.name].get_weights())
    return copy


def with_factors_of(model: keras.Model, other: keras.Model) -> keras.Model:
    """A model that takes the weights of another one: with two layers where `compress` made two in the other."""
    names = {layer.name for layer in other.layers}
    ranks = {name: rank for name, rank in factor_ranks(other).items() if f"{name}_v" in names}
    ranks = {name: rank for name, rank in ranks.items() if name in fully_connected_names(model)}
    return with_factors(model, ranks) if ranks else model


def factorize(
    model: keras.Model, ranks: Mapping[str, int], vectors: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None
) -> keras.Model:
    """A copy of a model in which layers are two, by truncated SVD.

    Args:
        model, ranks: as in `with_factors`.
        vectors: the layers' `singular_vectors` by name, where they are known.
    """
    copy = with_factors(model, ranks)
    for name, rank in ranks.items():
        kernel, *bias = model.get_layer(name).get_weights()
        _, left = (vectors or {}).get(name) or singular_vectors(kernel)
        left = left[:, :rank].astype(np.float32)
        copy.get_layer(f"{name}_v").set_weights([kernel @ left])
        copy.get_layer(name if name in PREDICTOR_LAYERS else f"{name}_u").set_weights([left.T, *bias])
    return copy


def _check(model, name, rank):
    known = fully_connected_names(model)
    factors = factor_ranks(model)
    if name in factors:
        raise InputError(
            f"{name}: found a layer that is compressed already (t = {factors[name]}); expected an uncompressed one; "
            "compress the model that it was made of"
        )
    if name not in (*known, *PREDICTOR_LAYERS):
        raise InputError(
            f"{name}: found no such fully connected layer; expected one of {', '.join((*known, *PREDICTOR_LAYERS))}; "
            "correct the name"
        )
    largest = min(model.get_layer(name).kernel.shape)
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or not 1 <= rank <= largest:
        raise InputError(f"{name}: found t = {rank}; expected a whole number from 1 to {largest}; change it")


def compress(
    model: keras.Model,
    fc6: int | None = None,
    fc7: int | None = None,
    *,
    energy: float | None = None,
    ranks: Mapping[str, int] | None = None,
) -> keras.Model:
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
        if rank < break_even(model.get_layer(name)):
            ranks[name] = rank
    return ranks


def break_even(layer: keras.layers.Layer) -> float:
    """The t at which two layers cost as much as one."""
    inputs, outputs = layer.kernel.shape
    return inputs * outputs / (inputs + outputs)


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
        flops_per_roi: multiplications and additions of the fully connected layers, predictor layers among them, before
            and after.
    """

    layers: list
    parameters: tuple
    flops_per_roi: tuple

    def to_json(self) -> dict[str, Any]:
        return {
            "layers": {
                layer.name: {key: value for key, value in layer._asdict().items() if key != "name"}
                for layer in self.layers
            },
            "parameters": list(self.parameters),
            "flops_per_roi": list(self.flops_per_roi),
        }

    def table(self) -> str:
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


def compression_summary(model: keras.Model, compressed: keras.Model) -> CompressionSummary:
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
