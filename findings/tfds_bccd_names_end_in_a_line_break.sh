#!/usr/bin/env bash
# The file names of the bccd builder of TensorFlow Datasets end in a line break and have no extension.
# Packages: tensorflow-datasets 4.9.10 (bccd 1.0.0), tensorflow 2.21.0
# Expected: "image/filename" is BloodImage_00007.jpg, as in all other builders with that feature.
# Seen: "BloodImage_00007\n": the line of the image set, as it was read.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 tensorflow==2.21.0
cd "$place"
venv/bin/python - <<'PYTHON'
import pathlib
import tempfile

import tensorflow_datasets as tfds

root = pathlib.Path(tempfile.mkdtemp())
folder = root / "BCCD_Dataset-1.0" / "BCCD"
for part in ("ImageSets/Main", "Annotations", "JPEGImages"):
    (folder / part).mkdir(parents=True)
(folder / "ImageSets/Main/test.txt").write_text("BloodImage_00007\n")
(folder / "Annotations/BloodImage_00007.xml").write_text(
    "<annotation><size><width>640</width><height>480</height></size><object><name>WBC</name><bndbox><xmin>260</xmin>"
    "<ymin>177</ymin><xmax>491</xmax><ymax>376</ymax></bndbox></object></annotation>"
)


class Downloads:
    def download_and_extract(self, url):
        return str(root)


builder = tfds.builder_cls("bccd")(data_dir=tempfile.mkdtemp())
test = next(split for split in builder._split_generators(Downloads()) if split.name == "test")
(_, example), = builder._generate_examples(**test.gen_kwargs)
print(repr(example["image/filename"]))
assert example["image/filename"] == "BloodImage_00007\n"
PYTHON
