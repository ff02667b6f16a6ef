"""Results of an evaluation: average precision and curve per class, the mean, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from tf_fast_rcnn.evaluation.matching import Matching


class Confidence(NamedTuple):
    """Confidence interval of the mean AP.

    Attributes:
        level: confidence level, between 0 and 1.
        samples: number of bootstrap resamples.
        seed: seed of the resampling.
        mean_ap: lower and upper end of the interval of the mean AP.
    """

    level: float
    samples: int
    seed: int
    mean_ap: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassResult:
    """Average precision of one class and its precision-recall curve.

    Attributes:
        name: name of the class.
        ap: average precision, 0 to 1; NaN if the dataset has no object of the class to find.
        precision, recall: float64 `[N]`, points of the curve by decreasing score.
        scores: float32 `[N]`, the score at each point.
        num_objects: number of objects to find, excluding difficult ones and crowds.
        num_detections: number of detections of the class, including those of difficult objects.
        interval: lower and upper end of the confidence interval of the AP; see `with_confidence`.
    """

    name: str
    ap: float
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    num_objects: int
    num_detections: int
    interval: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The metrics of one dataset under one protocol.

    Attributes:
        protocol: "voc07", "voc10" or "coco".
        iou_threshold: minimum IoU of a match; None for COCO, which averages over 0.50 to 0.95.
        num_images: number of images evaluated.
        classes: one `ClassResult` for each class, in the order of the dataset.
        metrics: the other COCO metrics by name (AP50, AP75, AP_small, ...); empty for VOC.
        confidence: confidence interval of the mean AP; see `with_confidence`.
        matchings: the `Matching` at the IoU threshold, or at each of the ten of COCO.
        max_detections: how many detections of each class count in an image; None if all do, as under VOC.
        num_beyond: number of detections beyond these.

    Example:
        >>> result = score_detections(test, detections, "voc07")        # doctest: +SKIP
        >>> print(f"{result.mean_ap:.3f}")                              # doctest: +SKIP
        0.853
    """

    protocol: str
    iou_threshold: float | None
    num_images: int
    classes: tuple[ClassResult, ...]
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    confidence: Confidence | None = None
    matchings: tuple[Matching, ...] = dataclasses.field(default=(), repr=False)
    max_detections: int | None = None
    num_beyond: int = 0

    @property
    def mean_ap(self) -> float:
        """Mean AP over the classes that have objects; NaN if no class has any."""
        values = [result.ap for result in self.classes if not math.isnan(result.ap)]
        return sum(values) / len(values) if values else math.nan

    def to_json(self, curves: bool = False) -> dict[str, Any]:
        """A dict for `json.dump`; undefined metrics (NaN) are None.

        Args:
            curves: whether to include the precision-recall curves, which can be long.
        """
        facts = {
            "protocol": self.protocol,
            "iou_threshold": self.iou_threshold,
            "mean_ap": json_number(self.mean_ap),
            "num_images": self.num_images,
            "metrics": {name: json_number(value) for name, value in self.metrics.items()},
            "classes": [_class_to_json(result, curves) for result in self.classes],
        }
        if self.max_detections is not None:
            facts |= {"max_detections": self.max_detections, "detections_beyond": self.num_beyond}
        if self.confidence is not None:
            facts["confidence"] = self.confidence._asdict() | {"mean_ap": _interval_to_json(self.confidence.mean_ap)}
        return facts

    def table(self) -> str:
        """The metrics as text: one line per class, the mean, and the other COCO metrics if there are any."""
        width = max([len(result.name) for result in self.classes] + [len("class"), len("mean AP")])
        lines = [f"{'class':<{width}}  {'objects':>8}  {'detections':>10}  {'AP':>6}"]
        lines += [_class_line(result, width) for result in self.classes]
        totals = [sum(getattr(result, name) for result in self.classes) for name in ("num_objects", "num_detections")]
        mean = f"{'mean AP':<{width}}  {totals[0]:>8}  {totals[1]:>10}  {_text(self.mean_ap)}"
        if self.confidence is not None:
            lines[0] += f"  {f'{100 * self.confidence.level:g} % interval':>14}"
            mean += _interval_text(self.confidence.mean_ap)
        lines.append(f"{mean}  ({self.rule()})")
        lines += [f"{name:<{width}}  {'':>8}  {'':>10}  {_text(value)}" for name, value in self.metrics.items()]
        if self.num_beyond:
            lines.append(self.limit_text())
        return "\n".join(lines)

    def limit_text(self) -> str:
        """A sentence on the detections beyond `max_detections`; empty if there are none."""
        if not self.num_beyond:
            return ""
        return (
            f"{self.num_beyond} detections do not count: they are beyond the {self.max_detections} best of their class "
            "in an image (--max-detections changes this limit)"
        )

    def rule(self) -> str:
        """The protocol and IoU threshold, for titles: "voc07, IoU 0.50" or "coco, IoU 0.50 to 0.95"."""
        overlap = "0.50 to 0.95" if self.iou_threshold is None else f"{self.iou_threshold:.2f}"
        return f"{self.protocol}, IoU {overlap}"


def json_number(value: float) -> float | None:
    """A float, or None for NaN, which JSON cannot represent."""
    return None if math.isnan(value) else float(value)


def _text(value):
    return f"{'-':>6}" if math.isnan(value) else f"{value:6.3f}"


def _class_line(result, width):
    line = f"{result.name:<{width}}  {result.num_objects:>8}  {result.num_detections:>10}  {_text(result.ap)}"
    line += "" if result.interval is None else _interval_text(result.interval)
    return f"{line}  (no objects: not in the mean)" if math.isnan(result.ap) else line


def _interval_text(interval):
    return f"  {'-':>14}" if math.isnan(interval[0]) else f"  {interval[0]:.3f} to {interval[1]:.3f}"


def _interval_to_json(interval):
    return [json_number(end) for end in interval]


def _class_to_json(result, curves):
    summary = {
        "name": result.name,
        "ap": json_number(result.ap),
        "num_objects": int(result.num_objects),
        "num_detections": int(result.num_detections),
    }
    if result.interval is not None:
        summary["interval"] = _interval_to_json(result.interval)
    if curves:
        summary |= {name: getattr(result, name).tolist() for name in ("precision", "recall", "scores")}
    return summary
