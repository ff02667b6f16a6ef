"""`tf-fast-rcnn evaluate`: scores a trained detector on a data set."""

from pathlib import Path

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    add_data_arguments,
    add_json_argument,
    load_data,
    start_tensorflow,
    with_proposals,
    write_result,
)
from tf_fast_rcnn.commands.proposal_options import (
    add_file_arguments,
    check_has_proposals,
    read_file,
    refuse_second_proposals,
)
from tf_fast_rcnn.data.selection import parse_classes

EXAMPLES = """\
  tf-fast-rcnn evaluate runs/cells --data voc:cells@test
  tf-fast-rcnn evaluate runs/cells --data voc:cells@test --protocol voc10 --json metrics.json --report report"""


def add_arguments(parser):
    parser.add_argument("folder", metavar="RUN", help="folder that `train` wrote")
    parser.add_argument(
        "--data", required=True, metavar="SPEC", help="images: voc:, coco:, csv:, yolo:, tfds: or prepared:"
    )
    parser.add_argument(
        "--protocol",
        default="voc07",
        choices=["voc07", "voc10", "coco"],
        help="voc07: 11-point average precision (default); voc10: area under the curve; coco: IoU 0.5 to 0.95",
    )
    parser.add_argument("--coco-results", metavar="FILE", help="write the detections as COCO's results JSON")
    parser.add_argument(
        "--category-ids", metavar="JSON", help="COCO file whose category ids they get (default: 1, 2, ...)"
    )
    parser.add_argument(
        "--proposals", metavar="FILE", help="object proposals of these images (default: computed as in training)"
    )
    add_file_arguments(parser)
    parser.add_argument("--report", metavar="DIR", help="write precision-recall curves and metrics.json there")
    add_data_arguments(parser)
    add_json_argument(parser, "the metrics")


def run(options):
    start_tensorflow()
    from tf_fast_rcnn.detection import detect_dataset
    from tf_fast_rcnn.evaluation import score_detections
    from tf_fast_rcnn.evaluation.coco import check_category_ids
    from tf_fast_rcnn.training.run_folder import write_json

    run_ = frcnn.load_run(options.folder)
    classes = parse_classes(options.classes) if options.classes else run_.description.get("classes")
    dataset = load_data(options.data, options, run_.class_names, classes)
    category_ids = None
    if options.category_ids:
        category_ids = frcnn.coco_category_ids(options.category_ids)
        check_category_ids(dataset, category_ids)
    refuse_second_proposals(options, dataset)
    proposals = read_file(options, options.proposals, dataset) if options.proposals else run_.proposals
    if dataset.proposal_settings is None:
        check_has_proposals(proposals)
    dataset = with_proposals(dataset, proposals, options)
    settings = frcnn.detection_settings(run_, score_threshold=0.01)
    detections = list(detect_dataset(run_.model, dataset, settings))
    result = score_detections(dataset, detections, options.protocol)
    if options.coco_results:
        write_json(Path(options.coco_results), frcnn.coco_results(dataset, detections, category_ids))
    if options.report:
        write_report(result, Path(options.report))
    write_result(options, result.to_json(), result.table())


def write_report(result, folder):
    """Writes the metrics with their curves as JSON and as a picture."""
    from tf_fast_rcnn.plots import plot_precision_recall
    from tf_fast_rcnn.training.run_folder import write_json

    plot_precision_recall(result, folder / "precision_recall.png")
    write_json(folder / "metrics.json", result.to_json(curves=True))
