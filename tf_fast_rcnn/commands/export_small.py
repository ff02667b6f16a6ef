"""`tf-fast-rcnn export --format tflite` and `--format tfjs`: detectors for phones and browsers."""

from __future__ import annotations

import argparse
from pathlib import Path

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import number, start_tensorflow, write_result
from tf_fast_rcnn.commands.detection_options import chosen_settings
from tf_fast_rcnn.commands.proposal_options import check_has_proposals
from tf_fast_rcnn.data.proposals import ProposalSettings, compute_proposals, in_tiles
from tf_fast_rcnn.data.specs import load_images
from tf_fast_rcnn.errors import InputError

_PRECISIONS = {"tflite": ("float32", "float16", "dynamic", "int8"), "tfjs": ("float32", "float16")}
_CALIBRATION_IMAGES = 32


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Adds the options that only `--format tflite` and `--format tfjs` accept."""
    parser.add_argument(
        "--image-size", type=_size, metavar="H,W", help="fixed image size, which runs faster (default: any)"
    )
    parser.add_argument(
        "--num-proposals", type=number(int, 1), metavar="N", help="fixed number of proposals per image (default: any)"
    )
    parser.add_argument(
        "--precision",
        choices=_PRECISIONS["tflite"],
        default="float32",
        help="float16 halves the size of the weights; tflite only: dynamic stores them in a quarter of the size, int8 "
        "also computes the layers, but not RoIs and boxes, in 8 bits (default: float32)",
    )
    parser.add_argument(
        "--calibration", metavar="SPEC", help="images from which int8 learns the value ranges: those of training"
    )
    parser.add_argument(
        "--calibration-images",
        type=number(int, 1),
        metavar="N",
        default=_CALIBRATION_IMAGES,
        help=f"number of images used, evenly spaced (default: {_CALIBRATION_IMAGES})",
    )


def run(options: argparse.Namespace) -> None:
    """Exports a run; `options` include `folder`, `format` and `out` of `export`."""
    _check(options)
    start_tensorflow()
    run_ = frcnn.load_run(options.folder)
    settings = chosen_settings(options, run_)
    proposals = in_tiles(run_.proposals, settings.tiles)
    arguments = {
        "class_names": run_.class_names,
        "settings": settings,
        "image_size": options.image_size,
        "num_proposals": options.num_proposals,
        "precision": options.precision,
        "proposals": proposals if isinstance(proposals, ProposalSettings) else None,
    }
    out = Path(options.out)
    if options.format == "tflite":
        calibration = list(_calibration(options, run_)) if options.calibration else ()
        frcnn.export_tflite(run_.model, out, calibration=calibration, **arguments)
        written = [out]
        next_ = f"next: tf-fast-rcnn evaluate {out} --data SPEC, or tf-fast-rcnn detect {out} IMAGE"
    else:
        frcnn.export_tfjs(run_.model, out, **arguments)
        written = list(out.iterdir())
        next_ = "next: use it in a web page; see examples/browser/README.md"
    size = sum(path.stat().st_size for path in written)
    result = {
        "format": options.format,
        "path": str(out),
        "bytes": size,
        "precision": options.precision,
        "class_names": list(run_.class_names),
    }
    text = f"{out}: {options.format}, {options.precision}, {size / 1e6:.1f} MB, for {_inputs(options)}\n{next_}"
    write_result(options, result, text)


def _check(options):
    """Checks the options before a model is loaded."""
    if options.precision not in _PRECISIONS[options.format]:
        known = ", ".join(_PRECISIONS[options.format])
        raise InputError(
            f"--precision: found {options.precision}; expected one of {known} for {options.format}; choose one of them"
        )
    if options.precision == "int8" and not options.calibration:
        raise InputError("--precision int8 needs images for calibration; pass --calibration with the SPEC of training")
    if options.precision != "int8" and options.calibration:
        raise InputError(
            f"--calibration is only used with --precision int8, not {options.precision}; remove one of them"
        )
    if options.format == "tflite" and Path(options.out).suffix != ".tflite":
        raise InputError(f"--out: found {options.out}; expected a file name ending in .tflite; add the ending")


def _calibration(options, run_):
    """Pairs of an image and its proposals, as `export_tflite` expects them."""
    dataset = load_images(options.calibration, run_.class_names)
    count = min(len(dataset), options.calibration_images)
    for index in range(count):
        record = dataset[index * len(dataset) // count]
        if dataset.proposals is None:
            check_has_proposals(run_.proposals)
            proposals = compute_proposals(record.image(), in_tiles(run_.proposals, None))
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
            f"found {text!r}; expected height,width in pixels from 32 to 8192, e.g. 480,640"
        ) from None
    return height, width
