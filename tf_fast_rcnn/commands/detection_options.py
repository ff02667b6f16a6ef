"""Command-line options for the fields of `DetectionSettings`: image size, thresholds, classes and so on."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.commands.common import add_hidden_alias, number
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.inference.settings import NMS_KINDS

if TYPE_CHECKING:
    from tf_fast_rcnn.inference.predictor import Predictor
    from tf_fast_rcnn.inference.settings import DetectionSettings
    from tf_fast_rcnn.training.run_folder import Run


# What the value "none" becomes: None means that the option is not given.
NONE = 0


def add_detection_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the fields of `DetectionSettings` as options. The defaults are those of the class; the image size and the
    NMS threshold are those of the run."""
    parser.add_argument(
        "--score-threshold",
        type=number(float, 0, 1),
        default=0.05,
        metavar="X",
        help="drop detections with a score at or below this (default: 0.05)",
    )
    parser.add_argument(
        "--nms-iou-threshold",
        type=number(float, 0, 1),
        metavar="X",
        help="drop a box if its IoU with a higher-scoring box of its class is larger (default: the recipe's)",
    )
    add_nms_arguments(parser)
    parser.add_argument(
        "--max-detections", type=number(int, 1), default=100, metavar="N", help="detections per image (default: 100)"
    )
    parser.add_argument("--classes", metavar="LIST", help="detect only these classes: cat,dog (default: all)")
    parser.add_argument(
        "--shorter-side",
        type=_sides,
        metavar="PIXELS,...",
        help="shorter side of resized images; several form an image pyramid (default: as in training)",
    )
    parser.add_argument(
        "--longer-side",
        type=number(int, 32),
        metavar="PIXELS",
        help="limit for the longer side of resized images (default: as in training)",
    )
    parser.add_argument(
        "--box-refinement-steps",
        type=number(int, 1, 10),
        default=1,
        metavar="N",
        help="2: pool, classify and regress the detected boxes a second time (default: 1)",
    )
    add_screening_argument(parser)
    add_tile_arguments(parser)
    add_hidden_alias(parser, "--nms-iou-threshold", "--nms-iou")
    add_hidden_alias(parser, "--box-refinement-steps", "--box-passes")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="data type of weights and activations (default: float32)",
    )


def add_tile_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options for tiles; see `tile_settings`."""
    parser.add_argument(
        "--tile",
        type=_or_none(32),
        metavar="PIXELS|none",
        help="see the image in square tiles with this side, in pixels of the image, resized to the shorter side "
        "(default: as in training)",
    )
    parser.add_argument(
        "--overlap",
        type=number(float, 0, 0.75, above=True),
        metavar="SHARE",
        help="overlap of tiles, as a share of their side; larger objects are found in the whole image (default: as in "
        "training, else 0.2)",
    )


def add_screening_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the first pass of detection; see `screening_settings`."""
    parser.add_argument(
        "--screening-rank",
        type=_or_none(1),
        metavar="N|none",
        help="drop regions that are clearly background in a fast first pass, with N singular values of the first fully "
        "connected layer (default: the recipe's)",
    )


def add_nms_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the kind of non-maximum suppression and for box voting; see `nms_settings`."""
    parser.add_argument(
        "--nms",
        choices=NMS_KINDS,
        default="per-class",
        help="across-classes: a box also suppresses those of other classes; soft: overlaps lower the score of a box, "
        "which is not dropped (soft-NMS) (default: per-class)",
    )
    parser.add_argument(
        "--soft-nms-sigma",
        type=number(float, 0, above=True),
        default=0.5,
        metavar="X",
        help="for --nms soft: scores are multiplied by exp(-IoU^2 / X) (default: 0.5)",
    )
    parser.add_argument(
        "--box-voting",
        action="store_true",
        help="replace each box by the mean of the boxes of its class with an IoU of 0.5 or more with it, weighted by "
        "score",
    )


def chosen_settings(options: argparse.Namespace, run: Run) -> DetectionSettings:
    """The `DetectionSettings` chosen by the options of `add_detection_arguments`.

    Raises:
        InputError: if the run does not have a class of `--classes`.
    """
    import tf_fast_rcnn as frcnn

    return frcnn.detection_settings(run, **changed_settings(options, run))


def changed_settings(options: argparse.Namespace, detector: Run | Predictor) -> dict[str, Any]:
    """The fields of `DetectionSettings` that the options set, by name; for a `Run` or a `Predictor`.

    Raises:
        InputError: if the detector does not have a class of `--classes`, or for options that do not go together.
    """
    if options.nms == "soft" and options.nms_iou_threshold is not None:
        raise InputError(
            "--nms-iou-threshold: found with --nms soft, which drops no box for its overlap; remove one of the two"
        )
    names = (
        "score_threshold",
        "nms_iou_threshold",
        "max_detections",
        "shorter_side",
        "longer_side",
        "box_refinement_steps",
        "dtype",
    )
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    changes |= nms_settings(options) | tile_settings(options, detector) | screening_settings(options)
    if options.classes:
        changes["class_ids"] = tuple(
            _class_id(name.strip(), options, detector.class_names) for name in options.classes.split(",")
        )
    return changes


def tile_settings(options: argparse.Namespace, detector: Run | Predictor) -> dict[str, Any]:
    """The fields of `DetectionSettings` that the options of `add_tile_arguments` change, by name; for a `Run` or a
    `Predictor`.

    Raises:
        InputError: for an overlap without tiles.
    """
    # A `Predictor` has settings, and a `Run` has tiles itself.
    owner: Any = getattr(detector, "settings", detector)
    if options.overlap is not None and (options.tile == NONE or (options.tile is None and owner.tiles is None)):
        raise InputError(
            f"--overlap: found {options.overlap} without tiles; expected --tile PIXELS with it, or a RUN that was "
            "trained in tiles; add --tile or leave it out"
        )
    return _given({"tile": options.tile, "tile_overlap": options.overlap})


def screening_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The field of `DetectionSettings` that the option of `add_screening_argument` changes, by name."""
    return _given({"screening_rank": options.screening_rank})


def _given(values):
    """The values of the options that are given, by name; None for "none"."""
    return {name: None if value == NONE else value for name, value in values.items() if value is not None}


def nms_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of `DetectionSettings` that the options of `add_nms_arguments` change, by name.

    Raises:
        InputError: for a sigma without soft-NMS.
    """
    defaults = {"nms": "per-class", "soft_nms_sigma": 0.5, "box_voting": False}
    changes = {name: getattr(options, name) for name in defaults if getattr(options, name) != defaults[name]}
    if "soft_nms_sigma" in changes and options.nms != "soft":
        raise InputError(f"--soft-nms-sigma: found with --nms {options.nms}; only --nms soft uses it; remove it")
    return changes


def _class_id(name, options, class_names):
    if name not in class_names:
        raise InputError(
            f"--classes: found {name!r}; expected classes of {options.folder}: {', '.join(class_names)}; fix the name"
        )
    return class_names.index(name) + 1


def _or_none(least):
    """A converter for a whole number from `least`, or "none", which becomes `NONE`."""
    return lambda text: NONE if text == "none" else number(int, least)(text)


def _sides(text):
    """A number of pixels; a tuple of them if the text is a comma-separated list."""
    try:
        sides = tuple(map(number(int, 32), text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or several separated by commas") from None
    return sides if len(sides) > 1 else sides[0]
