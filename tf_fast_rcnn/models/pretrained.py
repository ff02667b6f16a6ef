"""Parts of a pre-trained network: exact copies of its layers, with normalisation statistics that stay frozen."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.folding import run_with_normalization_included


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class PretrainedNetwork(keras.Model):
    """A functional model that runs frozen batch normalisation as part of the convolution before it (see
    `models.folding`), and whose composite layers stay frozen: their batch normalisation, and all of a frozen one.

    A composite layer is a layer that makes layers of its own, such as the blocks of KerasHub's MobileNet and
    EfficientNet. Keras does not save whether these are trainable, and trains the weights in a loaded or copied layer
    even if the layer itself is frozen. This model freezes them whenever it is made, copied or loaded.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        for layer in self.layers:
            if is_composite(layer):
                freeze_normalization(layer)
                # Each part: TensorFlow skips an assignment of the value that an attribute already has.
                for part in parts_of(layer) if not layer.trainable else ():
                    part.trainable = False

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        outputs = run_with_normalization_included(self, self._standardize_inputs(inputs), training)
        return outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs


def is_composite(layer: keras.layers.Layer) -> bool:
    """Whether a layer contains other layers and is not a model."""
    return not isinstance(layer, keras.Model) and len(parts_of(layer)) > 1


def parts_of(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all layers inside it."""
    return list(layer._flatten_layers())


def freeze_normalization(layer: keras.layers.Layer) -> None:
    """Freezes all batch normalisation in a layer or a model, itself included, at any depth."""
    for part in parts_of(layer):
        if isinstance(part, keras.layers.BatchNormalization):
            part.trainable = False


def copy_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Copies the weights of a layer or a model to one of the same structure.

    Unlike Keras's `set_weights`, this includes the mean and the variance that `keras.layers.Normalization` computes
    with: they are tensors, which the layer derives from its weights when these are loaded from a file.
    """
    target.set_weights(source.get_weights())
    for part in parts_of(target):
        if isinstance(part, keras.layers.Normalization) and part.built:
            part.finalize_state()


def kernel_and_bias(layer: keras.layers.Dense) -> list[np.ndarray]:
    """The kernel of a fully connected layer, with what LoRA adds to it, and its bias if there is one.

    Raises:
        InputError: if the layer is quantised.
    """
    if layer.quantization_mode is not None:
        raise InputError(
            f"{layer.name}: found a layer quantised to {layer.quantization_mode}; expected weights as trained; use the "
            "model before model.quantize"
        )
    weights = [layer.kernel, layer.bias] if layer.use_bias else [layer.kernel]
    return [keras.ops.convert_to_numpy(weight) for weight in weights]


def copy_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A layer with the same configuration, without weights.

    Raises:
        InputError: if the layer cannot be made from its configuration.
    """
    if isinstance(layer, keras.layers.Lambda):
        raise InputError(
            f"backbone: found the Lambda layer {layer.name}, which Keras does not load from files that may come from "
            "others; expected layers of Keras or registered ones; replace it, for example by Rescaling"
        )
    try:
        copy = type(layer).from_config(layer.get_config())
    except Exception as error:  # The code of any layer may raise any error.
        raise _not_copied(layer, str(error) or type(error).__name__) from error
    copy.name = layer.name  # which some configurations lack
    return copy


def copy_layer_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """`copy_weights` for a copy made by `copy_layer`, once it is built.

    Raises:
        InputError: if the copy has other weights.
    """
    try:
        copy_weights(source, target)
    except ValueError as error:
        raise _not_copied(source, str(error)) from error


def _not_copied(layer, reason):
    # Keras puts the cause last, after a long configuration.
    reason = reason.strip().splitlines()[-1].removeprefix("Exception encountered: ")
    return InputError(
        f"backbone: found layer {layer.name} ({type(layer).__name__}), which cannot be made from its get_config() "
        f"({reason[:200]}); expected layers that can be copied and saved; implement get_config, and pass **kwargs to "
        "super().__init__"
    )
