"""`tf-fast-rcnn train`: trains a detector and writes it to the folder RUN."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    add_data_arguments,
    add_hidden_alias,
    add_json_argument,
    load_data,
    number,
    report_fixes,
    seed,
    start_tensorflow,
    with_proposals,
    write_result,
)
from tf_fast_rcnn.commands.proposal_options import (
    add_proposal_arguments,
    check_has_proposals,
    chosen_proposals,
    read_file,
    refuse_second_proposals,
)
from tf_fast_rcnn.data.batches.settings import detection_side
from tf_fast_rcnn.data.proposals import METHODS, FileProposals
from tf_fast_rcnn.data.selection import parse_class_map
from tf_fast_rcnn.data.tiles import tile_fields
from tf_fast_rcnn.errors import InputError

EXAMPLES = """\
  tf-fast-rcnn train --train voc:cells@train --val voc:cells@val --out runs/cells
  tf-fast-rcnn train --train voc:VOC2007@trainval --recipe voc07 --out runs/voc07
  tf-fast-rcnn train --train voc:VOC2007@trainval --proposals voc_2007_trainval.mat --out runs/voc07
  tf-fast-rcnn train --train voc:cells@train --learning-rate 0.0005 --set sampling.hue=0.1 --out runs/cells2
  tf-fast-rcnn train --train voc:more-cells@train --weights runs/cells --out runs/more-cells

After an interruption, run the same command again to continue from the last checkpoint."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `train`."""
    parser.add_argument(
        "--train", required=True, metavar="SPEC", help="training images: voc:, coco:, csv:, yolo:, tfds: or prepared:"
    )
    parser.add_argument("--val", metavar="SPEC", help="validation images, on which mAP is measured after each epoch")
    parser.add_argument("--out", required=True, metavar="RUN", help="a new folder, or that of an interrupted run")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="efficientnet_lite0, vgg16, resnet50, ... or any network of keras.applications (default: the recipe's)",
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|none|FILE|RUN",
        help="weights of the backbone (default: imagenet), or another run to start from",
    )
    _add_recipe_arguments(parser)
    add_proposal_arguments(parser, "the recipe's")
    parser.add_argument(
        "--val-proposals",
        metavar="FILE",
        help="proposal file for --val, if it is not the same file as --proposals",
    )
    parser.add_argument("--roi-pooling", choices=["auto", "native", "portable"], default="auto", help="default: auto")
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="random seed of weights, dropout and mini-batches (default: 0)",
    )
    add_data_arguments(parser)
    add_json_argument(parser, "the summary")


def _add_recipe_arguments(parser):
    parser.add_argument(
        "--recipe",
        default="small-data",
        metavar="NAME|RUN",
        help="small-data (default), voc07, voc0712, voc10, voc12 or coco; or a run, to reuse its recipe",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="KEY=VALUE",
        help="override one recipe value, e.g. optimizer.learning_rate=0.01 or sampling.hue=0.1; an unknown KEY lists "
        "the valid ones",
    )
    parser.add_argument("--steps", type=number(int, 1), metavar="N", help="mini-batches (default: the recipe's)")
    parser.add_argument("--learning-rate", type=number(float, 0, above=True), metavar="X", help="default: the recipe's")
    parser.add_argument(
        "--shorter-side",
        type=number(int, 32),
        metavar="PIXELS",
        help="shorter side of resized images (default: the recipe's)",
    )
    parser.add_argument(
        "--longer-side",
        type=number(int, 32),
        metavar="PIXELS",
        help="limit for the longer side of resized images (default: the recipe's)",
    )
    parser.add_argument(
        "--tile",
        metavar="PIXELS|auto|none",
        help="see large images in square tiles with this side, in pixels of the image (default: the recipe's: auto, "
        "chosen from the objects' sizes)",
    )
    parser.add_argument(
        "--overlap",
        metavar="SHARE",
        help="overlap of tiles, as a share of their side (default: chosen from the objects' sizes)",
    )
    parser.add_argument(
        "--finetune-from",
        metavar="LAYER",
        help="first layer of the backbone to fine-tune; earlier ones are frozen (default: the recipe's)",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "mixed_bfloat16", "mixed_float16"],
        help="precision of the layers (default: the recipe's)",
    )
    parser.add_argument(
        "--early-stopping",
        type=number(int, 1),
        metavar="EPOCHS",
        help="stop after this many epochs without a better mAP on --val, and keep the best model",
    )
    add_hidden_alias(parser, "--learning-rate", "--rate")
    add_hidden_alias(parser, "--finetune-from", "--tune-from")


def run(options: argparse.Namespace) -> None:
    """Runs `train` with its parsed options."""
    start_tensorflow()
    from tf_fast_rcnn.evaluation.models import ValidationMap
    from tf_fast_rcnn.models.backbones import check_backbone
    from tf_fast_rcnn.training.settings import check_classes
    from tf_fast_rcnn.training.training_data import training_data

    recipe = frcnn.recipe(options.recipe, _changes(options))
    weights = None if options.weights == "none" else options.weights
    if weights is None or not Path(weights).is_dir():  # a folder is another RUN
        check_backbone(options.backbone or recipe.backbone, weights)
    if recipe.early_stopping and not options.val:
        raise InputError("--early-stopping needs validation images; pass --val SPEC")
    class_map = parse_class_map(options.classes) if options.classes else None
    train = load_data(options.train, options, class_map=class_map)
    check_classes(recipe, train)  # before computing proposals, which takes long
    refuse_second_proposals(options, train)
    validation = None
    if options.val:
        validation = load_data(options.val, options, train.class_names, class_map)
    data = training_data(
        train,
        recipe,
        _proposals(options, train, recipe),
        backbone=options.backbone,
        weights=weights,
        seed=options.seed,
        workers=options.workers,
        cache_dir=options.cache,
        skip_bad=options.skip_bad,
    )
    report_fixes(data.dataset)
    callbacks = []
    if validation is not None:
        validation = with_proposals(validation, _validation_proposals(options, validation, data.proposals), options)
        settings = _detection_settings(data.recipe)
        pictures = Path(options.out) / "tensorboard" / "validation"
        callbacks.append(ValidationMap(validation, settings, tensorboard=pictures))
    summary = frcnn.train(
        data,
        options.out,
        backbone=options.backbone,
        weights=weights,
        roi_pooling=options.roi_pooling,
        seed=options.seed,
        class_map=class_map,
        callbacks=callbacks,
    )
    write_result(options, dataclasses.asdict(summary), _summary_text(summary, options))


def _proposals(options, train, recipe):
    """The `FileProposals` of a file, or a function that fits the chosen method to what training sees."""
    if train.proposals is not None:
        return None
    if options.proposals is not None and options.proposals not in METHODS:
        return chosen_proposals(options, train)
    return lambda images: chosen_proposals(options, images, recipe.proposals)


def _detection_settings(recipe):
    """The `DetectionSettings` with which the model of a recipe without "auto" detects."""
    return frcnn.DetectionSettings(
        detection_side(recipe.sampling.shorter_side),
        recipe.sampling.longer_side,
        nms_iou_threshold=recipe.nms_iou_threshold,
        screening_rank=recipe.screening_rank,
        **tile_fields(recipe.tiles),
    )


# Option -> the recipe value it sets.
_RECIPE_OPTIONS = {
    "steps": "steps",
    "learning_rate": "optimizer.learning_rate",
    "shorter_side": "sampling.shorter_side",
    "longer_side": "sampling.longer_side",
    "finetune_from": "network.finetune_from",
    "dtype": "dtype",
    "tile": "tile",
    "overlap": "tile_overlap",
    "early_stopping": "early_stopping",
}


def _setting(text):
    """The `type` of --set: KEY=VALUE as a pair."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected KEY=VALUE, e.g. optimizer.learning_rate=0.01")
    return name, value


def _changes(options):
    """The recipe values that the options set, by dotted name; --set takes precedence."""
    given = {setting: getattr(options, name) for name, setting in _RECIPE_OPTIONS.items()}
    if options.proposals in METHODS:
        given["proposals"] = options.proposals
    return {name: value for name, value in given.items() if value is not None} | dict(options.set)


def _validation_proposals(options, validation, proposals):
    """The validation images' proposals: from their own file, else by training's method or file."""
    if validation.proposals is not None:
        return validation.proposals
    if options.val_proposals:
        return read_file(options, options.val_proposals, validation)
    read_again = isinstance(proposals, FileProposals) and options.proposals
    if read_again:
        return read_file(options, options.proposals, validation)
    check_has_proposals(proposals)
    return proposals


def _summary_text(summary, options):
    lines = [f"{summary.steps} mini-batches in {summary.seconds:.0f} s, last loss {summary.loss:.3f}"]
    if summary.validation_map is not None:
        lines.append(f"validation mAP {summary.validation_map:.3f}")
    lines.append(f"{summary.run}: model.keras, run.json, losses.png, log.jsonl, tensorboard/")
    lines.append(f"next: tf-fast-rcnn evaluate {summary.run} --data SPEC, or tf-fast-rcnn detect {summary.run} IMAGE")
    return "\n".join(lines)
