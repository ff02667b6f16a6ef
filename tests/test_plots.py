"""Curves are written as pictures, with every class and loss in them."""

import re

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from tf_fast_rcnn.evaluation import ClassResult, EvaluationResult
from tf_fast_rcnn.plots import plot_losses, plot_precision_recall


def svg_texts(path):
    """The texts of an SVG, which Matplotlib keeps as comments beside their outlines."""
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


def test_writes_only_the_picture_and_leaves_pyplot_alone(tmp_path):
    before = pyplot.get_fignums()
    plot_losses(loss_rows(5), tmp_path / "losses.png")
    plot_losses(loss_rows(9), tmp_path / "losses.png")
    assert [path.name for path in tmp_path.iterdir()] == ["losses.png"]
    assert pyplot.get_fignums() == before
