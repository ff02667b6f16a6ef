"""Mixed precision: layers compute in a half type, while weights, RoIs, scores, boxes and losses stay float32."""

import contextlib

import keras

# What these give is compared, decoded or summed up; bfloat16 has 8 significant bits.
_FLOAT32_NAMES = {"roi_corners", "class_logits", "box_regression", "box_by_class", "box_deltas"}
# Colours 0..255 with fractions would lose them.
_FLOAT32_LAYERS = (keras.layers.Rescaling, keras.layers.Normalization)


def set_precision(model, dtype):
    """Makes the convolutions and the fully connected layers of a Fast R-CNN model compute in `dtype`.

    Keras's global policy is left alone: it would reach layers that are made elsewhere, and not those of a network that
    was made before.

    Args:
        model: what `fast_rcnn` returned; already traced functions keep the types that they were traced with.
        dtype: name of a Keras dtype policy: "float32", "mixed_bfloat16", "mixed_float16".
    """
    for layer in _half_type_layers(model):
        layer.dtype_policy = keras.DTypePolicy(dtype)


@contextlib.contextmanager
def in_precision(model, dtype):
    """The model with its layers at another precision (see `set_precision`), for as long as the context lasts."""
    policies = [(layer, layer.dtype_policy) for layer in _half_type_layers(model)]
    set_precision(model, dtype)
    try:
        yield model
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy


def _half_type_layers(model):
    """The layers of the convolutions and all after them, in order, without those that stay float32."""
    names = [layer.name for layer in model.layers]
    # What stands before the convolutions is preprocessing.
    for layer in model.layers[names.index("convolutions") :]:
        for part in getattr(layer, "layers", [layer]):
            if part.name not in _FLOAT32_NAMES and not isinstance(part, _FLOAT32_LAYERS):
                yield part
