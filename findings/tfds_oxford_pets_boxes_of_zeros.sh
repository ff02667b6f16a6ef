#!/usr/bin/env bash
# oxford_iiit_pet of TensorFlow Datasets: an image without an annotation, so all of the test split, has the box 0 0 0 0.
# Packages: tensorflow-datasets 4.9.10 (oxford_iiit_pet 4.0.0), numpy 2.4.6, pillow 12.3.0
# Expected: a data set whose release note says "Add head bounding boxes" has them in both splits, or leaves the box away
#   where there is none.
# Seen: head_bbox is [0, 0, 0, 0], a valid box of no area, next to a class label.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 numpy==2.4.6 pillow==12.3.0
cd "$place"
venv/bin/python - <<'PYTHON'
import pathlib
import tempfile

import tensorflow_datasets as tfds
from PIL import Image

root = pathlib.Path(tempfile.mkdtemp())
(root / "images").mkdir()
(root / "annotations").mkdir()
Image.new("RGB", (60, 40)).save(root / "images/pug_1.jpg")
(root / "annotations/test.txt").write_text("pug_1 26 2 1\n")  # as published: no XML for images of the test split
builder = tfds.builder_cls("oxford_iiit_pet")(data_dir=tempfile.mkdtemp())
arguments = str(root / "images"), str(root / "annotations"), str(root / "annotations/test.txt")
(_, example), = builder._generate_examples(*arguments)
stored = builder.info.features["head_bbox"].encode_example(example["head_bbox"])
print(example["head_bbox"], "label", example["label"])
assert stored.tolist() == [0, 0, 0, 0]
assert example["label"] == 25
PYTHON
