"""What an evaluation gives: per-class average precision with its curve, the mean, a table and JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from tf_fast_rcnn.evaluation.matching import Matching


class Confidence(NamedTuple):
    """How a confidence interval was found: its level, the number of resamples and their seed; and that of the mean AP,
    its low and high end."""

    level: float
    samples: int
    seed: int
    mean_ap: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassResult:
    """One class's average precision and the curve that it comes from.

    Attributes:
        name: the class.
        ap: average precision, 0 to 1; NaN where the data set has no object of the class to find.
        precision, recall: float64 `[N]`, the curve's points by falling score.
        scores: float32 `[N]`, the score at which each point is reached.
        num_objects: objects to find (VOC's difficult ones are not counted).
        num_detections: detections of the class, those on difficult objects included.
        interval: confidence interval of the AP, its low and high end; see `with_confidence`.
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
    """The figures of one data set under one protocol.

    Attributes:
        protocol: "voc07", "voc10" or "coco".
        iou_threshold: overlap at which a detection counts; None for COCO, which averages over 0.50 to 0.95.
        num_images: images evaluated.
        classes: one `ClassResult` for each class, in the data set's order.
        metrics: COCO's other figures by name (AP50, AP75, AP_small, ...); empty for VOC.
        confidence: of the mean AP; see `with_confidence`.
        matchings: what each detection found, at the overlap, or at each of COCO's ten.

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

    @property
    def mean_ap(self) -> float:
        """Mean of the classes' AP; classes without objects are left out. NaN where no class has any."""
        values = [result.ap for result in self.classes if not math.isnan(result.ap)]
        return sum(values) / len(values) if values else math.nan

    def to_json(self, curves: bool = False) -> dict[str, Any]:
        """A dict that `json.dump` takes; figures that do not exist (NaN) are None.

        Args:
            curves: whether to add the precision-recall curves, which can be long.
        """
        facts = {
            "protocol": self.protocol,
            "iou_threshold": self.iou_threshold,
            "mean_ap": json_number(self.mean_ap),
            "num_images": self.num_images,
            "metrics": {name: json_number(value) for name, value in self.metrics.items()},
            "classes": [_class_to_json(result, curves) for result in self.classes],
        }
        if self.confidence is not None:
            facts["confidence"] = self.confidence._asdict() | {"mean_ap": _interval_to_json(self.confidence.mean_ap)}
        return facts

    def table(self) -> str:
        """The figures as text: a line for each class, the mean, and COCO's other figures where there are any."""
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
        return "\n".join(lines)

    def rule(self) -> str:
        """The protocol in words, for titles: "voc07, IoU 0.50" or "coco, IoU 0.50 to 0.95"."""
        overlap = "0.50 to 0.95" if self.iou_threshold is None else f"{self.iou_threshold:.2f}"
        return f"{self.protocol}, IoU {overlap}"


def json_number(value: float) -> float | None:
    """A float, or None for NaN, which JSON does not have."""
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
