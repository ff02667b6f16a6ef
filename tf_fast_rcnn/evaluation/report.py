"""The evaluation report: a self-contained page, its metrics as JSON, and its charts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn.evaluation.analysis import analyse
from tf_fast_rcnn.evaluation.breakdown import KINDS
from tf_fast_rcnn.evaluation.pictures import draw_errors
from tf_fast_rcnn.files import write_json, write_text
from tf_fast_rcnn.visualization.pages import render_page
from tf_fast_rcnn.visualization.plots import plot_breakdown, plot_precision_recall, plot_reliability

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.evaluation.analysis import Analysis
    from tf_fast_rcnn.evaluation.results import EvaluationResult
    from tf_fast_rcnn.files import StrPath

# There are no more distinguishable colours than this.
_MAX_CURVES = 10
# Tables with one column per class are collapsed if there are more classes.
_MAX_COLUMNS = 20
_CONFUSIONS = 8


class Chart(NamedTuple):
    """A chart as a data: URI, and its text alternative."""

    path: str
    alt: str


def write_report(
    folder: StrPath,
    dataset: DetectionDataset,
    detections: Sequence[Detections],
    result: EvaluationResult,
    analysis: Analysis | None = None,
    name: str = "",
    description: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `folder/index.html` with metrics, curves, errors and pictures, plus metrics.json and the charts as files.

    The page is self-contained: all pictures are embedded.

    Args:
        folder: the output folder, created if it does not exist; files of an earlier report are replaced.
        dataset: the `DetectionDataset` that was evaluated.
        detections: its `Detections`, in order.
        result: the `EvaluationResult` that `score_detections` returned for them, optionally with confidence intervals.
        analysis: the `Analysis` that `analyse` returned for them; None to compute it here.
        name: name of the evaluated model or detections, for the title.
        description: JSON-serialisable description of how the detections were made, such as the recipe of the run.

    Returns:
        The path of the page.

    Example:
        >>> write_report("report", test, detections, score_detections(test, detections))       # doctest: +SKIP
        PosixPath('report/index.html')
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    analysis = analysis or analyse(dataset, detections, result)
    false_positives, missed = draw_errors(dataset, detections, result, analysis.breakdown)
    page = render_page(
        "evaluation/report.html",
        name=name or dataset.name,
        dataset=dataset,
        result=result,
        analysis=analysis,
        kinds=KINDS,
        few_classes=len(dataset.class_names) <= _MAX_COLUMNS,
        confusions=_confusions(analysis.confusion),
        charts=_charts(folder, result, analysis),
        false_positives=false_positives,
        missed=missed,
        description=json.dumps(description, indent=2) if description else "",
        isnan=np.isnan,
    )
    facts = result.to_json(curves=True) | analysis.to_json() | {"name": name, "data": dataset.name}
    write_json(folder / "metrics.json", facts)
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _confusions(matrix):
    """`(count, ground-truth class, detected class)` of the most frequent confusions; classes are 0-based."""
    between = matrix[:-1, :-1] * ~np.eye(len(matrix) - 1, dtype=bool)
    pairs = [(int(between[pair]), *pair) for pair in zip(*np.nonzero(between), strict=True)]
    return sorted(pairs, key=lambda pair: -pair[0])[:_CONFUSIONS]


def _charts(folder, result, analysis):
    """Writes the charts to the folder; returns a dict from their names to `Chart`."""
    breakdown = analysis.breakdown
    plot_precision_recall(result, folder / "precision_recall.png")
    alts = {"precision_recall": "precision versus recall for each class"}
    if not np.isnan(breakdown.mean_ap):
        gains = {kind: breakdown.gains[kind] for kind in KINDS}
        title = f"Errors at IoU {result.iou_threshold or 0.5:.2f}, mean AP {breakdown.mean_ap:.3f}"
        plot_breakdown(gains, breakdown.confident_counts, analysis.class_names, folder / "breakdown.png", title)
        worst = max(gains, key=gains.get)
        alts["breakdown"] = f"gain in mean AP from fixing each type of error; largest: {worst}, {gains[worst]:.3f}"
    if analysis.calibration is not None and analysis.calibration.counts.any():
        plot_reliability(_reliability_curves(analysis), analysis.calibration.counts, folder / "calibration.png")
        alts["calibration"] = f"precision versus score; calibration error {analysis.calibration.error:.3f}"
    return {name: Chart(_data_uri(folder / f"{name}.png"), alt) for name, alt in alts.items()}


def _reliability_curves(analysis):
    curves = zip(analysis.class_names, analysis.class_calibration, strict=True)
    curves = [(name, label, each.scores, each.precisions) for label, (name, each) in enumerate(curves, start=1)]
    if len(curves) > _MAX_CURVES:
        return [("all classes", 1, analysis.calibration.scores, analysis.calibration.precisions)]
    return curves


def _data_uri(path):
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
