"""`tf-fast-rcnn browse`: a page that shows likely annotation errors of a dataset, with pictures."""

from __future__ import annotations

import argparse

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    add_data_arguments,
    add_json_argument,
    check_new,
    load_data,
    number,
    report_fixes,
    seed,
    start_tensorflow,
    with_proposals,
    write_result,
)
from tf_fast_rcnn.commands.proposal_options import add_proposal_arguments, chosen_proposals, refuse_second_proposals
from tf_fast_rcnn.data.selection import parse_class_map
from tf_fast_rcnn.errors import InputError

EXAMPLES = """\
  tf-fast-rcnn browse voc:cells@train --out cells
  tf-fast-rcnn browse voc:cells@train+voc:cells@test --no-proposals --out cells   # is any image in both?
  tf-fast-rcnn browse coco:instances.json,images --proposals selective-search --max-images 200 --out page
  tf-fast-rcnn browse voc:VOC2007@trainval --proposals voc_2007_trainval.mat --out page
  tf-fast-rcnn browse prepared:prepared/train --out page --json findings.json

Then open index.html in the folder; it works offline."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `browse`."""
    parser.add_argument("spec", metavar="SPEC", help="the dataset, as for `prepare`, or prepared:DIR")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    add_proposal_arguments(parser, "dense, fitted to the dataset's objects; prepared datasets have their own")
    parser.add_argument("--no-proposals", action="store_true", help="check only the annotations, which is faster")
    parser.add_argument(
        "--max-images",
        type=number(int, 0),
        default=60,
        metavar="N",
        help="images in the contact sheet, chosen at random (default: 60)",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of that random choice (default: 0)")
    add_data_arguments(parser)
    add_json_argument(parser, "the findings")


def run(options: argparse.Namespace) -> None:
    """Runs `browse` with its parsed options."""
    check_new(options.out, "--out")
    if options.no_proposals and options.proposals:
        raise InputError(f"--no-proposals: cannot be combined with --proposals {options.proposals}; remove one of them")
    start_tensorflow()
    dataset = load_data(options.spec, options, class_map=parse_class_map(options.classes) if options.classes else None)
    refuse_second_proposals(options, dataset)
    unreadable = []
    if options.no_proposals or dataset.proposals is not None:
        report_fixes(dataset)
    else:
        names = [record.image_id for record in dataset]
        dataset = with_proposals(dataset, chosen_proposals(options, dataset, "dense"), options)
        # Computing the proposals has dropped the images that cannot be read.
        kept = {record.image_id for record in dataset}
        unreadable = [name for name in names if name not in kept]
    facts = frcnn.browse(
        dataset, options.out, options.max_images, options.seed, options.skip_bad, unreadable=unreadable
    )
    write_result(options, facts, _summary(facts, options.out))


def _summary(facts, out):
    from tf_fast_rcnn.browsing.findings import KINDS

    lines = [f"{facts['images']} images, {facts['objects']} objects, {len(facts['classes'])} classes"]
    if facts["recall"] is not None and facts["objects"]:
        lines.append(f"recall of the proposals at IoU 0.5: {facts['recall']['at_iou_0.5']:.3f}")
    lines += [f"{count:6d}  {KINDS[kind].title.lower()}" for kind, count in facts["counts"].items() if count]
    return "\n".join([*lines, f"open {out}/index.html"])
