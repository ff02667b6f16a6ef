#!/usr/bin/env bash
# waymo_open_dataset/v1.2 of TensorFlow Datasets never has the test split that its source describes.
# Packages: tensorflow-datasets 4.9.10 (waymo_open_dataset 0.2.0), tensorflow 2.21.0
# Expected: train, validation and test for v1.2: "Testing set (Only available in Waymo Open Dataset v1.2)".
# Seen: train and validation: the builder compares the name of its config, v1.2, with v_1_2.
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

bucket = pathlib.Path(tempfile.mkdtemp())
for split in ("training", "validation", "testing"):
    (bucket / split).mkdir()
    (bucket / split / "segment-1_with_camera_labels.tfrecord").touch()
builder = tfds.builder_cls("waymo_open_dataset")(config="v1.2", data_dir=tempfile.mkdtemp())
builder.builder_config.cloud_bucket = str(bucket)
splits = {split.name: split.gen_kwargs["tf_record_files"] for split in builder._split_generators(None)}
print({name: len(files) for name, files in splits.items()})
assert {name: len(files) for name, files in splits.items()} == {"train": 1, "validation": 1}
PYTHON
