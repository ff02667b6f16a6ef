"""`tf-fast-rcnn export`: writes a trained detector as a SavedModel."""

import dataclasses
import sys

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import add_json_argument, number, start_tensorflow, write_result
from tf_fast_rcnn.commands.detection_options import add_detection_arguments, chosen_settings
from tf_fast_rcnn.data.proposals import ProposalSettings
from tf_fast_rcnn.data.proposals.dense import DEFAULT_DENSE_BOXES
from tf_fast_rcnn.export.limits import ServingLimits

EXAMPLES = """\
  tf-fast-rcnn export runs/cells --out serving/cells/1
  tf-fast-rcnn export runs/voc --proposals selective-search --out serving/voc/1     # for a server with our ops
  saved_model_cli show --dir serving/cells/1 --all"""

_LIMITS = {
    "max_side": "longest side of an image, in pixels",
    "max_pixels": "most pixels of an image",
    "max_images": "most images of a request, or of a batch of several",
    "max_proposals": "most proposals of an image",
}


def add_arguments(parser):
    parser.add_argument("folder", metavar="RUN", help="folder that `train` wrote")
    parser.add_argument("--format", default="saved-model", choices=["saved-model"], help="default: saved-model")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="a new folder; its name is the version in TensorFlow Serving"
    )
    parser.add_argument(
        "--proposals",
        choices=["none", "grid", "selective-search"],
        help="what the graph computes for clients that send an image alone, by the signature detect_image_bytes: grid "
        "(dense boxes) runs on any server, selective-search on those with the compiled ops linked in (default: what "
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
    for name, what in _LIMITS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=number(int, 1),
            metavar="N",
            default=getattr(ServingLimits, name),
            help=f"{what}, that the graph takes (default: %(default)s)",
        )
    add_detection_arguments(parser)
    add_json_argument(parser, "the summary")


def run(options):
    start_tensorflow()
    run_ = frcnn.load_run(options.folder)
    signatures = frcnn.export_saved_model(
        run_.model,
        options.out,
        class_names=run_.class_names,
        settings=chosen_settings(options, run_),
        roi_pooling=options.roi_pooling,
        proposals=graph_proposals(run_.proposals, options.proposals, options.roi_pooling),
        limits=ServingLimits(**{name: getattr(options, name) for name in _LIMITS}),
        class_names_output=options.class_names_output,
    )
    summary = {"saved_model": str(options.out), "signatures": signatures, "class_names": list(run_.class_names)}
    write_result(options, summary, f"{options.out}: SavedModel; signatures {', '.join(signatures)}")


def graph_proposals(trained, method, roi_pooling):
    """`ProposalSettings` for the graph, or None; says on standard error where the model was trained with others.

    Args:
        trained: what the model was trained with, `ProposalSettings` or `FileProposals`.
        method, roi_pooling: the options, which may be None.
    """
    method = method or _fitting_method(trained, roi_pooling)
    if method == "none":
        return None
    base = trained if isinstance(trained, ProposalSettings) else ProposalSettings(dense=DEFAULT_DENSE_BOXES)
    if method == "grid":
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
        return "grid"
    return "selective-search" if roi_pooling == "native" and trained.implementation == "native" else "none"
