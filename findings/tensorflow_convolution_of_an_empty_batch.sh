#!/usr/bin/env bash
# TensorFlow 2.21.0: on CPUs with oneDNN, conv2d of a batch without images returns the shape of its input.
# Packages: tensorflow 2.21.0, numpy 2.2.6
# Expected: [0, 3, 3, 4], as tf.function's shape inference says, as all other sizes of the batch, as max_pool2d, and as
#   without oneDNN (TF_ENABLE_ONEDNN_OPTS=0).
# Seen: with oneDNN, which is on by default on most x86 CPUs, [0, 8, 8, 3], the shape of the images: height, width and
#   channels are wrong. What follows fails on shapes, for example on replicas that get no image of a small mini-batch.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 numpy==2.2.6
cd "$place"
cat > convolve.py <<'PYTHON'
import os

import tensorflow as tf


@tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
def convolve(images):
    return tf.nn.conv2d(images, tf.zeros([3, 3, 3, 4]), strides=2, padding="VALID")


inferred = convolve.get_concrete_function().output_shapes.as_list()
pooled = tf.nn.max_pool2d(tf.zeros([0, 8, 8, 3]), 2, 2, "VALID").shape.as_list()
shapes = {batch: convolve(tf.zeros([batch, 8, 8, 3])).numpy().shape for batch in (2, 1, 0)}
one_dnn = os.environ["TF_ENABLE_ONEDNN_OPTS"]
print("oneDNN", one_dnn, "inferred", inferred, "by number of images", shapes, "pooling", pooled)
assert inferred == [None, 3, 3, 4]
assert shapes == {2: (2, 3, 3, 4), 1: (1, 3, 3, 4), 0: (0, 8, 8, 3) if one_dnn == "1" else (0, 3, 3, 4)}
assert pooled == [0, 4, 4, 3]
PYTHON
for one_dnn in 1 0; do
    TF_ENABLE_ONEDNN_OPTS=$one_dnn TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python convolve.py
done
