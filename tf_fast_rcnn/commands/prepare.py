"""`tf-fast-rcnn prepare`: computes object proposals for a dataset and stores them together with its annotations."""

from __future__ import annotations

import argparse
import time

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    add_data_arguments,
    add_json_argument,
    load_data,
    report_fixes,
    start_tensorflow,
    write_result,
)
from tf_fast_rcnn.commands.proposal_options import add_proposal_arguments, check_has_proposals, chosen_proposals
from tf_fast_rcnn.data.prepared.read import read_manifest
from tf_fast_rcnn.data.selection import parse_class_map

EXAMPLES = """\
  tf-fast-rcnn prepare voc:cells@train --out prepared/train
  tf-fast-rcnn prepare voc:cells@test --like prepared/train --out prepared/test
  tf-fast-rcnn prepare voc:VOC2007@trainval --proposals selective-search --workers 8 --out prepared/voc07
  tf-fast-rcnn prepare voc:VOC2007@trainval --proposals voc_2007_trainval.mat --out prepared/voc07
  tf-fast-rcnn prepare voc:cells@train --proposals dense --dense-scales 0.1,0.2,0.4 --out prepared/train

Use the result as SPEC prepared:DIR. After an interruption, run the same command again to continue."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `prepare`."""
    parser.add_argument(
        "spec", metavar="SPEC", help="a dataset of any kind (`tf-fast-rcnn formats` lists them), or several joined by +"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    add_proposal_arguments(parser, "dense, fitted to the dataset's objects")
    parser.add_argument(
        "--like",
        metavar="DIR",
        help="for test data: use the classes and, without --proposals, the method of another prepared folder",
    )
    add_data_arguments(parser)
    add_json_argument(parser, "the summary")


def run(options: argparse.Namespace) -> None:
    """Runs `prepare` with its parsed options."""
    start_tensorflow()
    like = frcnn.load_dataset(f"prepared:{options.like}") if options.like else None
    class_map = parse_class_map(options.classes) if options.classes else None
    dataset = load_data(options.spec, options, like.class_names if like else None, class_map)
    proposals = like.proposals if like and not options.proposals else None
    proposals = proposals or chosen_proposals(options, dataset, "dense")
    check_has_proposals(proposals)
    started = time.monotonic()
    prepared = frcnn.prepare(dataset, options.out, proposals, workers=options.workers, skip_bad=options.skip_bad)
    seconds = time.monotonic() - started
    report_fixes(prepared)
    statistics = read_manifest(options.out)["statistics"]
    objects = sum(statistics["objects"].values())
    summary = {**statistics, "objects": objects, "images_per_second": round(len(prepared) / seconds, 1)}
    recalls = ", ".join(f"{name} {recall:.3f}" for name, recall in summary["recall_at_iou_0.5"].items())
    text = (
        f"{summary['images']} images, {summary['objects']} objects, "
        f"{summary['proposals_per_image']:.0f} proposals per image, {summary['images_per_second']} images per second\n"
        f"recall at IoU 0.5: {recalls or 'no objects'}\n"
        f"next: tf-fast-rcnn train --train prepared:{options.out} --out RUN"
    )
    write_result(options, {"prepared": str(options.out), **summary}, text)
