#!/usr/bin/env bash
# The builders of TensorFlow Datasets that read VOC XML divide its 1-based corners by the size: boxes lack a row and column.
# Packages: tensorflow-datasets 4.9.10 (oxford_iiit_pet 4.0.0; voc, bccd and stanford_dogs do the same), numpy 2.4.6,
#   pillow 12.3.0
# Expected: the box 1 1 60 40 of a 60 x 40 image, which is the whole image in VOC (both corners included, first pixel 1),
#   is [0, 0, 1, 1] in TFDS, whose boxes are fractions of the image.
# Seen: [0.025, 0.01667, 1, 1].
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 numpy==2.4.6 pillow==12.3.0
cd "$place"
venv/bin/python - <<'PYTHON'
import pathlib
import tempfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

root = pathlib.Path(tempfile.mkdtemp())
for folder in ("images", "annotations/xmls", "annotations/trimaps"):
    (root / folder).mkdir(parents=True)
Image.new("RGB", (60, 40)).save(root / "images/pug_1.jpg")
box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox>"
(root / "annotations/xmls/pug_1.xml").write_text(
    f"<annotation><size><width>60</width><height>40</height></size><object><name>dog</name>{box}</object></annotation>"
)
(root / "list.txt").write_text("pug_1 26 2 1\n")
builder = tfds.builder_cls("oxford_iiit_pet")(data_dir=tempfile.mkdtemp())
(_, example), = builder._generate_examples(str(root / "images"), str(root / "annotations"), str(root / "list.txt"))
print(example["head_bbox"])
assert np.allclose(example["head_bbox"], [1 / 40, 1 / 60, 1, 1])
PYTHON
