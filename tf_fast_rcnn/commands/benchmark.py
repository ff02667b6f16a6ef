"""`tf-fast-rcnn benchmark NAME`: measures this machine, beside peers and physical floors."""

import concurrent.futures
import multiprocessing

from tf_fast_rcnn.commands.common import add_json_argument, number, start_tensorflow, write_result

EXAMPLES = """\
  tf-fast-rcnn benchmark roi-pooling
  tf-fast-rcnn benchmark roi-pooling --rois 300 2000 --threads 1 2 --json roi_pooling.json

Peers come by the extra "benchmark" (pip install '.[benchmark]'); those that are not installed are left out with a word.
"""


def add_arguments(parser):
    names = parser.add_subparsers(metavar="NAME", required=True, title="benchmarks")
    roi_pooling = names.add_parser("roi-pooling", help="RoI pooling and its gradient, beside ONNX Runtime and OpenVINO")
    _add_roi_pooling_arguments(roi_pooling)
    roi_pooling.set_defaults(measure=_measure_roi_pooling)


def run(options):
    options.measure(options)


def _in_a_fresh_process(function, *arguments):
    """What `function` returns: each measurement sets TensorFlow's threads and starts with no memory in use."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, initializer=start_tensorflow) as process:
        return process.submit(function, *arguments).result()


def _add_roi_pooling_arguments(parser):
    count = number(int, 1)
    parser.add_argument("--rois", type=count, nargs="+", default=[300, 2000], metavar="N", help="default: 300 2000")
    parser.add_argument("--threads", type=count, nargs="+", default=[2], metavar="N", help="default: 2")
    parser.add_argument("--channels", type=count, default=512, metavar="N", help="default: 512")
    parser.add_argument("--rounds", type=count, default=15, metavar="N", help="runs of each (default: 15)")
    add_json_argument(parser, "the measurements")


def _measure_roi_pooling(options):
    results = [
        _in_a_fresh_process(_roi_pooling, rois, threads, options.rounds, options.channels)
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
    lines.append(f"portable: {result['portable_extra_mb']:.0f} MB beside its output in the first run")
    lines += [f"{name} left out: {reason}" for name, reason in result["missing"].items()]
    return "\n".join(lines)
