"""`tf-fast-rcnn convert`: writes a dataset in the format of another tool."""

from __future__ import annotations

import argparse
import re

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    add_data_arguments,
    add_json_argument,
    check_new,
    load_data,
    report_fixes,
    start_tensorflow,
    write_result,
)
from tf_fast_rcnn.data.selection import parse_class_map
from tf_fast_rcnn.data.specs import split_name
from tf_fast_rcnn.errors import InputError

EXAMPLES = """\
  tf-fast-rcnn convert voc:cells@train --to coco --out cells-coco
  tf-fast-rcnn convert train=voc:cells@train val=voc:cells@test --to yolo --out cells-yolo
  tf-fast-rcnn convert label-studio:export.json,images --to voc --out cells-voc
  tf-fast-rcnn convert "train=cvat:annotations.xml[:80%]" "val=cvat:annotations.xml[80%:]" --to csv --out cells-csv
  tf-fast-rcnn convert coco:instances.json,images --to prepared --out prepared/train"""

KINDS = ("voc", "coco", "yolo", "csv", "prepared")
_NAMED = re.compile(r"(\w[\w.-]*)=(.*)", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `convert`."""
    parser.add_argument(
        "specs",
        nargs="+",
        metavar="SPEC",
        help="the dataset of each split, as SPEC or NAME=SPEC (default name: the SPEC's split, or train)",
    )
    parser.add_argument("--to", required=True, choices=KINDS, metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    add_data_arguments(parser)
    add_json_argument(parser, "the summary")


def run(options: argparse.Namespace) -> None:
    """Runs `convert` with its parsed options."""
    check_new(options.out, "--out")
    specs = _specs(options.specs)
    if options.to == "prepared" and len(specs) > 1:
        raise InputError(f"--to prepared: found {len(specs)} splits; expected one SPEC; convert one after the other")
    start_tensorflow()
    splits = _with_common_classes({split: _read(spec, options) for split, spec in specs.items()})
    for dataset in splits.values():
        report_fixes(dataset)
    if options.to == "prepared":
        _prepare(options, *splits.values())
        return
    summary = frcnn.convert(splits, options.out, options.to)
    lines = [f"{summary['images']} images, {summary['objects']} objects"]
    lines += [f"{options.to} cannot express: {count} x {what}" for what, count in summary["lost"].items()]
    write_result(options, summary, "\n".join([*lines, *(f"read it as {spec}" for spec in summary["specs"].values())]))


def _specs(arguments):
    """The SPEC of each split."""
    specs = {}
    for argument in arguments:
        named = _NAMED.fullmatch(argument)
        # "voc:a=b" is a SPEC: a name has no colon.
        split, spec = named.groups() if named else (split_name(argument) or "train", argument)
        split = re.sub(r"[^\w.-]", "_", split)
        if split in specs:
            raise InputError(f"split {split!r}: found twice; expected another name for each; write NAME={spec}")
        specs[split] = spec
    return specs


def _read(spec, options):
    return load_data(spec, options, class_map=parse_class_map(options.classes) if options.classes else None)


def _with_common_classes(splits):
    """All splits with the same classes: those of all of them, in the order of the first."""
    names = list(dict.fromkeys(name for dataset in splits.values() for name in dataset.class_names))
    return {split: dataset.with_class_names(names) for split, dataset in splits.items()}


def _prepare(options, dataset):
    proposals = frcnn.proposal_settings("dense", dataset)
    prepared = frcnn.prepare(dataset, options.out, proposals, workers=options.workers, skip_bad=options.skip_bad)
    objects = sum(len(record.boxes) for record in prepared)
    summary = {"specs": {"train": f"prepared:{options.out}"}, "images": len(prepared), "objects": objects, "lost": {}}
    write_result(options, summary, f"{len(prepared)} images, {objects} objects\nread it as prepared:{options.out}")
