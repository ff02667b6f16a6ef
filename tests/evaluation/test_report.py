"""The report files: self-contained, complete, and with every text escaped."""

import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.analysis import analyse
from tf_fast_rcnn.evaluation.confidence import with_confidence
from tf_fast_rcnn.evaluation.pictures import draw_errors
from tf_fast_rcnn.evaluation.report import write_report
from tf_fast_rcnn.visualization.drawing import class_color

NONE = "\N{EN DASH}"
VOID = {"meta", "img", "br"}


class Page(html.parser.HTMLParser):
    """Links, ids, pictures, tables and text of a page; fails if a tag is closed that is not open."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.images, self.rows, self.text, self.tags = [], [], [], [], "", []
        self._open = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.links += [attributes[name] for name in ("src", "href", "action", "data") if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.images += [attributes] if tag == "img" else []
        self.rows += [[]] if tag == "tr" else []
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def page(report):
    return Page((report[0] / "index.html").read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_anywhere(report, page):
    assert len(page.links) > 15
    for link in page.links:
        assert re.match(r"data:image/(png|jpeg);base64,|#", link), link[:80]
        assert not link.startswith("#") or link[1:] in page.ids
    assert not re.search(r"url\(|@import|https?:", (report[0] / "index.html").read_text())
    assert "script" not in page.tags
    files = {"breakdown.png", "calibration.png", "index.html", "metrics.json", "precision_recall.png"}
    assert {path.name for path in report[0].iterdir()} == files


def test_every_picture_is_one_and_has_words(page):
    assert len(page.images) >= 3 + 5 + 3
    for image in page.images:
        data = base64.b64decode(image["src"].partition(",")[2])
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()
            if "width" in image:
                assert picture.size == (int(image["width"]), int(image["height"]))
        assert len(image["alt"]) > 5


def test_tables_hold_the_figures(report, page, errors_case):
    facts = report[1]
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["mean AP"] == [f"{facts['mean_ap']:.3f}"]
    assert rows["ghost"][0] == NONE
    low, high = facts["confidence"]["mean_ap"]
    assert any(value == [f"{low:.3f} to {high:.3f}"] for value in rows.values())
    cat = next(row for row in page.rows if row[0] == "cat" and len(row) > 6)
    assert cat[1] == f"{facts['classes'][0]['ap']:.3f}"
    assert cat[4:6] == ["2", "5"]  # objects, detections
    assert rows["duplicate"] == [f"{facts['breakdown']['gains']['duplicate']:+.3f}", "1", NONE, NONE, "1", "1"]
    assert rows["background"] == ["2", "2", NONE, NONE]
    assert f"{errors_case[0].class_names[1]} detected as cat: 1" in page.text


def test_texts_are_escaped(page):
    hostile = "<script>alert('$x_1')</script>"
    assert page.text.count(hostile) >= 5
    assert f'"recipe": "{hostile}"' in page.text
    assert "#2 <b>" in page.text
    assert "voc:<odd>@val" in page.text


def test_metrics_are_strict_json_with_curves(report):
    facts = json.loads((report[0] / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert facts["classes"][0]["recall"][-1] == 1.0
    assert facts["data"] == "voc:<odd>@val"
    assert facts["confusion"]["counts"][1][-1] == 2


def test_pictures_show_the_worst_errors_first(errors_case):
    dataset, found = errors_case
    result = score_detections(dataset, found)
    false, missed = draw_errors(dataset, found, result, analyse(dataset, found, result).breakdown)
    assert [(each.text, each.label) for each in false] == [
        ("0.85, localisation", 1),
        ("0.80, classification", 1),
        ("0.75, duplicate", 1),
        ("0.70, background", 2),
        ("0.65, both", 2),
    ]
    assert [each.image_id for each in false] == ["#0 <b>", "#0 <b>", "#1 <b>", "#0 <b>", "#1 <b>"]
    assert [(each.text, each.label, each.image_id) for each in missed] == [
        ("not detected: wrong location or class", 2, "#0 <b>"),
        ("missed", 2, "#1 <b>"),
        ("missed", 2, "#2 <b>"),
    ]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(false[0].path.partition(",")[2]))).convert("RGB"))
    color = np.array([int(class_color(1)[start : start + 2], 16) for start in (1, 3, 5)])
    assert (np.abs(picture.astype(int) - color).max(axis=-1) < 40).sum() > 100


def test_report_of_nothing(tmp_path, errors_case):
    """No objects, no detections, one class."""
    record = errors_case[0][0].relabelled(np.zeros(4, int))
    dataset = DetectionDataset("empty", ["cat"], [record])
    found = [errors_case[1][2]]
    for protocol in ("voc07", "coco"):
        write_report(tmp_path / protocol, dataset, found, score_detections(dataset, found, protocol))
        page = Page((tmp_path / protocol / "index.html").read_text())
        assert page.text.count("None.") == 2
        assert "nan" not in page.text


@pytest.mark.filterwarnings("error")
def test_report_of_perfect_detections(tmp_path, errors_case):
    dataset = errors_case[0]
    found = [
        Detections(record.boxes, np.ones(len(record.class_ids), np.float32), record.class_ids) for record in dataset
    ]
    result = with_confidence(score_detections(dataset, found), samples=5, progress=False)
    write_report(tmp_path, dataset, found, result)
    page = Page((tmp_path / "index.html").read_text())
    assert page.text.count("None.") == 2
    assert "mean AP 1.000, 95 % interval 1.000 to 1.000" in " ".join(page.text.split())


def test_many_classes_fold_their_tables(tmp_path, errors_case):
    dataset, found = errors_case
    names = [*dataset.class_names, *map(str, range(27))]
    dataset = DetectionDataset("many", names, dataset.records)
    write_report(tmp_path, dataset, found, score_detections(dataset, found, "coco"))
    text = (tmp_path / "index.html").read_text()
    assert "<details><summary>All classes" in text
    rows = {row[0]: row for row in Page(text).rows}
    assert len(rows["duplicate"]) == 4
    assert rows["AP50"][1] == rows["mean AP"][1] or float(rows["AP50"][1]) > float(rows["mean AP"][1])


def test_a_detection_beyond_the_image_is_drawn_at_its_edge(errors_case):
    dataset = errors_case[0][:1]
    found = [Detections(np.float32([[1.1, 1.2, 1.5, 1.6]]), np.float32([0.9]), np.int32([1]))]
    result = score_detections(dataset, found)
    ((beyond,), _) = draw_errors(dataset, found, result, analyse(dataset, found, result).breakdown)
    assert min(beyond.width, beyond.height) > 50
