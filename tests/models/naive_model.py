"""Inputs and targets for a small detector with three classes, its RoI pooling by loops, and what training changes."""

import numpy as np
from keras import layers

from tf_fast_rcnn import multi_task_loss, sgd

CLASSES = 3


def with_lived_in_statistics(network):
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return network


def with_large_predictors(model):
    """The initial weights of the predictor layers are so small that all RoIs would have similar outputs."""
    rng = np.random.default_rng(7)
    for name in ("class_logits", "box_regression"):
        layer = model.get_layer(name)
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    return model


def some_inputs(images=2, rois=6, height=32, width=44, seed=0):
    """RoIs with continuous edges: the whole image, half pixels, only the last pixel, and random ones."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (images, rois, 2, 2)) * [height, width]
    boxes = np.concatenate([corners.min(axis=2), corners.max(axis=2)], axis=-1)
    fixed = np.array([[0, 0, height, width], [1.5, 2.5, 17.5, 30.5], [height - 1, width - 1, height, width]])
    boxes[:, :3] = fixed[:rois]
    pixels = rng.integers(0, 256, (images, height, width, 3))
    return {"images": pixels.astype(np.float32), "rois": boxes.astype(np.float32)}


def targets_for(inputs, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, CLASSES + 1, inputs["rois"].shape[:2])
    values = rng.normal(size=inputs["rois"].shape)
    return {
        "class_logits": labels.astype(np.int32),
        "box_deltas": np.concatenate([labels[..., None], values], axis=-1).astype(np.float32),
    }


def naive_roi_pool(features, rois, output_size, stride):
    """RoIs with continuous edges, in pixels: their last row and column is one pixel before the edge."""
    cells = np.floor(np.abs(scaled := (rois - [0, 0, 1, 1]) / stride) + 0.5) * np.sign(scaled)
    pooled = np.zeros((*rois.shape[:2], *output_size, features.shape[-1]))
    for b, r in np.ndindex(rois.shape[:2]):
        (top, bottom), (left, right) = cells[b, r, ::2], cells[b, r, 1::2]
        rows, columns = max(bottom - top + 1, 1), max(right - left + 1, 1)
        for p, q in np.ndindex(*output_size):
            y = slice(int(top + p * rows // output_size[0]), int(top - (-(p + 1) * rows // output_size[0])))
            x = slice(int(left + q * columns // output_size[1]), int(left - (-(q + 1) * columns // output_size[1])))
            window = features[b, y, x]
            pooled[b, r, p, q] = window.max(axis=(0, 1)) if window.size else 0
    return pooled


def dense(vectors, layer):
    return vectors @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy()


def naive_predictions(model, hidden, std, mean=0.0):
    """The outputs of the two predictor layers for the features `hidden` [B, R, D] of the RoIs."""
    regression = dense(hidden, model.get_layer("box_regression")).reshape(*hidden.shape[:2], CLASSES, 4)
    return {
        "class_logits": dense(hidden, model.get_layer("class_logits")),
        "box_deltas": regression * np.asarray(std, np.float32) + mean,
    }


def fit_two_steps(model, optimizer=None):
    """Trains on the same mini-batch twice; returns the losses."""
    inputs = some_inputs()
    model.compile(optimizer=optimizer or sgd(0.01), loss=multi_task_loss(model), jit_compile=False)
    return model.fit(inputs, targets_for(inputs), batch_size=2, epochs=2, verbose=0).history["loss"]


def changed_by_training(model):
    """Names of the layers whose weights all changed; no layer may change partially."""
    before = _weights_by_layer(model)
    fit_two_steps(model)
    after = _weights_by_layer(model)
    changes = {
        name: {not np.array_equal(a, b) for a, b in zip(values, after[name], strict=True)}
        for name, values in before.items()
    }
    assert all(len(change) == 1 for change in changes.values()), changes
    return {name for name, (change,) in changes.items() if change and "dropout" not in name}


def _weights_by_layer(model):
    """Including the layers of the models in it, such as the backbone."""
    inner = [layer for part in model.layers for layer in getattr(part, "layers", [part])]
    return {layer.name: layer.get_weights() for layer in inner if layer.weights}


def assert_outputs(found, expected, **tolerance):
    assert set(found) == {"class_logits", "box_deltas"}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, **{"rtol": 1e-4, "atol": 1e-4, **tolerance}, err_msg=name)
