#!/usr/bin/env bash
# Keras 3.15.1: BackupAndRestore with an integer save_freq forgets the epoch when a training is interrupted twice in it.
# Packages: keras 3.15.1, jax 0.10.2 (the backend), numpy 2.2.6
# Expected: a training of 5 epochs that is interrupted twice in its third goes on in its third epoch, as it does after the
#   first interruption.
# Seen: the second fit restores epoch 2 but writes "epoch": 0 into its backups until its first epoch ends, so the third fit
#   trains epochs 0 to 4 once more, from the weights of epoch 2.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 numpy==2.2.6
cd "$place"
KERAS_BACKEND=jax venv/bin/python - <<'PYTHON'
import json

import keras
import numpy as np


class Interrupt(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def fit(after):
    """The epochs that a fit begins, of 5 with 10 mini-batches each, and what its backup says about the epoch."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    epochs, x = [], np.ones((40, 1), "float32")
    begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    backup = keras.callbacks.BackupAndRestore("backup", save_freq=1)
    try:
        model.fit(x, x, batch_size=4, epochs=5, verbose=0, callbacks=[backup, begin, Interrupt(after)])
    except KeyboardInterrupt:
        return epochs, json.load(open("backup/training_metadata.json"))["epoch"]
    return epochs, None


found = [fit(25), fit(3), fit(1000)]
print("epochs of three fits, and the epoch in their backups:", *found)
assert found == [([0, 1, 2], 2), ([2], 0), ([0, 1, 2, 3, 4], None)]
PYTHON
