"""What each table compares, and the paper's figures beside it.

The paper's figures are mAP in percent on VOC07 test, for its networks S (CaffeNet), M (VGG_CNN_M_1024) and L (VGG16).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from tf_fast_rcnn.tables.proposals import ProposalChoice


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One detector tested in one way.

    Attributes:
        training: a key of `TRAININGS`.
        proposals: `ProposalChoice` at test; None for the training's own.
        boxes: whether the regressed boxes are detected, or the proposals as they are.
        scales: image scales at test, 1 or 5.
        box_refinement_steps: see `DetectionSettings`.
        change: "" as trained, "svms" for linear SVMs in place of softmax, "svd" after truncated SVD.
    """

    training: str = "full"
    proposals: ProposalChoice | None = None
    boxes: bool = True
    scales: int = 1
    box_refinement_steps: int = 1
    change: str = ""

    @property
    def name(self) -> str:
        """Of its file: what differs from the detector as trained."""
        parts = [self.change, "" if self.boxes else "no-boxes"]
        parts += [f"{self.scales}-scales" if self.scales > 1 else ""]
        parts += [f"{self.box_refinement_steps}-passes" if self.box_refinement_steps > 1 else ""]
        if (choice := self.proposals) is not None:
            parts += [choice.source.replace(" ", "-").replace(",", "")]
            parts += [f"{choice.number}-random" if choice.number else ""]
            parts += [f"{choice.dense}-dense-added" if choice.dense else ""]
            parts += ["nearest-dense" if choice.nearest_dense else ""]
        return "-".join(part for part in parts if part) or "as-trained"


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table: what it is, how it is measured, and what the paper has for it, by network."""

    label: str
    measurement: Measurement
    paper: dict[str, float] = dataclasses.field(default_factory=dict, hash=False)


class Curve(NamedTuple):
    """The positions of its rows, and the paper's numbers of proposals and mAP."""

    rows: tuple
    paper: tuple = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: of the table and its picture.
        finding: what the paper says, or asks for, in a sentence.
        rows: `Row`s; `reference` is the position of the one that the others are compared with.
        columns: what is shown beside mAP, keys of `report.COLUMNS`.
        curves: for a picture over the number of proposals, `Curve`s by name.
    """

    title: str
    finding: str
    rows: tuple[Row, ...]
    reference: int = 0
    columns: tuple[str, ...] = ()
    curves: dict[str, Curve] = dataclasses.field(default_factory=dict)


_FULL = Measurement()
_DENSE = Measurement("dense")

MULTI_TASK = Table(
    "Multi-task training (the paper's table 6)",
    "Multi-task training raises mAP over training for classification alone, also where the boxes are not used; "
    "stage-wise training gains less than training all tasks together.",
    (
        Row("classification only", Measurement("classification", boxes=False), {"S": 52.2, "M": 54.7, "L": 62.6}),
        Row("multi-task training, no boxes at test", Measurement(boxes=False), {"S": 53.3, "M": 55.5, "L": 63.4}),
        Row("stage-wise: classification, then boxes", Measurement("stage-wise"), {"S": 54.6, "M": 56.6, "L": 64.0}),
        Row("multi-task training", _FULL, {"S": 57.1, "M": 59.2, "L": 66.9}),
    ),
    reference=3,
)

LAYERS = Table(
    "Which layers are tuned (the paper's table 5)",
    "Fine-tuning the convolutions matters: back-propagation through RoI pooling gains 5.5 points over fully connected "
    "layers alone, and 3.8 over SPPnet, whose spatial pyramid pooling leaves the convolutions as they were.",
    (
        Row("SPPnet: pyramid 1, 2, 3, 6; convolutions frozen; N = R", Measurement("roi-centric"), {"L": 63.1}),
        Row("SPPnet's network, hierarchical mini-batches", Measurement("spatial-pyramid")),
        Row("RoI pooling, convolutions frozen", Measurement("frozen-convolutions"), {"L": 61.4}),
        Row("tuned from the middle (paper: conv3_1)", Measurement("later-convolutions"), {"L": 66.9}),
        Row("all tuned (paper: conv2_1)", _FULL, {"L": 67.2}),
    ),
    reference=4,
    columns=("seconds_per_batch",),
)

SCALES = Table(
    "One image scale and five (the paper's table 7)",
    "Five scales gain little over one (1.3 to 1.5 points) and cost several times as much.",
    (
        Row("one scale", _FULL, {"S": 57.1, "M": 59.2, "L": 66.9}),
        Row("trained with five scales, tested at one", Measurement("five-scales")),
        Row("trained and tested with five scales", Measurement("five-scales", scales=5), {"S": 58.4, "M": 60.7}),
    ),
    columns=("seconds_per_batch", "seconds_per_image"),
)

SVMS = Table(
    "Softmax or linear SVMs (the paper's table 8)",
    "Softmax is slightly better than one-vs-rest linear SVMs trained post hoc with hard negatives (by 0.1 to 0.8 "
    "points): one stage of training does it.",
    (
        Row("softmax", _FULL, {"S": 57.1, "M": 59.2, "L": 66.9}),
        Row("linear SVMs on fc7", Measurement(change="svms"), {"S": 56.3, "M": 58.7, "L": 66.8}),
    ),
)


def _some(number):
    return Measurement(proposals=ProposalChoice(number=number))


def _added(dense):
    return Measurement(proposals=ProposalChoice(dense=dense))


PROPOSALS = Table(
    "Number and kind of proposals (the paper's figure 3)",
    "mAP rises and then falls a little as selective search gives more proposals, while average recall only rises; "
    "dense boxes added at random lower it more; trained and tested on dense boxes alone it is lower still, and with "
    "SVMs lowest. The paper trains anew for each number; here the detectors of the first rows are only tested.",
    (
        Row("selective search, 50 random", _some(50)),
        Row("selective search, 100 random", _some(100)),
        Row("selective search, 200 random", _some(200)),
        Row("selective search, 400 random", _some(400)),
        Row("selective search, 800 random", _some(800)),
        Row("selective search, all", _FULL, {"M": 58.7}),
        Row("all, and 500 dense boxes", _added(500)),
        Row("all, and 1000 dense boxes", _added(1000)),
        Row("all, and 2000 dense boxes", _added(2000)),
        Row("all, and all dense boxes", _added(1_000_000), {"M": 53.0}),
        Row(
            "each replaced by the nearest dense box",
            Measurement(proposals=ProposalChoice(nearest_dense=True)),
            {"M": 57.7},
        ),
        Row("trained and tested on dense boxes", _DENSE, {"M": 52.9}),
        Row("the same with SVMs", Measurement("dense", change="svms"), {"M": 49.3}),
    ),
    reference=5,
    columns=("proposals", "average_recall"),
    curves={
        "selective search, random": Curve((0, 1, 2, 3, 4, 5)),
        "dense boxes added": Curve((5, 6, 7, 8, 9), ((2000, 58.7), (47_000, 53.0))),
        "replaced by dense boxes": Curve((10,), ((2000, 57.7),)),
        "dense boxes alone": Curve((11,), ((45_000, 52.9),)),
        "dense boxes alone, SVMs": Curve((12,), ((45_000, 49.3),)),
    },
)

SVD = Table(
    "Truncated SVD of fc6 and fc7 (the paper's table 4 and figure 2)",
    "Keeping a quarter of fc6's singular values and a sixteenth of fc7's makes these layers three times as fast for a "
    "loss of 0.3 to 0.6 points.",
    (
        Row("as trained", _FULL, {"S": 57.1, "M": 59.2, "L": 66.9}),
        Row("fc6 and fc7 compressed", Measurement(change="svd"), {"S": 56.5, "M": 58.7, "L": 66.6}),
    ),
    columns=("fc_milliseconds", "seconds_per_image"),
)

STRIDES = Table(
    "Beyond the paper: RoI pooling from several layers",
    "Layers of a finer stride see small objects, those of a coarser one more of their surroundings.",
    (
        Row("stride 16", _DENSE),
        Row("strides 8 and 16", Measurement("strides-8-16")),
        Row("strides 8, 16 and 32", Measurement("strides-8-16-32")),
    ),
    columns=("seconds_per_batch", "seconds_per_image"),
)

SIZES = Table(
    "Beyond the paper: small proposals",
    "Proposals smaller than two cells of the feature map look alike to the network.",
    (Row("small proposals dropped", _FULL), Row("proposals of all sizes", Measurement("all-sizes"))),
    columns=("proposals", "average_recall"),
)

PASSES = Table(
    "Beyond the paper: refinement at test",
    "The boxes that were found are pooled, classified and regressed again.",
    (
        Row("one pass", _DENSE),
        Row("two passes", Measurement("dense", box_refinement_steps=2)),
        Row("three passes", Measurement("dense", box_refinement_steps=3)),
    ),
    columns=("seconds_per_image",),
)

GRIDS = Table(
    "Beyond the paper: dense boxes of fitted sizes",
    "Sizes fitted to the training objects, or five scales in three aspect ratios for any data.",
    (Row("fitted sizes", _DENSE), Row("fixed grid", Measurement("dense-grid"))),
    columns=("proposals", "average_recall"),
)

TABLES = {
    "multi-task": MULTI_TASK,
    "layers": LAYERS,
    "scales": SCALES,
    "svms": SVMS,
    "proposals": PROPOSALS,
    "svd": SVD,
    "strides": STRIDES,
    "sizes": SIZES,
    "passes": PASSES,
    "grids": GRIDS,
}


def measurements(names: Iterable[str]) -> list[Measurement]:
    """The measurements of some tables, each once, those of one training together."""
    found = dict.fromkeys(row.measurement for name in names for row in TABLES[name].rows)
    trainings = dict.fromkeys(measurement.training for measurement in found)
    return [measurement for training in trainings for measurement in found if measurement.training == training]
