"""Fully connected layers as two smaller ones (section 3.1 of the paper, "Truncated SVD for faster detection").

A layer of weights W, u outputs by v inputs, is W ~ U S V^T with the t largest singular values: first a layer S V^T of t
outputs without bias or activation, then a layer U with the bias and the activation of the original. Keras's kernels are
the transposes of these: `[v, t]` and `[t, u]`.
"""

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError

# What the names of the first and the second layer end in: ours, and those of the released system's files.
_SUFFIXES = (("_v", "_u"), ("_L", "_U"))

# The model's two outputs keep their names, by which they are found.
_SIBLINGS = ("class_logits", "box_regression")


def fully_connected_names(model):
    """Names of the fully connected layers before the two siblings, in order; one that is two layers already has its
    original name.

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
    return [name for name in names if name not in _SIBLINGS]


def factor_ranks(model):
    """The number t of singular values by the original name of each layer that is two."""
    layers = {layer.name: layer for layer in model.layers if isinstance(layer, keras.layers.Dense)}
    ranks = {}
    for first, second in _SUFFIXES:
        for layer in layers.values():
            name = layer.name.removesuffix(first)
            is_second = name in _SIBLINGS and name in layers
            if layer.name.endswith(first) and (name + second in layers or is_second):
                ranks[name] = layer.units
    return ranks


def singular_vectors(kernel):
    """Squares of the singular values of a kernel `[v, u]`, float64 `[u]` falling, and the columns of U, float64
    `[u, u]`.

    By the eigenvectors of the u x u products of the kernel's columns: fc6 of VGG16 has six times as many rows.
    """
    kernel = np.asarray(kernel, np.float64)
    squares, vectors = np.linalg.eigh(kernel.T @ kernel)
    return np.maximum(squares[::-1], 0.0), vectors[:, ::-1]


def with_factors(model, ranks):
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
        name = layer.name if layer.name in _SIBLINGS else f"{layer.name}_u"
        return type(layer).from_config({**layer.get_config(), "name": name})(first(*args))

    copy = keras.models.clone_model(model, call_function=call)
    known = {layer.name: layer for layer in model.layers if layer.name not in ranks}
    for layer in copy.layers:
        if layer.name in known:
            layer.set_weights(known[layer.name].get_weights())
    return copy


def with_factors_of(model, other):
    """A model that takes the weights of another one: with two layers where `compress` made two in the other."""
    names = {layer.name for layer in other.layers}
    ranks = {name: rank for name, rank in factor_ranks(other).items() if f"{name}_v" in names}
    ranks = {name: rank for name, rank in ranks.items() if name in fully_connected_names(model)}
    return with_factors(model, ranks) if ranks else model


def factorize(model, ranks, vectors=None):
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
        copy.get_layer(name if name in _SIBLINGS else f"{name}_u").set_weights([left.T, *bias])
    return copy


def _check(model, name, rank):
    known = fully_connected_names(model)
    factors = factor_ranks(model)
    if name in factors:
        raise InputError(
            f"{name}: found a layer that is compressed already (t = {factors[name]}); expected an uncompressed one; "
            "compress the model that it was made of"
        )
    if name not in (*known, *_SIBLINGS):
        raise InputError(
            f"{name}: found no such fully connected layer; expected one of {', '.join((*known, *_SIBLINGS))}; "
            "correct the name"
        )
    largest = min(model.get_layer(name).kernel.shape)
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or not 1 <= rank <= largest:
        raise InputError(f"{name}: found t = {rank}; expected a whole number from 1 to {largest}; change it")
