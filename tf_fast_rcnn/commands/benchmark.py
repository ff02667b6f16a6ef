"""`tf-fast-rcnn benchmark NAME`: benchmarks this machine against other libraries and hardware limits."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from tf_fast_rcnn.commands import (
    benchmark_detection,
    benchmark_proposals,
    benchmark_serving,
    benchmark_tiles,
    benchmark_training,
)
from tf_fast_rcnn.commands.common import add_json_argument, in_a_fresh_process, number, write_result
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.visualization.plots import plot_sampling_speed

EXAMPLES = """\
  tf-fast-rcnn benchmark roi-pooling
  tf-fast-rcnn benchmark roi-pooling --rois 300 2000 --threads 1 2 --json roi_pooling.json
  tf-fast-rcnn benchmark sampling --data voc:cells@trainval --plot sampling.png
  tf-fast-rcnn benchmark sampling --data voc:cells@trainval --backbone vgg16 --at-once 4 --steps 1
  tf-fast-rcnn benchmark training --network vgg16 --plot training.png
  tf-fast-rcnn benchmark detection --network vgg16 --proposals 300 2000 --dtype bfloat16 --plot detection.png
  tf-fast-rcnn benchmark proposals --data voc:cells@test --mode fast quality --growth 250 1000 4000 --plot growth.png
  tf-fast-rcnn benchmark serving --soak 600 --json serving.json
  tf-fast-rcnn benchmark tiles runs/drones --data voc:drones@val --json tiles.json

The other libraries are extras: pip install '.[benchmark]' installs ONNX Runtime and OpenVINO, '.[pytorch]' installs
PyTorch, which is large. Libraries that are not installed are skipped with a note.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a subcommand with options for each benchmark."""
    names = parser.add_subparsers(metavar="NAME", required=True, title="benchmarks")
    roi_pooling = names.add_parser(
        "roi-pooling", help="RoI pooling and its gradient, against ONNX Runtime and OpenVINO"
    )
    _add_roi_pooling_arguments(roi_pooling)
    roi_pooling.set_defaults(measure=_measure_roi_pooling)
    sampling = names.add_parser(
        "sampling", help="cost of a mini-batch of R RoIs from N images: hierarchical and RoI-centric"
    )
    _add_sampling_arguments(sampling)
    sampling.set_defaults(measure=_measure_sampling)
    training = names.add_parser("training", help="time and memory of a training step and its parts, against PyTorch")
    benchmark_training.add_arguments(training)
    training.set_defaults(measure=benchmark_training.measure)
    detection = names.add_parser("detection", help="time of each stage of detection, against PyTorch and OpenVINO")
    benchmark_detection.add_arguments(detection)
    detection.set_defaults(measure=benchmark_detection.measure)
    proposals = names.add_parser("proposals", help="time and recall of selective search, against OpenCV's")
    benchmark_proposals.add_arguments(proposals)
    proposals.set_defaults(measure=benchmark_proposals.measure)
    serving = names.add_parser("serving", help="the embedded server, against calling the model directly")
    benchmark_serving.add_arguments(serving)
    serving.set_defaults(measure=benchmark_serving.measure)
    tiles = names.add_parser("tiles", help="detection in tiles, against SAHI with the same detector")
    benchmark_tiles.add_arguments(tiles)
    tiles.set_defaults(measure=benchmark_tiles.measure)


def run(options: argparse.Namespace) -> None:
    """Runs the chosen benchmark."""
    options.measure(options)


def _add_roi_pooling_arguments(parser):
    count = number(int, 1)
    parser.add_argument("--rois", type=count, nargs="+", default=[300, 2000], metavar="N", help="default: 300 2000")
    parser.add_argument("--threads", type=count, nargs="+", default=[2], metavar="N", help="default: 2")
    parser.add_argument("--channels", type=count, default=512, metavar="N", help="default: 512")
    parser.add_argument("--rounds", type=count, default=15, metavar="N", help="timed runs of each (default: 15)")
    add_json_argument(parser, "the measurements")


def _measure_roi_pooling(options):
    results = [
        in_a_fresh_process(_roi_pooling, rois, threads, options.rounds, options.channels)
        for rois in options.rois
        for threads in options.threads
    ]
    write_result(options, results, "\n\n".join(map(_roi_pooling_table, results)))


def _roi_pooling(*arguments):
    from tf_fast_rcnn.benchmarks.roi_pooling import measure_roi_pooling

    return measure_roi_pooling(*arguments)


def _roi_pooling_table(result):
    milliseconds, times_floor = result["milliseconds"], result["times_floor"]
    native = milliseconds.get("native")
    lines = [
        f"{result['rois']} RoIs to 7 x 7 of 1 x 38 x 63 x {result['channels']} float32, {result['threads']} thread(s)",
        f"{'':24}{'ms':>10}{'x floor':>10}{'x native':>10}",
    ]
    for name, of_this in milliseconds.items():
        times_native = f"{of_this / native:10.2f}" if native else f"{'-':>10}"
        lines.append(f"{name:24}{of_this:10.1f}{times_floor[name]:10.2f}{times_native}")
    lines.append(f"portable: {result['portable_extra_mb']:.0f} MB in addition to its output in the first run")
    lines += [f"{name} skipped: {reason}" for name, reason in result["missing"].items()]
    return "\n".join(lines)


def _add_sampling_arguments(parser):
    count = number(int, 1)
    powers = [2**power for power in range(8)]
    parser.add_argument("--data", required=True, metavar="SPEC", help="images to train on")
    parser.add_argument("--backbone", default="efficientnet_lite0", metavar="NAME", help="default: efficientnet_lite0")
    parser.add_argument("--images", type=count, nargs="+", default=powers, metavar="N", help="default: 1 2 4 ... 128")
    parser.add_argument("--rois", type=count, default=128, metavar="R", help="per mini-batch (default: 128)")
    parser.add_argument("--shorter-side", type=count, default=600, metavar="PIXELS", help="default: 600")
    parser.add_argument(
        "--at-once",
        type=count,
        metavar="N",
        help="most images processed at once; larger mini-batches accumulate gradients",
    )
    parser.add_argument(
        "--steps", type=count, default=3, metavar="N", help="timed mini-batches or parts of one (default: 3)"
    )
    parser.add_argument("--cache", metavar="DIR", help="cache folder for proposals (default: the user's cache)")
    parser.add_argument("--plot", metavar="FILE", help="plot RoIs per second over N")
    add_json_argument(parser, "the measurements")


def _measure_sampling(options):
    if odd := [images for images in options.images if options.rois % images]:
        raise InputError(
            f"--images: found {odd[0]}; expected divisors of {options.rois}, the RoIs per mini-batch; change --images "
            "or --rois"
        )
    results = []
    for images in tqdm(options.images, "numbers of images", unit="run"):
        arguments = (options.data, options.backbone, images, options.rois, options.shorter_side)
        results.append(in_a_fresh_process(_sampling, *arguments, options.at_once, options.steps, options.cache))
    if options.plot:
        plot_sampling_speed(results, options.plot)
    write_result(options, results, _sampling_table(results))


def _sampling(*arguments):
    from tf_fast_rcnn.benchmarks.sampling import measure_sampling

    return measure_sampling(*arguments)


def _sampling_table(results):
    first = results[0]
    slowest = max(result["seconds"] for result in results)
    lines = [
        f"{first['backbone']}, {first['rois']} RoIs per mini-batch, shorter side {first['shorter_side']}",
        f"{'N images':>8}{'s / mini-batch':>16}{'RoIs / s':>10}{'memory GB':>11}{'faster':>8}",
    ]
    for result in results:
        line = f"{result['images']:8}{result['seconds']:16.2f}{result['rois_per_second']:10.1f}"
        line += f"{result['memory_gb']:11.1f}{slowest / result['seconds']:7.1f}x"
        if result["parts"] > 1:
            line += f"  gradients of {result['parts']} parts accumulated, {result['parts_timed']} parts timed"
        lines.append(line)
    return "\n".join(lines)
