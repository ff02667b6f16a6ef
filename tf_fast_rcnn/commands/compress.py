"""`tf-fast-rcnn compress`: speeds up the fully connected layers of a trained detector by truncated SVD."""

import argparse

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    add_boxes_order,
    add_json_argument,
    check_new,
    load_data,
    number,
    start_tensorflow,
    write_result,
)
from tf_fast_rcnn.commands.proposal_options import add_file_arguments, with_chosen_proposals
from tf_fast_rcnn.errors import InputError

EXAMPLES = """\
  tf-fast-rcnn compress runs/voc07 --fc6 1024 --fc7 256 --out runs/voc07-svd
  tf-fast-rcnn compress runs/cells --energy 0.9 --out runs/cells-svd
  tf-fast-rcnn compress runs/cells --max-loss 0.3 --data voc:cells@val --out runs/cells-svd
  tf-fast-rcnn compress runs/cells --rank box_regression=8 --out runs/cells-svd

--out is a RUN: evaluate, detect and export take it, and `train --weights` fine-tunes it."""

_SEARCH_OPTIONS = ("data", "proposals")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `compress`."""
    parser.add_argument("folder", metavar="RUN", help="folder that `train` wrote")
    parser.add_argument(
        "--fc6", type=number(int, 1), metavar="T", help="singular values to keep in the first fully connected layer"
    )
    parser.add_argument("--fc7", type=number(int, 1), metavar="T", help="singular values to keep in the second one")
    parser.add_argument(
        "--rank",
        action="append",
        default=[],
        type=_rank,
        metavar="LAYER=T",
        help="singular values to keep in a layer, by its name; repeatable",
    )
    parser.add_argument(
        "--energy",
        type=number(float, 0, 1, above=True),
        metavar="X",
        help="in all fully connected layers without a T, keep this share of the sum of squared singular values",
    )
    parser.add_argument(
        "--max-loss",
        type=number(float, 0, 100),
        metavar="POINTS",
        help="search the smallest ranks that lose at most this many percentage points of mAP on --data",
    )
    parser.add_argument(
        "--data", metavar="SPEC", help="images for --max-loss, ideally neither training nor test images"
    )
    parser.add_argument(
        "--protocol", default="voc07", choices=["voc07", "voc10", "coco"], help="protocol of that mAP (default: voc07)"
    )
    parser.add_argument(
        "--proposals", metavar="METHOD|FILE", help="object proposals of --data (default: as in training)"
    )
    add_file_arguments(parser)
    parser.add_argument("--out", required=True, metavar="RUN", help="a new folder")
    parser.add_argument("--skip-bad", action="store_true", help="skip unreadable images of --data")
    add_boxes_order(parser)
    parser.add_argument(
        "--workers", type=number(int, 1), metavar="N", help="number of processes that compute the proposals of --data"
    )
    parser.add_argument("--cache", metavar="DIR", help="folder for cached proposals of --data")
    add_json_argument(parser, "the summary")


def run(options: argparse.Namespace) -> None:
    """Runs `compress` with its parsed options."""
    _check_options(options)
    check_new(options.out, "--out")
    start_tensorflow()
    run_ = frcnn.load_run(options.folder)
    if options.max_loss is None:
        small = frcnn.compress(
            run_.model, options.fc6, options.fc7, energy=options.energy, ranks=_without_repeats(options.rank)
        )
    else:
        small = frcnn.compress(run_.model, ranks=_search(options, run_))
    summary = frcnn.compression_summary(run_.model, small)
    if not summary.layers:
        raise InputError(
            f"{options.folder}: found no layer that would become smaller; expected at least one; lower --energy"
        )
    _write_run(options, run_, small, summary)
    text = f"{summary.table()}\nnext: tf-fast-rcnn evaluate {options.out} --data SPEC"
    write_result(options, {"run": options.out, **summary.to_json()}, text)


def _check_options(options):
    fixed = options.fc6 or options.fc7 or options.energy or options.rank
    if (options.max_loss is None) == (not fixed):
        found = "none" if not fixed else "--max-loss too"
        raise InputError(
            f"--fc6, --fc7, --energy, --rank: found {found}; expected one of them or --max-loss; choose one"
        )
    given = [name for name in _SEARCH_OPTIONS if getattr(options, name)]
    if options.max_loss is None and given:
        raise InputError(
            f"--{given[0]}: --data and --proposals are only used with --max-loss; add --max-loss POINTS or remove them"
        )
    if options.max_loss is not None and not options.data:
        raise InputError("--max-loss needs images to measure mAP on; pass --data SPEC")


def _search(options, run_):
    """The ranks that `smallest_ranks` finds; raises an InputError if there are none."""
    import tensorflow as tf

    from tf_fast_rcnn.inference.settings import EVALUATION_SCORE_THRESHOLD

    # TensorFlow warns about retracing, but each compression that is tried needs its own graph.
    tf.get_logger().setLevel("ERROR")
    dataset = load_data(options.data, options, run_.class_names, run_.description.get("classes"))
    dataset = with_chosen_proposals(options, dataset, run_.proposals)
    settings = frcnn.detection_settings(run_, score_threshold=EVALUATION_SCORE_THRESHOLD)
    ranks = frcnn.smallest_ranks(run_.model, dataset, options.max_loss, options.protocol, settings=settings)
    if not ranks:
        raise InputError(
            f"--max-loss: every rank tried loses more than {options.max_loss} mAP points on {dataset.name}; allow a "
            "larger loss"
        )
    return ranks


def _write_run(options, run_, small, summary):
    from tf_fast_rcnn.training.run_folder import open_run, save_model

    compressed = {"run": str(options.folder), "earlier": run_.description.get("compressed"), **summary.to_json()}
    folder = open_run(options.out, {**run_.description, "compressed": compressed})
    save_model(small, folder / "model.keras")


def _without_repeats(pairs):
    ranks = dict(pairs)
    if len(ranks) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"--rank: found {twice} twice; expected each layer once; leave one out")
    return ranks


def _rank(text):
    name, equals, rank = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected LAYER=T, e.g. box_regression=8")
    return name, number(int, 1)(rank)
