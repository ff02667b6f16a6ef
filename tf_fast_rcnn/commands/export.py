"""`tf-fast-rcnn export`: writes a trained detector as a SavedModel."""

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import add_json_argument, start_tensorflow, write_result
from tf_fast_rcnn.commands.detection_options import add_detection_arguments, chosen_settings

EXAMPLES = """\
  tf-fast-rcnn export runs/cells --out serving/cells/1
  saved_model_cli show --dir serving/cells/1 --all"""


def add_arguments(parser):
    parser.add_argument("folder", metavar="RUN", help="folder that `train` wrote")
    parser.add_argument("--format", default="saved-model", choices=["saved-model"], help="default: saved-model")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="a new folder; its name is the version in TensorFlow Serving"
    )
    parser.add_argument(
        "--roi-pooling",
        default="portable",
        choices=["portable", "native"],
        help="portable (default) runs on any server; native needs one with the compiled op linked in",
    )
    add_detection_arguments(parser)
    add_json_argument(parser, "the summary")


def run(options):
    start_tensorflow()
    run_ = frcnn.load_run(options.folder)
    settings = chosen_settings(options, run_)
    frcnn.export_saved_model(
        run_.model, options.out, class_names=run_.class_names, settings=settings, roi_pooling=options.roi_pooling
    )
    text = (
        f"{options.out}: SavedModel with {options.roi_pooling} RoI pooling; signatures serving_default, regions, "
        "predict_tensors"
    )
    write_result(options, {"saved_model": str(options.out), "class_names": list(run_.class_names)}, text)
