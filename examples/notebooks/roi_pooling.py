# %% [markdown]
# # RoI pooling inside your own Keras model
#
# RoI pooling turns any region of a feature map into a small map of fixed size. Fast R-CNN is built on it, but it is
# useful on its own whenever a network has to classify or measure given boxes. This notebook uses the layer in a small
# Keras model that classifies given boxes, trains the model, and shows that the gradient passes through the layer.
#
# With the values below, everything takes a few minutes on two CPU cores.

# %% tags=["parameters"]
TRAIN_IMAGES, TEST_IMAGES = 200, 40
EPOCHS = 20

# %%
import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.demo.digits import generate_digits
from tf_fast_rcnn.visualization.drawing import class_colors, contact_sheet, draw_boxes

keras.utils.set_random_seed(0)

# %% [markdown]
# ## What RoI pooling does
#
# The package generates images with handwritten digits, and the box of each digit. We treat the first image as a feature
# map with three channels (red, green and blue) and pool the region of its first digit to 16 x 16 bins. Each bin
# has the maximum of the pixels in it, for each channel.
#
# The layer takes boxes `[y1, x1, y2, x2]` in pixels of the network's input, and the last row and column belong to the
# box: a box over a whole image of 240 x 320 pixels is `[0, 0, 239, 319]`. `spatial_scale` is the number of feature-map
# cells per pixel: 1 here.

# %%
scratch = tempfile.TemporaryDirectory()  # removed when the notebook ends
voc = generate_digits(f"{scratch.name}/digits", {"train": TRAIN_IMAGES, "test": TEST_IMAGES})
train = frcnn.load_dataset(f"voc:{voc}@train", class_names=list("0123456789"))
test = frcnn.load_dataset(f"voc:{voc}@test", class_names=train.class_names)


def rois_of(record):
    """The boxes of an image as the layer takes them."""
    return record.boxes * [record.height, record.width, record.height, record.width] - [0, 0, 1, 1]


first = train[0]
pooled = frcnn.roi_pool(first.image()[None].astype("float32"), rois_of(first)[None, :1], (16, 16), spatial_scale=1.0)
print("feature map", first.image()[None].shape, "-> pooled", pooled.shape)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5))
left.imshow(draw_boxes(first.image(), first.boxes[:1], [""], ["#bd1f01"]))
right.imshow(pooled[0, 0].numpy().astype("uint8"))
left.set_title("feature map and region")
right.set_title("16 x 16 bins")
plt.show()

# %% [markdown]
# ## Data as arrays
#
# A batch needs images of the same size, with the same number of boxes each. We pad the images at the bottom and the
# right, which does not move any box, and add empty boxes with weight 0 to images with few digits.


# %%
def arrays(dataset, height=320, width=360, boxes=6):
    images = np.zeros((len(dataset), height, width, 3), np.uint8)
    rois = np.zeros((len(dataset), boxes, 4), np.float32)
    labels, weights = np.zeros((len(dataset), boxes), np.int32), np.zeros((len(dataset), boxes), np.float32)
    for row, record in enumerate(dataset):
        count = len(record.boxes)
        images[row, : record.height, : record.width] = record.image()
        rois[row, :count] = rois_of(record)
        labels[row, :count] = record.class_ids - 1  # class ids start at 1; 0 is a detector's background
        weights[row, :count] = 1
    return (images, rois), labels, weights


inputs, labels, weights = arrays(train)
test_arrays = arrays(test)
for name, array in {"images": inputs[0], "rois": inputs[1], "labels": labels, "weights": weights}.items():
    print(f"{name:8} {array.dtype!s:8} {array.shape}")

# %% [markdown]
# ## The model
#
# The convolutions run once over the whole image. Their strides multiply to 4, so the layer's `spatial_scale` is 1/4.
# `RoIPooling` is a layer with two inputs, the feature map and the boxes. The layers after it see one map of
# 7 x 7 cells for each box, however large the box is.

# %%
images = keras.Input((None, None, 3), name="images")
rois = keras.Input((None, 4), name="rois")
x = keras.layers.Rescaling(1 / 64, -2.0)(images)
x = keras.layers.Conv2D(16, 5, strides=2, padding="same", activation="relu", name="conv1")(x)
x = keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="conv2")(x)
x = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv3")(x)
x = frcnn.RoIPooling((7, 7), spatial_scale=1 / 4)(x, rois)
x = keras.layers.Reshape((-1, 7 * 7 * 32))(x)
x = keras.layers.Dense(64, activation="relu")(x)
x = keras.layers.Dropout(0.3)(x)
logits = keras.layers.Dense(10, name="digits")(x)
model = keras.Model([images, rois], logits)
model.summary()

# %% [markdown]
# ## Training
#
# This is a Keras model like any other: `compile` and `fit` work as usual. The pictures below the curves are test
# images, with the model's predictions for the given boxes.

# %%
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
model.compile(keras.optimizers.Adam(2e-3), loss, weighted_metrics=["accuracy"])
history = model.fit(
    inputs,
    labels,
    sample_weight=weights,
    validation_data=test_arrays,
    batch_size=4,
    epochs=EPOCHS,
    verbose=0,
).history
print(f"training loss {history['loss'][0]:.3f} -> {history['loss'][-1]:.3f}")
print(f"training accuracy {history['accuracy'][-1]:.3f}, test accuracy {history['val_accuracy'][-1]:.3f}")
figure, panels = plt.subplots(1, 2, figsize=(9, 3))
for panel, name in zip(panels, ("loss", "accuracy"), strict=True):
    panel.plot(history[name], label="training")
    panel.plot(history[f"val_{name}"], label="test")
    panel.set(xlabel="epoch", ylabel=name)
    panel.legend()
plt.show()

predictions = model.predict(test_arrays[0], verbose=0)
pictures = []
for record, row in list(zip(test, predictions, strict=True))[:4]:
    digits = row.argmax(axis=-1)[: len(record.boxes)]
    captions = [train.class_names[digit] for digit in digits]
    pictures.append(draw_boxes(record.image(), record.boxes, captions, class_colors(digits + 1)))
contact_sheet(pictures, columns=2)

# %% [markdown]
# ## The gradient passes through
#
# A cell's gradient is the sum over all bins that have their maximum there. So the convolutions before the layer are
# trained by the loss of the boxes, and the loss of one box depends only on the pixels near it. We take the gradient of
# the first box's score with respect to the pixels. It is zero outside the box, except for a margin of up to 13 pixels:
# a cell of `conv3` sees 17 x 17 pixels, and the layer rounds the box to cells of 4 pixels.

# %%
pixels = tf.constant(test_arrays[0][0][:1], tf.float32)
box = tf.constant(test_arrays[0][1][:1, :1])
with tf.GradientTape() as tape:
    tape.watch(pixels)
    score = tf.reduce_max(model([pixels, box]))
pixel_gradient, conv1_gradient = tape.gradient(score, [pixels, model.get_layer("conv1").kernel])
strength = np.abs(pixel_gradient[0]).sum(axis=-1)
y1, x1, y2, x2 = np.rint(box[0, 0]).astype(int)
outside = strength.copy()
outside[max(0, y1 - 13) : y2 + 14, max(0, x1 - 13) : x2 + 14] = 0
print(f"norm of conv1's gradient: {np.linalg.norm(conv1_gradient):.4f}")
print(f"largest gradient of a pixel in the box and its margin: {strength.max():.3g}, elsewhere: {outside.max():.3g}")

record = test[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.imshow(draw_boxes(record.image(), record.boxes[:1], [""], ["#bd1f01"]))
right.imshow(strength[: record.height, : record.width], cmap="magma")
left.set_title("image and box")
right.set_title("gradient of the score")
plt.show()

# %% [markdown]
# ## Where to go next
#
# - `RoIPooling((1, 2, 3, 6))` pools to a pyramid of several grids.
# - `frcnn.fast_rcnn` builds a whole detector around the layer, from any Keras classification network
#   (docs/networks.md). `frcnn.classify_regions` classifies given boxes with a trained detector (docs/detection.md).
# - A model with the layer is saved as usual: `model.save("model.keras")`.
