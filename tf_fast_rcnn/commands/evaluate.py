"""`tf-fast-rcnn evaluate`: scores a trained or exported detector, or the detections of another tool, on a dataset."""

import argparse
from pathlib import Path

import numpy as np

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    SOURCES,
    add_data_arguments,
    add_json_argument,
    given_options,
    load_data,
    number,
    report_fixes,
    seed,
    start_tensorflow,
    write_result,
)
from tf_fast_rcnn.commands.detection_options import (
    add_nms_arguments,
    add_screening_argument,
    add_tile_arguments,
    nms_settings,
    screening_settings,
    tile_settings,
)
from tf_fast_rcnn.commands.proposal_options import (
    add_file_arguments,
    method_or_file,
    with_chosen_proposals,
)
from tf_fast_rcnn.data.image_names import KINDS as IMAGES_BY
from tf_fast_rcnn.data.proposals import METHODS
from tf_fast_rcnn.data.selection import parse_class_map
from tf_fast_rcnn.data.specs import coco_file
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import write_json

EXAMPLES = """\
  tf-fast-rcnn evaluate runs/cells --data voc:cells@test
  tf-fast-rcnn evaluate runs/cells --data voc:cells@test --protocol voc10 --confidence --report report
  tf-fast-rcnn evaluate serving/cells/1 --data prepared:prepared/test          # an exported SavedModel
  tf-fast-rcnn evaluate cells.tflite --data voc:cells@test
  tf-fast-rcnn evaluate grpc://127.0.0.1:8500/cells --data voc:cells@test --proposals dense
  tf-fast-rcnn evaluate http://127.0.0.1:8501/v1/models/cells --data prepared:prepared/test
  tf-fast-rcnn evaluate --detections results.json --data coco:instances_val.json,val --protocol coco
  tf-fast-rcnn evaluate runs/cells --data voc:cells@test --iou 0.75 --max-detections 300
  tf-fast-rcnn evaluate --detections 'results/comp4_det_test_*.txt' --data voc:VOC2007@test --report report

Then open index.html in the report's folder; it needs no network."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `evaluate`."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help=SOURCES,
    )
    parser.add_argument(
        "--detections",
        metavar="FILE",
        help="instead of MODEL: a COCO results file (.json), or VOC comp4 files as a folder or pattern",
    )
    parser.add_argument(
        "--data", required=True, metavar="SPEC", help="images: voc:, coco:, csv:, yolo:, tfds: or prepared:"
    )
    parser.add_argument(
        "--protocol",
        default="voc07",
        choices=["voc07", "voc10", "coco"],
        help="voc07: 11-point average precision (default); voc10: area under the curve; coco: IoU 0.5 to 0.95",
    )
    parser.add_argument(
        "--iou",
        type=number(float, 0, 1, above=True),
        metavar="X",
        help="minimum IoU of a match under voc07 and voc10 (default: 0.5)",
    )
    parser.add_argument(
        "--max-detections",
        type=number(int, 1),
        metavar="N",
        help="detections per image that MODEL keeps, and per image and class that count under coco (default: 100 each)",
    )
    _add_detection_arguments(parser)
    parser.add_argument(
        "--confidence",
        nargs="?",
        type=number(float, 0, 0.999, above=True),
        const=0.95,
        metavar="X",
        help="add confidence intervals of this level (default: 0.95), by bootstrapping the images",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="random seed of --confidence (default: 0)")
    parser.add_argument("--coco-results", metavar="FILE", help="write the detections as COCO's results JSON")
    parser.add_argument(
        "--category-ids",
        metavar="JSON|0|1",
        help="COCO file with the category ids of COCO results, or the number of the first class, from which the others "
        "are counted (default: those of --data coco:, otherwise 1)",
    )
    parser.add_argument(
        "--images-by",
        choices=IMAGES_BY,
        metavar="NAME",
        help="what --detections calls the images: id, file (name), stem (name without extension), number (at its end), "
        "order-0 or order-1 (number in the order of the images, from 0 or 1) (default: id, file, stem or number, "
        "whichever fits)",
    )
    parser.add_argument(
        "--proposals",
        type=method_or_file,
        metavar="METHOD|FILE",
        help=f"object proposals of these images: {', '.join(METHODS)}, or a file (default: computed as in training, or "
        "selective-search+dense if that is unknown)",
    )
    add_file_arguments(parser)
    parser.add_argument(
        "--report", metavar="DIR", help="write a report there: index.html with curves, errors and images"
    )
    add_data_arguments(parser)
    add_json_argument(parser, "the metrics")


def run(options: argparse.Namespace) -> None:
    """Runs `evaluate` with its parsed options."""
    start_tensorflow()
    from tf_fast_rcnn.data.writers.coco_results import check_category_ids
    from tf_fast_rcnn.evaluation import score_detections
    from tf_fast_rcnn.evaluation.analysis import analyse
    from tf_fast_rcnn.evaluation.confidence import with_confidence
    from tf_fast_rcnn.evaluation.report import write_report

    _check_scoring(options)
    predictor = _predictor(options)
    class_map = parse_class_map(options.classes) if options.classes else predictor.class_map
    dataset = load_data(options.data, options, predictor.class_names, class_map)
    category_ids = None
    if options.coco_results:
        category_ids = _category_ids(options, renamed=class_map)
        check_category_ids(dataset, category_ids)  # before the slow detection
    if predictor.takes_proposals or options.proposals:
        dataset = with_chosen_proposals(options, dataset, predictor.proposals)
    else:
        report_fixes(dataset)
    detections = predictor.detect(dataset)
    result = score_detections(dataset, detections, options.protocol, options.iou or 0.5, options.max_detections)
    if options.confidence:
        result = with_confidence(result, options.confidence, seed=options.seed)
    analysis = analyse(dataset, detections, result)
    if options.coco_results:
        write_json(Path(options.coco_results), frcnn.coco_results(dataset, detections, category_ids))
    text = "\n".join(filter(None, [result.table(), _limit_text(dataset, predictor), analysis.text()]))
    if options.report:
        write_report(options.report, dataset, detections, result, analysis, predictor.name, predictor.description)
        text += f"\nopen {options.report}/index.html"
    write_result(options, result.to_json() | analysis.to_json(), text)


def _check_scoring(options):
    """Raises an InputError for options that would have no effect."""
    if options.iou and options.protocol == "coco":
        raise InputError(
            "--iou: found it with --protocol coco; expected voc07 or voc10, because COCO averages over ten IoU "
            "thresholds; leave it out and see AP50 and AP75"
        )
    if options.max_detections and options.detections and options.protocol != "coco":
        raise InputError(
            f"--max-detections: found it with --detections and --protocol {options.protocol}; expected MODEL or "
            "--protocol coco, because all detections of a file count under VOC; leave it out"
        )


def _limit_text(dataset, predictor):
    """A line for images with more objects than the detections that the model keeps in an image; else empty."""
    if predictor.settings is None or not predictor.takes_proposals:
        return ""
    limit = predictor.settings.max_detections
    numbers = [np.count_nonzero(~(record.difficult | record.crowd)) for record in dataset]
    crowded = sum(number > limit for number in numbers)
    if not crowded:
        return ""
    return (
        f"{crowded} images have more objects (up to {max(numbers)}) than the {limit} detections kept in each "
        "(--max-detections changes this limit)"
    )


def _predictor(options):
    from tf_fast_rcnn.evaluation.models import file_predictor, for_evaluation

    if bool(options.model) == bool(options.detections):
        found = "both" if options.model else "neither"
        raise InputError(f"MODEL and --detections: found {found}; expected one of them; pass what to evaluate")
    if options.images_by and not options.detections:
        raise InputError("--images-by is only used with --detections; remove it")
    given = given_options(options, _add_detection_arguments)
    if options.model:
        predictor = frcnn.Predictor.load(options.model)
        if not predictor.adjustable:
            _check_fixed(options, given)
            return predictor
        changes = nms_settings(options) | tile_settings(options, predictor) | screening_settings(options)
        return for_evaluation(predictor.with_settings(**changes), options.max_detections)
    if given:
        raise InputError(f"{given[0]}: found it with --detections; expected a RUN; leave it out")
    return file_predictor(options.detections, _category_ids(options, renamed=options.classes), options.images_by)


def _add_detection_arguments(parser):
    """Adds the options that change how a RUN detects."""
    add_nms_arguments(parser)
    add_tile_arguments(parser)
    add_screening_argument(parser)


def _check_fixed(options, given):
    """Raises an InputError for options that change the settings of a model which has those of its export."""
    if options.max_detections and options.protocol != "coco":
        given = ["--max-detections", *given]
    if given:
        raise InputError(
            f"{given[0]}: found it with {options.model}; expected a RUN, because an exported model keeps the settings "
            f"of its export; export it with {given[0]}"
        )


def _category_ids(options, renamed):
    """Category id by class name, from the COCO file, or the first class's number; None (ids 1..K) if there is none."""
    if options.category_ids in ("0", "1"):
        return int(options.category_ids)
    path = options.category_ids or (None if renamed else coco_file(options.data))
    return frcnn.coco_category_ids(path) if path else None
