"""`tf-fast-rcnn export --format tflite`: writes a trained detector as a TF Lite file."""

import argparse
from pathlib import Path

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import number, write_result
from tf_fast_rcnn.commands.detection_options import chosen_settings
from tf_fast_rcnn.commands.proposal_options import check_has_proposals
from tf_fast_rcnn.data.proposals import ProposalSettings, compute_proposals
from tf_fast_rcnn.data.specs import load_images
from tf_fast_rcnn.errors import InputError

PRECISIONS = ("float32", "float16", "dynamic", "int8")
_CALIBRATION_IMAGES = 32
OPTIONS = ("image_size", "num_proposals", "precision", "calibration", "calibration_images")


def add_arguments(parser):
    group = parser.add_argument_group("of --format tflite")
    group.add_argument(
        "--image-size", type=_size, metavar="H,W", help="fixed size of images, which runs faster (default: any)"
    )
    group.add_argument(
        "--num-proposals", type=number(int, 1), metavar="N", help="fixed number of an image's proposals (default: any)"
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="float16: weights of half the size; dynamic: of a quarter; int8: layers compute in 8 bits, RoIs and boxes "
        "do not (default: float32)",
    )
    group.add_argument("--calibration", metavar="SPEC", help="images that show int8 the range of values: training's")
    group.add_argument(
        "--calibration-images",
        type=number(int, 1),
        metavar="N",
        help=f"so many of them, evenly chosen (default: {_CALIBRATION_IMAGES})",
    )


def run(options):
    """Exports what `options` say; `folder` and `out` are those of `export`."""
    precision = options.precision or "float32"
    if precision == "int8" and not options.calibration:
        raise InputError(
            "--precision int8: found no --calibration; expected images like those to come; give the SPEC of training"
        )
    if precision != "int8" and (options.calibration or options.calibration_images):
        raise InputError(f"--calibration: found --precision {precision}; expected int8; leave one of them out")
    if Path(options.out).suffix != ".tflite":
        raise InputError(f"--out: found {options.out}; expected a name that ends in .tflite; add it")
    run_ = frcnn.load_run(options.folder)
    settings = chosen_settings(options, run_)
    frcnn.export_tflite(
        run_.model,
        options.out,
        class_names=run_.class_names,
        settings=settings,
        image_size=options.image_size,
        num_proposals=options.num_proposals,
        precision=precision,
        calibration=list(_calibration(options, run_)) if precision == "int8" else (),
        proposals=run_.proposals if isinstance(run_.proposals, ProposalSettings) else None,
    )
    size = Path(options.out).stat().st_size
    text = f"{options.out}: {precision}, {size / 1e6:.1f} MB, for {_inputs(options)}\nnext: tf-fast-rcnn evaluate "
    text += f"{options.out} --data SPEC, or tf-fast-rcnn detect {options.out} IMAGE"
    result = {"tflite": str(options.out), "bytes": size, "precision": precision, "class_names": list(run_.class_names)}
    write_result(options, result, text)


def _calibration(options, run_):
    """Pairs of an image and its proposals, as `export_tflite` takes them."""
    dataset = load_images(options.calibration, run_.class_names)
    count = min(len(dataset), options.calibration_images or _CALIBRATION_IMAGES)
    for index in range(count):
        record = dataset[index * len(dataset) // count]
        if dataset.proposal_settings is None:
            check_has_proposals(run_.proposals)
            proposals = compute_proposals(record.image(), run_.proposals)
        else:
            proposals = record.proposals()
        yield record.image(), proposals[: options.num_proposals]


def _inputs(options):
    size = "images of {} x {} pixels".format(*options.image_size) if options.image_size else "images of any size"
    return f"{size} and {options.num_proposals or 'any number of'} proposals"


def _size(text):
    """(H, W) of "480,640"."""
    try:
        height, width = map(number(int, 32, 8192), text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected height,width in pixels from 32 to 8192, as in 480,640"
        ) from None
    return height, width
