#!/usr/bin/env bash
# Keras 3.15.1: keras.layers.Normalization computes with its old statistics after set_weights, also in cloned models.
# Packages: keras 3.15.1, jax 0.10.2 (the backend), numpy 2.2.6
# Expected: a layer computes with the weights that get_weights returns, as all other layers do and as documented for
#   set_weights; clone_model followed by set_weights gives a model that computes the same.
# Seen: the copy has all three weights of the adapted layer and still subtracts 0 and divides by 1. The layer derives its
#   mean and variance from the weights only in adapt and when weights are loaded from a file (finalize_state).
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 numpy==2.2.6
cd "$place"
KERAS_BACKEND=jax venv/bin/python - <<'PYTHON'
import keras
import numpy as np

data = np.random.default_rng(0).normal(5.0, 2.0, (100, 3)).astype("float32")
layer = keras.layers.Normalization()
layer.adapt(data)
model = keras.Sequential([keras.Input((3,)), layer])
copy = keras.models.clone_model(model)
copy.set_weights(model.get_weights())
same_weights = [np.array_equal(*pair) for pair in zip(model.get_weights(), copy.get_weights(), strict=True)]
means = [round(float(np.mean(each(data))), 2) for each in (model, copy)]
print("weights equal:", same_weights, "- mean of the outputs of the model and of its copy:", means)
assert same_weights == [True, True, True]
assert means == [0.0, 4.93]
copy.layers[-1].finalize_state()
assert np.allclose(copy(data), model(data))
PYTHON
