#!/usr/bin/env bash
# Keras 3.15.1: what is frozen in a composite layer trains again after saving and loading, even if all of it was frozen.
# Packages: keras 3.15.1, jax 0.10.2 (the backend), numpy 2.2.6
# Expected: a .keras file holds the model's state, and `trainable = False` of a layer of the model is saved with it.
# Seen: of two equal composite layers, one is frozen itself and in the other the batch normalisation inside. Before saving
#   nothing is trainable. In the loaded and in the cloned model the first says trainable = False and has no
#   trainable_weights, but its weights are among those of the model, which fit trains; the second is trainable inside.
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


model = keras.Sequential([keras.Input((4,)), Block(), Block()])
model.layers[0].trainable = False
model.layers[1].norm.trainable = False
model.save("model.keras")
copies = {"loaded": keras.saving.load_model("model.keras"), "cloned": keras.models.clone_model(model)}
print("trainable weights before:", len(model.trainable_weights))
assert not model.trainable_weights
for name, copy in copies.items():
    frozen, partly = copy.layers
    numbers = [len(each.trainable_weights) for each in (copy, frozen, partly)]
    print(f"{name}: trainable weights of the model and of its layers {numbers};", frozen.trainable, partly.norm.trainable)
    assert (numbers, frozen.trainable, partly.norm.trainable) == ([4, 0, 2], False, True)
PYTHON
