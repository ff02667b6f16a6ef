"""A small dataset with detections that contain an error of each type, and texts that need escaping."""

import json

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.confidence import with_confidence

HOSTILE = "<script>alert('$x_1')</script>"
CLASS_NAMES = ("cat", HOSTILE, "ghost")
CAT, DOG, OX = [0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9], [0.5, 0.0, 0.9, 0.2]
FOUND = [
    # First image: true positive, localisation, classification, background. Second: duplicate, both.
    ([CAT, [0.0, 0.0, 0.2, 0.06], DOG, [0.6, 0.3, 0.8, 0.45]], [0.9, 0.85, 0.8, 0.7], [1, 1, 1, 2]),
    ([CAT, [0.0, 0.0, 0.2, 0.15], [0.0, 0.0, 0.2, 0.06]], [0.95, 0.75, 0.65], [1, 1, 2]),
    ([], [], []),
]


@pytest.fixture(scope="session")
def errors_case(tmp_path_factory):
    """`(dataset, detections)`: three images; the last object of the third is missed."""
    folder = tmp_path_factory.mktemp("errors")
    records = []
    for number in range(len(FOUND)):
        path = folder / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((160, 120)).save(path)
        proposals = [CAT, [0.5, 0.5, 0.9, 0.8]]
        boxes, labels = ([CAT, DOG], [1, 2]) if number < 2 else ([OX], [2])
        records.append(
            ImageRecord(f"#{number} <b>", str(path), 120, 160, boxes, labels, [0] * len(labels), None, proposals)
        )
    # Any settings mark the records as having proposals.
    dataset = DetectionDataset("voc:<odd>@val", CLASS_NAMES, records, {"boxes clipped": 2}, object())
    found = [
        Detections(np.float32(boxes).reshape(-1, 4), np.float32(scores), np.int32(classes))
        for boxes, scores, classes in FOUND
    ]
    return dataset, found


@pytest.fixture(scope="session")
def report(errors_case, tmp_path_factory):
    """The report of that case: `(folder, content of metrics.json)`."""
    from tf_fast_rcnn.evaluation.report import write_report

    dataset, found = errors_case
    folder = tmp_path_factory.mktemp("reports") / "a report"
    result = with_confidence(score_detections(dataset, found), samples=20, progress=False)
    page = write_report(folder, dataset, found, result, name=f"runs/{HOSTILE}", description={"recipe": HOSTILE})
    assert page == folder / "index.html"
    return folder, json.loads((folder / "metrics.json").read_text())
