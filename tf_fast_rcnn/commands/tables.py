"""`tf-fast-rcnn tables`: the paper's comparisons on your own dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    add_data_arguments,
    add_json_argument,
    load_data,
    number,
    start_tensorflow,
    write_result,
)
from tf_fast_rcnn.data.selection import parse_class_map

EXAMPLES = """\
  tf-fast-rcnn tables --data voc:cells@train --test voc:cells@val --out tables/cells
  tf-fast-rcnn tables --data voc:cells@trainval --out tables/cells --only multi-task layers --seeds 3
  tf-fast-rcnn tables --data voc:VOC2007@trainval --test voc:VOC2007@test --out tables/voc07 \\
      --recipe voc07 --backbone caffenet --steps 40000 --shorter-side 600

Tables: multi-task, layers, scales, svms, proposals (figure 3), svd; beyond the paper: strides, sizes, passes, grids.
After an interruption, run the same command again to continue; you can add seeds and tables later."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `tables`."""
    parser.add_argument("--data", required=True, metavar="SPEC", help="images to train on")
    parser.add_argument("--test", metavar="SPEC", help="images to test on (default: three tenths of --data, held out)")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder, or that of an interrupted command")
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="tables to measure (default: all)")
    parser.add_argument("--seeds", type=number(int, 1), default=3, metavar="N", help="seeds per training (default: 3)")
    parser.add_argument(
        "--steps", type=number(int, 1), default=300, metavar="N", help="mini-batches per training (default: 300)"
    )
    parser.add_argument("--backbone", metavar="NAME", help="default: the recipe's, efficientnet_lite0")
    parser.add_argument("--weights", default="imagenet", metavar="imagenet|none|FILE", help="weights of the backbone")
    parser.add_argument(
        "--recipe", default="small-data", metavar="NAME", help="recipe that all trainings vary (default: small-data)"
    )
    parser.add_argument(
        "--shorter-side",
        type=number(int, 32),
        default=320,
        metavar="PIXELS",
        help="shorter side of resized images (default: 320)",
    )
    parser.add_argument(
        "--protocol",
        default="voc07",
        choices=["voc07", "voc10", "coco"],
        help="how mAP is computed (default: voc07, the paper's)",
    )
    add_data_arguments(parser)
    add_json_argument(parser, "all results")


def run(options: argparse.Namespace) -> None:
    """Runs `tables` with its parsed options."""
    start_tensorflow()
    from tf_fast_rcnn.tables.definitions import TABLES
    from tf_fast_rcnn.tables.measuring import measure_tables
    from tf_fast_rcnn.tables.report import write_report

    setup = _setup(options)
    measure_tables(setup, options.only or list(TABLES), options.seeds)
    figures = write_report(setup)
    text = (setup.out / "tables.md").read_text()
    write_result(options, figures, f"{text}\n{setup.out}: tables.md, figures and all results as JSON")


def _setup(options):
    from tf_fast_rcnn.tables.proposals import ProposalStore
    from tf_fast_rcnn.tables.trainings import Setup, base_recipe

    recipe = base_recipe(options.recipe, options.steps, options.shorter_side)
    class_map = parse_class_map(options.classes) if options.classes else None
    train = load_data(options.data, options, class_map=class_map)
    if options.test:
        test = load_data(options.test, options, train.class_names, class_map)
    else:
        train, test = frcnn.split_dataset(train, 0.7)
    return Setup(
        train,
        test,
        recipe,
        options.backbone or recipe.backbone,
        None if options.weights == "none" else options.weights,
        Path(options.out),
        options.protocol,
        ProposalStore(train, options.cache, options.workers, skip_bad=options.skip_bad),
    )
