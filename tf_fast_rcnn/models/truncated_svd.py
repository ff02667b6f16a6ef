"""Truncated SVD for faster detection (section 3.1 of the paper): splits fully connected layers into two smaller ones.

A weight matrix W with u outputs and v inputs is approximated with its t largest singular values as W ~ U S V^T: first a
layer S V^T with t outputs and no bias or activation, then a layer U with the bias and the activation of the original.
Keras stores the transposes of these matrices: kernels `[v, t]` and `[t, u]`.
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
from tf_fast_rcnn.models.pretrained import copy_weights, kernel_and_bias

if TYPE_CHECKING:
    import numpy.typing as npt

# Suffixes of the names of the first and the second layer: ours, and those in the files of the original system.
_SUFFIXES = (("_v", "_u"), ("_L", "_U"))


def fully_connected_names(model: keras.Model) -> list[str]:
    """Names of the fully connected layers before the two predictor layers, in order. A compressed layer is listed once,
    under its original name.

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
    """The number t of singular values of each compressed layer, by its original name.

    Example:
        >>> factor_ranks(compress(model, fc6=1024, fc7=256))                    # doctest: +SKIP
        {'fc6': 1024, 'fc7': 256}
    """
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
    """Squares of the singular values of a kernel `[v, u]`, float64 `[u]` in descending order, and the matrix U, float64
    `[u, u]`.

    Computes the eigenvectors of the u x u matrix of products of the kernel's columns, which is faster than an SVD if
    the kernel has many more rows (six times as many in fc6 of VGG16).
    """
    kernel = np.asarray(kernel, np.float64)
    squares, vectors = np.linalg.eigh(kernel.T @ kernel)
    return np.maximum(squares[::-1], 0.0), vectors[:, ::-1]


def with_factors(model: keras.Model, ranks: Mapping[str, int]) -> keras.Model:
    """A copy of a model in which the given layers are each split in two.

    The weights of the split layers are not set; all other layers have the weights of the model.

    Args:
        model: a model made by `fast_rcnn`.
        ranks: the number t by layer name.

    Raises:
        InputError: if a name is not that of a fully connected layer, if the layer is already compressed, or if a t is
            out of range.
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
        # The factors are those of the kernel with LoRA, whose matrices the second layer no longer has.
        config = {key: value for key, value in layer.get_config().items() if not key.startswith("lora_")}
        return type(layer).from_config({**config, "name": name})(first(*args))

    copy = keras.models.clone_model(model, call_function=call)
    known = {layer.name: layer for layer in model.layers if layer.name not in ranks}
    for layer in copy.layers:
        if layer.name in known:
            copy_weights(known[layer.name], layer)
    return copy


def with_factors_of(model: keras.Model, other: keras.Model) -> keras.Model:
    """A copy of a model with the same layers compressed as in another model, so that it can take its weights."""
    names = {layer.name for layer in other.layers}
    ranks = {name: rank for name, rank in factor_ranks(other).items() if f"{name}_v" in names}
    ranks = {name: rank for name, rank in ranks.items() if name in fully_connected_names(model)}
    return with_factors(model, ranks) if ranks else model


def factorize(
    model: keras.Model, ranks: Mapping[str, int], vectors: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None
) -> keras.Model:
    """A copy of a model in which the given layers are compressed by truncated SVD.

    Args:
        model, ranks: as in `with_factors`.
        vectors: `singular_vectors` by layer name, if they are already known.
    """
    copy = with_factors(model, ranks)
    for name, rank in ranks.items():
        kernel, *bias = kernel_and_bias(model.get_layer(name))
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
            f"{name}: found a layer that is already compressed (t = {factors[name]}); expected an uncompressed one; "
            "compress the original model"
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
    """Returns a copy of a model whose fully connected layers are compressed by truncated SVD.

    A layer with v inputs and u outputs becomes two: `NAME_v` with t outputs and no bias or activation, and `NAME_u`
    with the bias and the activation of the original (`class_logits` and `box_regression` keep their names). Per RoI
    this costs t (u + v) multiplications instead of u v. The result is a model like those of `fast_rcnn`: it can be
    saved, exported and trained further.

    Args:
        model: a model made by `fast_rcnn`.
        fc6, fc7: the number t of singular values of the first and the second fully connected layer, whatever their
            names; the paper uses 1024 and 256 for VGG16. None leaves a layer unchanged.
        energy: for every fully connected layer without a given t, the smallest t that keeps this share of the sum of
            squares of the singular values, above 0, at most 1. Layers that would not become smaller stay unchanged.
        ranks: t by layer name, for any fully connected layer, including `class_logits` and `box_regression`.

    Returns:
        `keras.Model` that does not share weights with `model`.

    Raises:
        InputError: if a layer does not exist, is already compressed or is given twice; if a t is out of range; if no
            argument selects a layer.

    Example:
        >>> small = compress(model, fc6=1024, fc7=256)                         # doctest: +SKIP
        >>> print(compression_summary(model, small).table())                   # doctest: +SKIP

    Reference:
        R. Girshick, "Fast R-CNN", ICCV 2015, section 3.1 and figure 2.
    """
    asked = _by_name(model, fc6, fc7, ranks or {})
    if energy is None and not asked:
        raise InputError("compress: found no layer to compress; expected fc6, fc7, energy or ranks; pass one of them")
    vectors = {}
    if energy is not None:
        if not 0 < energy <= 1:
            raise InputError(f"energy: found {energy}; expected a share above 0, at most 1; 0.9 keeps 90 %")
        left = [name for name in fully_connected_names(model) if name not in {*asked, *factor_ranks(model)}]
        vectors = {name: singular_vectors(kernel_and_bias(model.get_layer(name))[0]) for name in left}
        asked |= _ranks_by_energy(model, vectors, energy)
    return factorize(model, asked, vectors)


def _by_name(model, fc6, fc7, ranks):
    """`ranks` together with `fc6` and `fc7` under the names of the layers."""
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
            raise InputError(
                f"{argument}: found a second t for {names[position]}, which is also in ranks; expected one"
            )
        asked[names[position]] = rank
    return asked


def _ranks_by_energy(model, vectors, energy):
    """The smallest t that keeps the share `energy` of each layer, for layers that this makes smaller."""
    ranks = {}
    for name, (squares, _) in vectors.items():
        kept = np.cumsum(squares) / squares.sum()
        # Because of rounding errors, the last element may be slightly below 1.
        rank = int(np.searchsorted(kept, min(energy, kept[-1]))) + 1
        if rank < break_even(model.get_layer(name)):
            ranks[name] = rank
    return ranks


def break_even(layer: keras.layers.Layer) -> float:
    """The t at which the two layers cost as much as the original one."""
    inputs, outputs = layer.kernel.shape
    return inputs * outputs / (inputs + outputs)


class LayerChange(NamedTuple):
    """How compression changed one layer.

    Attributes:
        name: name of the layer.
        inputs, outputs: v and u.
        rank: t.
        parameters_before, parameters_after: number of weights and biases.
        energy: the kept share of the sum of squares of the singular values.
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
    """What compression changed in a model.

    Attributes:
        layers: a `LayerChange` for each compressed layer.
        parameters: number of parameters of the whole model, before and after.
        flops_per_roi: multiplications and additions per RoI in the fully connected layers, including the predictor
            layers, before and after.
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
        lines.append(f"operations per RoI in fully connected layers: {work_before:,} -> {work_after:,}, {ratio:.1%}")
        return "\n".join(lines)


def compression_summary(model: keras.Model, compressed: keras.Model) -> CompressionSummary:
    """What compression changed: layers, parameters and operations per RoI.

    Args:
        model: a model made by `fast_rcnn`.
        compressed: its compressed copy, the result of `compress`.

    Returns:
        `CompressionSummary`.

    Example:
        >>> summary = compression_summary(model, compress(model, fc6=1024, fc7=256))        # doctest: +SKIP
        >>> before, after = summary.parameters                                              # doctest: +SKIP
    """
    layers = []
    for name, rank in factor_ranks(compressed).items():
        if name in factor_ranks(model):
            continue
        layer, first = model.get_layer(name), compressed.get_layer(f"{name}_v")
        inputs, outputs = layer.kernel.shape
        kernel, small = (kernel_and_bias(each)[0].astype(np.float64) for each in (layer, first))
        before = layer.count_params()
        after = before - inputs * outputs + rank * (inputs + outputs)
        # The rows of the second kernel are orthonormal, so the first one contains the singular values.
        energy = float((small**2).sum() / (kernel**2).sum())
        layers.append(LayerChange(name, inputs, outputs, rank, before, after, energy))
    both = (model, compressed)
    return CompressionSummary(layers, tuple(each.count_params() for each in both), tuple(map(_flops_per_roi, both)))


def _flops_per_roi(model):
    dense = (layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    return sum(2 * math.prod(layer.kernel.shape) for layer in dense)
