#!/usr/bin/env bash
# Keras 3.15.1: a frozen layer inside a layer of one's own is trainable again after saving and loading, and when cloned.
# Packages: keras 3.15.1, jax 0.10.2 (the backend), numpy 2.2.6
# Expected: a .keras file holds the model's state; `trainable = False` of a layer of the model is saved, and that of a
#   layer inside a composite layer counts for trainable_weights and for batch normalisation before saving.
# Seen: before saving nothing is trainable; after loading, gamma and beta of the inner batch normalisation are, and its
#   statistics change in training.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 numpy==2.2.6
cd "$place"
KERAS_BACKEND=jax venv/bin/python - <<'PYTHON'
import keras


@keras.saving.register_keras_serializable("finding")
class Block(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, training=None):
        return self.norm(x, training=training)


model = keras.Sequential([keras.Input((4,)), Block(), keras.layers.BatchNormalization()])
model.layers[0].norm.trainable = False
model.layers[1].trainable = False
model.save("model.keras")
copies = {"loaded": keras.saving.load_model("model.keras"), "cloned": keras.models.clone_model(model)}
print("trainable weights before:", len(model.trainable_weights))
assert not model.trainable_weights
for name, copy in copies.items():
    inner, outer = copy.layers[0].norm.trainable, copy.layers[1].trainable
    print(f"{name}: trainable weights {len(copy.trainable_weights)}, inside {inner}, in the model itself {outer}")
    assert (len(copy.trainable_weights), inner, outer) == (2, True, False)
PYTHON
