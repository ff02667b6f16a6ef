"""`tf-fast-rcnn export`: writes a trained detector as a SavedModel, for TF Lite or for TensorFlow.js."""

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
from tf_fast_rcnn.data.proposals import ProposalSettings
from tf_fast_rcnn.data.proposals.dense import DEFAULT_DENSE_BOXES
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.export.limits import ServingLimits
from tf_fast_rcnn.export.versions import version_folder

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
    "max_side": "longest side of an image, in pixels",
    "max_pixels": "most pixels of an image",
    "max_images": "most images of a request, or of a batch of several",
    "max_proposals": "most proposals of an image",
}
# Of the fields above; --max-proposals is how many are taken, in the commands that compute or read them.
_LIMIT_OPTIONS = {name: name for name in _LIMITS} | {"max_proposals": "max_request_proposals"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder that `train` wrote")
    parser.add_argument("--format", default="saved-model", choices=FORMATS, help="default: saved-model")
    parser.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="saved-model: the model's folder, in which the next version is made, or a new version: a folder whose "
        "name is a number; tflite: a file; tfjs: a new folder",
    )
    add_detection_arguments(parser)
    _add_saved_model_arguments(parser.add_argument_group("of --format saved-model"))
    export_small.add_arguments(parser.add_argument_group("of --format tflite and tfjs"))
    add_json_argument(parser, "the summary")


def _add_saved_model_arguments(parser):
    parser.add_argument(
        "--proposals",
        type=lambda text: "dense" if text == "grid" else text,  # as 0.1 called it
        choices=["none", "dense", "selective-search"],
        help="what the graph computes for clients that send an image alone, by the signature detect_image_bytes: dense "
        "(boxes) runs on any server, selective-search on those with the compiled ops linked in (default: what "
        "the model was trained with, if the server that --roi-pooling asks for can; else none)",
    )
    parser.add_argument(
        "--roi-pooling",
        choices=["portable", "native"],
        help="portable runs on any server; native needs one with the compiled ops linked in (default: portable; native "
        "with --proposals selective-search)",
    )
    parser.add_argument(
        "--class-names-output", action="store_true", help="give each detection's class name too: detection_class_names"
    )
    parser.add_argument(
        "--warm-up",
        type=_whole_numbers,
        metavar="N,...",
        help="numbers of images of the requests that TensorFlow Serving runs before the version takes traffic, such as "
        "the allowed batch sizes; 0: no requests (default: 1)",
    )
    parser.add_argument(
        "--warm-up-proposals",
        type=_whole_numbers,
        metavar="N,...",
        help="their numbers of proposals of an image (default: 300)",
        default=(300,),
    )
    parser.add_argument(
        "--metrics", metavar="FILE", help="JSON of `evaluate`, kept in assets/metadata.json beside the recipe"
    )
    for name, what in _LIMITS.items():
        parser.add_argument(
            f"--{_LIMIT_OPTIONS[name].replace('_', '-')}",
            type=number(int, 1),
            metavar="N",
            default=getattr(ServingLimits, name),
            help=f"{what}, that the graph takes (default: %(default)s)",
        )
    add_hidden_alias(parser, "--max-request-proposals", "--max-proposals")


def run(options: argparse.Namespace) -> None:
    if options.format != "saved-model":
        _refuse(options, _add_saved_model_arguments)
        return export_small.run(options)
    _refuse(options, export_small.add_arguments)
    return _export_saved_model(options)


def _refuse(options, add_arguments):
    """InputError where an option of another format is given."""
    if given := given_options(options, add_arguments):
        raise InputError(f"{given[0]}: found it with --format {options.format}, which has no such option; leave it out")


def _export_saved_model(options):
    out, metrics = version_folder(Path(options.out)), _read_metrics(options.metrics)
    start_tensorflow()
    from tf_fast_rcnn.training.run_folder import validation_metrics

    run_ = frcnn.load_run(options.folder)
    signatures = frcnn.export_saved_model(
        run_.model,
        out,
        class_names=run_.class_names,
        settings=chosen_settings(options, run_),
        roi_pooling=options.roi_pooling,
        proposals=graph_proposals(run_.proposals, options.proposals, options.roi_pooling),
        limits=ServingLimits(**{name: getattr(options, option) for name, option in _LIMIT_OPTIONS.items()}),
        class_names_output=options.class_names_output,
        warm_up=list(itertools.product(_warm_up_images(options), options.warm_up_proposals)),
        training={"run": run_.description, "validation": validation_metrics(run_), "metrics": metrics},
    )
    summary = {"saved_model": str(out), "signatures": signatures, "class_names": list(run_.class_names)}
    write_result(options, summary, f"{out}: SavedModel; signatures {', '.join(signatures)}")


def _warm_up_images(options):
    """The numbers of images of warm-up requests."""
    if options.warm_up is not None:
        return [images for images in options.warm_up if images]
    if importlib.util.find_spec("tensorflow_serving") is None:
        print("no warm-up requests: they need pip install 'tf-fast-rcnn[serving]'", file=sys.stderr)
        return []
    return [1]


def _read_metrics(path):
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise InputError(f"{path}: found broken JSON ({error}); expected what `evaluate --json` writes") from None


def _whole_numbers(text):
    """The `type` of an option: a comma-separated list of whole numbers from 0, without repetitions."""
    try:
        return tuple(sorted(set(map(number(int, 0), text.split(",")))))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or several joined by commas") from None


def graph_proposals(
    trained: ProposalSettings | FileProposals, method: str | None, roi_pooling: str | None
) -> ProposalSettings | None:
    """`ProposalSettings` for the graph, or None; says on standard error where the model was trained with others.

    Args:
        trained: what the model was trained with, `ProposalSettings` or `FileProposals`.
        method, roi_pooling: the options, which may be None.
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
        told = "detect_image_bytes: computes other proposals than those that the model was trained with"
        print(told, file=sys.stderr)
    return chosen


def _fitting_method(trained, roi_pooling):
    """What a model was trained with, where it is computed and a server for this RoI pooling can compute it."""
    if not isinstance(trained, ProposalSettings):
        return "none"
    if trained.selective_search is None:
        return "dense"
    return "selective-search" if roi_pooling == "native" and trained.implementation == "native" else "none"
