"""`tf-fast-rcnn evaluate`: scores a trained detector on a data set."""

from pathlib import Path

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    add_data_arguments,
    add_json_argument,
    start_tensorflow,
    with_proposals,
    write_result,
)

EXAMPLES = """\
  tf-fast-rcnn evaluate runs/cells --data voc:cells@test
  tf-fast-rcnn evaluate runs/cells --data voc:cells@test --protocol voc10 --json metrics.json --report report"""


def add_arguments(parser):
    parser.add_argument("folder", metavar="RUN", help="folder that `train` wrote")
    parser.add_argument("--data", required=True, metavar="SPEC", help="voc:DIR@SPLIT or prepared:DIR")
    parser.add_argument(
        "--protocol",
        default="voc07",
        choices=["voc07", "voc10", "coco"],
        help="voc07: 11-point average precision (default); voc10: area under the curve; coco: IoU 0.5 to 0.95",
    )
    parser.add_argument("--report", metavar="DIR", help="write precision-recall curves and metrics.json there")
    add_data_arguments(parser)
    add_json_argument(parser, "the metrics")


def run(options):
    start_tensorflow()
    run_ = frcnn.load_run(options.folder)
    dataset = frcnn.load_dataset(options.data, class_names=run_.class_names, skip_bad=options.skip_bad)
    dataset = with_proposals(dataset, run_.proposals, options)
    settings = frcnn.detection_settings(run_, score_threshold=0.01)
    result = frcnn.evaluate(run_.model, dataset, options.protocol, settings=settings)
    if options.report:
        write_report(result, Path(options.report))
    write_result(options, result.to_json(), result.table())


def write_report(result, folder):
    """Writes the metrics with their curves as JSON and as a picture."""
    from tf_fast_rcnn.plots import plot_precision_recall
    from tf_fast_rcnn.training.run_folder import write_json

    plot_precision_recall(result, folder / "precision_recall.png")
    write_json(folder / "metrics.json", result.to_json(curves=True))
