"""Prints what a mini-batch does to a small detector on one device and on several logical CPUs, as JSON lines.

    python replica_updates.py REPLICAS

Each number of replicas needs its own process: TensorFlow sets devices up once, and its collectives keep their group.
"""

import functools
import json
import sys

import keras
import numpy as np
import tensorflow as tf
from naive_model import CLASSES, some_inputs, targets_for

import tf_fast_rcnn as frcnn


def mini_batch(images):
    """Images with very different numbers of used RoIs, so that a divisor per replica would be wrong."""
    inputs = some_inputs(images, rois=8, height=64, width=64, seed=images)
    targets = targets_for(inputs, seed=images)
    for image in range(0, images, 2):
        targets["class_logits"][image, 2:] = -1
        targets["box_deltas"][image, 2:, 0] = -1
    targets["class_logits"][0, 0] = targets["box_deltas"][0, 0, 0] = 2
    return inputs, targets


def detector():
    keras.utils.set_random_seed(0)
    images = keras.Input((64, 64, 3))
    x = keras.layers.Rescaling(1 / 255.0)(images)
    x = keras.layers.Conv2D(4, 3, 16, padding="same", activation="relu")(x)
    network = keras.Model(images, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    return frcnn.fast_rcnn(network, CLASSES, fc_units=(8,), dropout=0.0)


def batches(sizes, sample_weight):
    """The mini-batches one after another, of different sizes."""
    datasets = []
    for images in sizes:
        weights = (np.linspace(0.5, 2.0, images, dtype=np.float32),) if sample_weight else ()
        datasets.append(tf.data.Dataset.from_tensor_slices((*mini_batch(images), *weights)).batch(images))
    return functools.reduce(lambda before, following: before.concatenate(following), datasets)


def trained(strategy, sizes, sample_weight):
    """The losses that `fit` and `evaluate` report, and the changes of all weights."""
    with strategy.scope():
        model = detector()
        before = model.get_weights()
        model.compile(frcnn.sgd(0.05), frcnn.multi_task_loss(model, class_weights=[0.5, 1, 2, 3]))
    history = model.fit(batches(sizes, sample_weight), epochs=1, verbose=0, shuffle=False).history
    changes = [after - weight for after, weight in zip(model.get_weights(), before, strict=True)]
    evaluated = model.evaluate(batches(sizes, sample_weight), verbose=0, return_dict=True)
    return [*(values[0] for values in history.values()), *evaluated.values()], changes


def main():
    replicas = int(sys.argv[1])
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])
    # The images of each mini-batch: shards of equal size, then also of unequal size. Keras needs equal shards in the
    # first mini-batch of a `fit`: it averages their images to build the model.
    for sizes in ((2 * replicas, 2 * replicas), (2 * replicas, 2 * replicas - 1)):
        for sample_weight in (False, True):
            losses, changes = trained(tf.distribute.get_strategy(), sizes, sample_weight)
            losses_on_all, changes_on_all = trained(strategy, sizes, sample_weight)
            row = {
                "images": sizes,
                "losses": losses,
                "losses_on_all": losses_on_all,
                "largest_change": max(float(np.abs(change).max()) for change in changes),
                "largest_difference": max(
                    float(np.abs(one - other).max()) for one, other in zip(changes, changes_on_all, strict=True)
                ),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
