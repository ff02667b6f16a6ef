#!/usr/bin/env bash
# Keras 3.15.1: the layer Equalization equalises in training and leaves images as they are in detection (inference).
# Packages: keras 3.15.1, jax 0.10.2 (the backend), numpy 2.2.6
# Expected: histogram equalisation has nothing random, so as preprocessing it is the same in training and inference, as its
#   sibling AutoContrast is ("active at both training and inference time").
# Seen: with training=False, which fit's validation, evaluate and predict pass, the output equals the input. A network that
#   is trained behind it sees other images afterwards than in training.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 numpy==2.2.6
cd "$place"
KERAS_BACKEND=jax venv/bin/python - <<'PYTHON'
import keras
import numpy as np

images = np.random.default_rng(0).integers(100, 120, (1, 8, 8, 3)).astype("float32")
for layer, expected in ((keras.layers.Equalization(), [True, False]), (keras.layers.AutoContrast(), [True, True])):
    changes = [not np.allclose(layer(images, training=training), images) for training in (True, False)]
    print(type(layer).__name__, "changes images in training, in inference:", changes)
    assert changes == expected
PYTHON
