#!/usr/bin/env bash
# The area of an object in the lvis (and coco) builder of TensorFlow Datasets is an integer, cut off without a warning.
# Packages: tensorflow-datasets 4.9.10 (lvis 1.4.0; coco 1.1.0 has the same feature), numpy 2.4.6
# Expected: an area of 1024.9 square pixels comes back as 1024.9, or at least as 1025. COCO counts objects up to 32 x 32 =
#   1024 as small and from 1024 as medium; 1024.9 is medium only.
# Seen: 1024, which is both small and medium: AP_small and AP_medium are not those of the original file.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import tempfile

import tensorflow_datasets as tfds

features = tfds.builder_cls("lvis")(data_dir=tempfile.mkdtemp()).info.features["objects"].feature
stored = features["area"].encode_example(1024.9)
print(features["area"], stored)
assert stored == 1024
PYTHON
