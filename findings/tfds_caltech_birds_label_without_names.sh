#!/usr/bin/env bash
# The class label of caltech_birds2011 in TensorFlow Datasets has no names, although the builder knows them.
# Packages: tensorflow-datasets 4.9.10 (caltech_birds2011 0.2.0), numpy 2.4.6
# Expected: int2str(0) is a species, as in cars196, oxford_iiit_pet and stanford_dogs; the examples do have a label_name.
# Seen: "0", also after examples were generated: names are never set.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import io
import tempfile

import numpy as np
import tensorflow_datasets as tfds

builder = tfds.builder_cls("caltech_birds2011")(data_dir=tempfile.mkdtemp())
name = "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"
annotations = {"Black_Footed_Albatross_0046_18": [["60.0", "27.0", "325.0", "304.0"], np.zeros((335, 500), np.uint8)]}
archive = [(f"CUB_200_2011/images/{name}", io.BytesIO())]
(_, example), = builder._generate_examples(archive, [name], annotations)
print(example["label_name"], repr(builder.info.features["label"].int2str(example["label"])))
assert example["label_name"] == "black_footed_albatross"
assert builder.info.features["label"].int2str(example["label"]) == "0"
PYTHON
