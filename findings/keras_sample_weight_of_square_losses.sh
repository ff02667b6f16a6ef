#!/usr/bin/env bash
# Keras 3.15.1: with as many steps as samples, sample_weight of shape [B] silently weights the steps, not the samples.
# Packages: keras 3.15.1, jax 0.10.2 (the backend), numpy 2.2.6
# Expected: the documentation of Loss: "if a sample_weight vector of shape [batch_size] is provided, then the total loss
#   for each sample of the batch is rescaled by the corresponding element", so weights [1, 0] keep the first sample.
# Seen: for losses of shape [2, 2] they keep the first step of both samples: 2.5 instead of 0.5. With [2, 3] the same call
#   is an error of incompatible shapes. A weight of shape [2, 1] does what was expected.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 numpy==2.2.6
cd "$place"
KERAS_BACKEND=jax venv/bin/python - <<'PYTHON'
import keras
import numpy as np

loss = keras.losses.MeanSquaredError()
weights = np.float32([1, 0])


def weighted(steps, weights):
    """Two samples with errors of 1 and of 3 in each step; the mean is over all samples and steps."""
    errors = np.float32([[[1]] * steps, [[3]] * steps])
    return float(loss(np.zeros_like(errors), errors, weights))


found = weighted(2, weights), weighted(2, weights[:, None])
print("two steps: [1, 0] gives", found[0], "and [[1], [0]] gives", found[1])
assert found == (2.5, 0.5)
try:
    weighted(3, weights)
except ValueError as error:
    print("three steps:", str(error).splitlines()[0])
else:
    raise AssertionError("three steps are no error any more")
PYTHON
