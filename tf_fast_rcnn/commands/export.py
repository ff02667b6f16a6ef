"""`tf-fast-rcnn export`: exports a trained detector as a SavedModel, for TF Lite or for TensorFlow.js."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands import export_small
from tf_fast_rcnn.commands.common import (
    add_hidden_alias,
    add_json_argument,
    given_options,
    number,
    start_tensorflow,
    write_result,
)
from tf_fast_rcnn.commands.detection_options import add_detection_arguments, chosen_settings
from tf_fast_rcnn.data.proposals import ProposalSettings, in_tiles
from tf_fast_rcnn.data.proposals.dense import DEFAULT_DENSE_BOXES
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.export.limits import ServingLimits

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.files import FileProposals

EXAMPLES = """\
  tf-fast-rcnn export runs/cells --out serving/cells                    # the next version: serving/cells/1
  tf-fast-rcnn export runs/cells --out serving/cells/7 --warm-up 1,2,4,8 --metrics metrics.json
  tf-fast-rcnn export runs/voc --proposals selective-search --out serving/voc/1     # for a server with our ops
  saved_model_cli show --dir serving/cells/1 --all
  tf-fast-rcnn export runs/cells --format tflite --image-size 480,640 --precision float16 --out cells.tflite
  tf-fast-rcnn export runs/cells --format tflite --precision int8 --calibration voc:cells@train --out cells8.tflite
  tf-fast-rcnn export runs/cells --format tfjs --out examples/browser/model"""

FORMATS = ("saved-model", "tflite", "tfjs")

_LIMITS = {
    "max_side": "largest image side that the graph accepts, in pixels",
    "max_pixels": "most pixels per image that the graph accepts",
    "max_images": "most images per request, or per batch of requests, that the graph accepts",
    "max_proposals": "most proposals per image that the graph accepts",
}
# The default for detection in tiles: an image of 4000 x 3000 pixels with objects of 20 has this many dense boxes.
_MAX_PROPOSALS_IN_TILES = 1_000_000
# Option names of the fields above. In commands that compute or read proposals, --max-proposals is how many are used.
_LIMIT_OPTIONS = {name: name for name in _LIMITS} | {"max_proposals": "max_request_proposals"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `export`."""
    parser.add_argument("folder", metavar="RUN", help="folder that `train` wrote")
    parser.add_argument("--format", default="saved-model", choices=FORMATS, help="default: saved-model")
    parser.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="saved-model: the model's folder, in which the next version is created, or a new version, which is a "
        "folder named by a number; tflite: a file; tfjs: a new folder",
    )
    add_detection_arguments(parser)
    _add_saved_model_arguments(parser.add_argument_group("options for --format saved-model"))
    export_small.add_arguments(parser.add_argument_group("options for --format tflite and tfjs"))
    add_json_argument(parser, "the summary")


def _add_saved_model_arguments(parser):
    parser.add_argument(
        "--proposals",
        type=lambda text: "dense" if text == "grid" else text,  # the name in version 0.1
        choices=["none", "dense", "selective-search"],
        help="proposals computed in the graph by the signature detect_image_bytes, for clients that only send images. "
        "dense runs on any server, selective-search needs the compiled ops linked in (default: as in training if the "
        "server that --roi-pooling implies can compute them, else none)",
    )
    parser.add_argument(
        "--roi-pooling",
        choices=["portable", "native"],
        help="portable runs on any server; native needs the compiled ops linked in (default: portable; native with "
        "--proposals selective-search)",
    )
    parser.add_argument(
        "--class-names-output", action="store_true", help="also output class names, as detection_class_names"
    )
    parser.add_argument(
        "--warm-up",
        type=_whole_numbers,
        metavar="N,...",
        help="numbers of images in the requests that TensorFlow Serving runs before the version takes traffic, e.g. "
        "the allowed batch sizes; 0: no requests (default: 1)",
    )
    parser.add_argument(
        "--warm-up-proposals",
        type=_whole_numbers,
        metavar="N,...",
        help="numbers of proposals per image in these requests (default: 300)",
        default=(300,),
    )
    parser.add_argument(
        "--metrics", metavar="FILE", help="JSON from `evaluate`, stored in assets/metadata.json with the recipe"
    )
    for name, what in _LIMITS.items():
        parser.add_argument(
            f"--{_LIMIT_OPTIONS[name].replace('_', '-')}",
            type=number(int, 1),
            metavar="N",
            default=getattr(ServingLimits, name),
            help=f"{what} (default: %(default)s)",
        )
    add_hidden_alias(parser, "--max-request-proposals", "--max-proposals")


def run(options: argparse.Namespace) -> None:
    """Runs `export` with its parsed options."""
    if options.format != "saved-model":
        _refuse(options, _add_saved_model_arguments)
        return export_small.run(options)
    _refuse(options, export_small.add_arguments)
    return _export_saved_model(options)


def _refuse(options, add_arguments):
    """Raises InputError if an option of another format is given."""
    if given := given_options(options, add_arguments):
        raise InputError(f"{given[0]} cannot be used with --format {options.format}; remove it")


def _export_saved_model(options):
    out, metrics = version_folder(Path(options.out)), _read_metrics(options.metrics)
    start_tensorflow()
    from tf_fast_rcnn.training.run_folder import validation_metrics

    run_ = frcnn.load_run(options.folder)
    settings = chosen_settings(options, run_)
    limits = {name: getattr(options, option) for name, option in _LIMIT_OPTIONS.items()}
    if settings.tiles is not None and limits["max_proposals"] == ServingLimits.max_proposals:
        limits["max_proposals"] = _MAX_PROPOSALS_IN_TILES
    signatures = frcnn.export_saved_model(
        run_.model,
        out,
        class_names=run_.class_names,
        settings=settings,
        roi_pooling=options.roi_pooling,
        proposals=graph_proposals(in_tiles(run_.proposals, settings.tiles), options.proposals, options.roi_pooling),
        limits=ServingLimits(**limits),
        class_names_output=options.class_names_output,
        warm_up=list(itertools.product(_warm_up_images(options), options.warm_up_proposals)),
        training={"run": run_.description, "validation": validation_metrics(run_), "metrics": metrics},
    )
    summary = {"saved_model": str(out), "signatures": signatures, "class_names": list(run_.class_names)}
    write_result(options, summary, f"{out}: SavedModel; signatures {', '.join(signatures)}")


def version_folder(out: Path) -> Path:
    """The folder to export a model to. A folder with a numeric name is a version; any other folder contains versions.

    Args:
        out: the folder of a model or of a version.

    Returns:
        `out` if its name is a number, otherwise the next version in it.

    Raises:
        InputError: if `out` is a file, or a SavedModel that is not a version.

    Example:
        >>> version_folder(Path("serving/new"))
        PosixPath('serving/new/1')
    """
    if out.name.isdecimal():
        return out
    if out.is_file() or (out / "saved_model.pb").exists():
        raise InputError(
            f"{out}: found a {'file' if out.is_file() else 'SavedModel'}; expected a model's folder with numbered "
            f"versions, or a version; choose another folder, or {out.parent}/1"
        )
    versions = [int(entry.name) for entry in out.glob("*") if entry.name.isdecimal()]
    return out / str(1 + max(versions, default=0))


def _warm_up_images(options):
    """The numbers of images in warm-up requests."""
    if options.warm_up is not None:
        return [images for images in options.warm_up if images]
    if importlib.util.find_spec("tensorflow_serving") is None:
        print("no warm-up requests written; they need pip install 'tf-fast-rcnn[serving]'", file=sys.stderr)
        return []
    return [1]


def _read_metrics(path):
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise InputError(f"{path}: found invalid JSON ({error}); expected the output of `evaluate --json`") from None


def _whole_numbers(text):
    """The `type` of an option: a sorted tuple of the distinct whole numbers in a comma-separated list."""
    try:
        return tuple(sorted(set(map(number(int, 0), text.split(",")))))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or several separated by commas") from None


def graph_proposals(
    trained: ProposalSettings | FileProposals, method: str | None, roi_pooling: str | None
) -> ProposalSettings | None:
    """The proposals that the graph computes; a note on standard error if the model was trained with others.

    Args:
        trained: the proposals of training.
        method: `--proposals`, or None.
        roi_pooling: `--roi-pooling`, or None.

    Returns:
        `ProposalSettings`, or None if the graph computes no proposals.
    """
    method = method or _fitting_method(trained, roi_pooling)
    if method == "none":
        return None
    base = trained if isinstance(trained, ProposalSettings) else ProposalSettings(dense=DEFAULT_DENSE_BOXES)
    if method == "dense":
        chosen = dataclasses.replace(base, selective_search=None, dense=base.dense or DEFAULT_DENSE_BOXES)
    elif base.selective_search is None:
        chosen = dataclasses.replace(base, selective_search="fast", dense=None)
    else:
        chosen = dataclasses.replace(base, implementation="native")
    if chosen != trained:
        print("detect_image_bytes: the model was trained with other proposals than it computes", file=sys.stderr)
    return chosen


def _fitting_method(trained, roi_pooling):
    """The method of training if a server with this RoI pooling can compute it, else "none"."""
    if not isinstance(trained, ProposalSettings):
        return "none"
    if trained.selective_search is None:
        return "dense"
    return "selective-search" if roi_pooling == "native" and trained.implementation == "native" else "none"
