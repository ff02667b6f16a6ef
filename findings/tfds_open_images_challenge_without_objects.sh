#!/usr/bin/env bash
# open_images_challenge2019_detection of TensorFlow Datasets, built with Apache Beam, contains no boxes and no labels.
# Packages: tensorflow-datasets 4.9.10 (open_images_challenge2019_detection 1.0.0), apache-beam 2.77.0, numpy 2.4.6,
#   opencv-python-headless 5.0.0.93
# Expected: the boxes of the CSV files. The step that makes examples reads them in a method named `start`.
# Seen: empty `bobjects` and `objects`. Beam calls `setup` and `start_bundle`, never `start`.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 apache-beam==2.77.0 numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$place"
venv/bin/python - <<'PYTHON'
import csv
import pathlib
import tempfile

import apache_beam as beam
import cv2
import numpy as np
from tensorflow_datasets.object_detection import open_images_challenge2019_beam as own

root = pathlib.Path(tempfile.mkdtemp())
tables = {
    "boxes": [["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"], ["a1", "/m/01g317", 0.1, 0.5, 0.2, 0.9, 0]],
    "labels": [["ImageID", "LabelName", "Confidence"], ["a1", "/m/01g317", 1]],
    "classes": [["/m/01g317", "Person"]],
}
for table, rows in tables.items():
    with (root / f"{table}.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
(root / "hierarchy.json").write_text("{}")
paths = [str(root / name) for name in ("labels.csv", "boxes.csv", "hierarchy.json", "classes.csv")]
jpeg = cv2.imencode(".jpg", np.zeros((20, 40, 3), np.uint8))[1].tobytes()
found = []


def check(example):
    image_id, values = example
    print(image_id, values["bobjects"], values["objects"])
    assert image_id == "a1"
    assert values["bobjects"] == values["objects"] == []
    (root / "seen").touch()


with beam.Pipeline() as pipeline:
    (
        pipeline
        | beam.Create([("train/a1.jpg", jpeg)])
        | beam.ParDo(own.ProcessImageFn(target_pixels=300000, jpeg_quality=72))
        | beam.ParDo(own.CreateDetectionExampleFn(*paths))
        | beam.Map(check)
    )
assert (root / "seen").exists()
PYTHON
