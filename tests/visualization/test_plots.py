"""Plots are written as image files and contain every class and loss."""

import re

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from tf_fast_rcnn.evaluation import ClassResult, EvaluationResult
from tf_fast_rcnn.visualization.plots import (
    plot_breakdown,
    plot_histogram,
    plot_losses,
    plot_parts,
    plot_precision_recall,
    plot_recall,
    plot_reliability,
)


def svg_texts(path):
    """The texts of an SVG, which Matplotlib writes as comments next to their outlines."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def class_result(name, ap, recall=(0.5, 1.0), precision=(1.0, 0.8)):
    return ClassResult(name, ap, np.array(precision), np.array(recall), np.ones(len(recall)), len(recall), len(recall))


def loss_rows(count):
    return [{"step": step, "loss": 3 / step, "class_loss": 2 / step, "box_loss": 1 / step} for step in range(1, count)]


def test_losses_name_axes_and_curves(tmp_path):
    rows = [*loss_rows(20), {"step": 19, "val_mean_ap": 0.5, "learning_rate": 0.001}]
    plot_losses(rows, tmp_path / "new" / "losses.svg")
    texts = svg_texts(tmp_path / "new" / "losses.svg")
    for text in ("Training losses", "loss", "step (mini-batches)", "total", "class (log loss)", "box (smooth L1)"):
        assert text in texts
    assert "val_mean_ap" in texts
    assert "learning_rate" not in texts


def test_many_points_are_smoothed_over_the_points_that_the_legend_says(tmp_path):
    plot_losses(loss_rows(201), tmp_path / "losses.svg")
    assert "total, mean of 8 points" in svg_texts(tmp_path / "losses.svg")


def test_no_rows_give_an_empty_plot(tmp_path):
    plot_losses([], tmp_path / "losses.png")
    assert Image.open(tmp_path / "losses.png").size[0] > 300


def test_precision_recall_lists_classes_by_falling_ap_without_those_that_have_no_objects(tmp_path):
    classes = (class_result("cat", 0.25), class_result("dog", 0.75), class_result("none", float("nan"), (), ()))
    plot_precision_recall(EvaluationResult("voc10", 0.5, 3, classes), tmp_path / "curves.svg")
    texts = svg_texts(tmp_path / "curves.svg")
    assert "Precision and recall: mean AP 0.500 (voc10, IoU 0.50)" in texts
    assert texts.index("dog  0.750") < texts.index("cat  0.250")
    assert {"recall", "precision"} <= set(texts)
    assert not [text for text in texts if text.startswith("none")]


def test_precision_recall_of_coco_says_which_overlap_the_curves_have(tmp_path):
    plot_precision_recall(EvaluationResult("coco", None, 1, (class_result("cat", 0.5),)), tmp_path / "curves.svg")
    assert "Precision and recall: mean AP 0.500 (coco, IoU 0.50 to 0.95; curves at 0.50)" in svg_texts(
        tmp_path / "curves.svg"
    )


@pytest.mark.parametrize("classes", [(), (class_result("cat", 0.0, (), ()),)])
def test_precision_recall_without_classes_or_detections(tmp_path, classes):
    plot_precision_recall(EvaluationResult("voc07", 0.5, 1, classes), tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 300


def bar_heights(path):
    """The heights of a histogram's bars in points, from the outlines in an SVG."""
    outlines = re.findall(r'<g id="patch_\d+">\s*<path d="([^"]*)"[^>]*style="fill: #3f90da', path.read_text())
    corners = [np.array(re.findall(r"[ML] (\S+) (\S+)", outline), float) for outline in outlines]
    return np.array([np.ptp(points[:, 1]) for points in corners])


@pytest.mark.parametrize(
    ("values", "options", "counts"),
    [
        ([1, 1, 2, 5], {"bins": [0, 1.5, 2.5, 4, 6]}, [2, 1, 0, 1]),
        ([1, 9, 11, 12, 99], {"bins": [1, 10, 100], "log": True}, [2, 3]),
        ([1, 1, 100], {"bins": 4, "log": True}, [2, 0, 0, 1]),
        ([], {"bins": 4, "log": True}, [0, 0, 0, 0]),
        ([7], {"bins": 2, "log": True}, [0, 1]),
    ],
)
def test_histogram_has_bars_as_high_as_values_are_many(tmp_path, values, options, counts):
    plot_histogram(values, tmp_path / "histogram.svg", "Sizes", "pixels", limit=(3, "limit"), **options)
    heights = bar_heights(tmp_path / "histogram.svg")
    assert len(heights) == len(counts)
    np.testing.assert_allclose(heights / max(heights.max(), 1e-9), np.array(counts) / max([1, *counts]), atol=1e-5)
    assert {"Sizes", "pixels", "objects", "limit"} <= set(svg_texts(tmp_path / "histogram.svg"))


@pytest.mark.parametrize("log", [False, True])
def test_recall_names_axes_and_curves(tmp_path, log):
    curves = {"IoU 0.5": ([1, 30, 3000], [0.1, 0.5, 0.9]), "IoU 0.7": ([1, 30, 3000], [0, 0.25, 0.5])}
    plot_recall(curves, tmp_path / "recall.svg", "Recall of proposals", "proposals", log=log)
    assert {"Recall of proposals", "proposals", "recall", "IoU 0.5", "IoU 0.7", "1000"} <= set(
        svg_texts(tmp_path / "recall.svg")
    )


def test_logarithmic_axes_of_few_decades_have_plain_numbers_between_the_powers_of_ten(tmp_path):
    plot_histogram([30, 40, 200], tmp_path / "histogram.svg", "Sizes", "pixels", log=True)
    texts = svg_texts(tmp_path / "histogram.svg")
    assert {"50", "100"} <= set(texts)
    assert not [text for text in texts if "10^" in text or "mathdefault" in text]


def test_writes_only_the_picture_and_leaves_pyplot_alone(tmp_path):
    before = pyplot.get_fignums()
    plot_losses(loss_rows(5), tmp_path / "losses.png")
    plot_losses(loss_rows(9), tmp_path / "losses.png")
    assert [path.name for path in tmp_path.iterdir()] == ["losses.png"]
    assert pyplot.get_fignums() == before


def test_breakdown_writes_gains_and_numbers_of_errors(tmp_path):
    gains, counts = {"localisation": 0.0213, "missed": 0.0}, [[3, 4], [0, 1]]
    plot_breakdown(gains, counts, ["cat", "dog"], tmp_path / "breakdown.svg", "Errors at IoU 0.50")
    texts = [text.strip() for text in svg_texts(tmp_path / "breakdown.svg")]
    assert {"+0.021", "+0.000", "7", "1", "localisation", "missed", "cat", "dog", "Errors at IoU 0.50"} <= set(texts)


def test_breakdown_of_many_classes_names_the_most_frequent(tmp_path):
    counts = np.stack([np.arange(30), np.zeros(30, int)])
    names = [f"class{number}" for number in range(30)]
    plot_breakdown({"both": 0.1, "missed": 0.0}, counts, names, tmp_path / "breakdown.svg", "")
    texts = set(svg_texts(tmp_path / "breakdown.svg"))
    assert {f"class{number}" for number in range(21, 30)} | {"20 other classes"} <= texts
    assert "class20" not in texts


def test_reliability_leaves_out_empty_bins(tmp_path):
    scores, precisions = np.array([0.25, np.nan]), np.array([0.5, np.nan])
    plot_reliability([("cat", 1, scores, precisions)], np.array([4, 0]), tmp_path / "calibration.svg")
    texts = set(svg_texts(tmp_path / "calibration.svg"))
    assert {"score = precision", "cat", "score", "precision", "detections"} <= texts


def test_parts_are_stacked_to_the_total_of_each_contestant(tmp_path):
    ours, peer = {"convolutions": 0.5, "fc6": 0.25}, {"convolutions": 1.5, "update": 0.5}
    plot_parts({"a step": {"ours": ours, "peer": peer}, "another": {"ours": ours}}, tmp_path / "parts.svg")
    texts = svg_texts(tmp_path / "parts.svg")
    assert [text.strip() for text in texts if text.endswith(" s")] == ["0.75 s", "2 s", "0.75 s"]
    assert {"a step", "another", "ours", "peer", "convolutions", "fc6", "update", "seconds"} <= set(texts)
