"""`tf-fast-rcnn benchmark training`: time and memory of a training step, against PyTorch."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from tf_fast_rcnn.commands.common import add_json_argument, in_a_fresh_process, number, write_result
from tf_fast_rcnn.visualization.plots import plot_parts

NETWORKS = ("vgg16", "efficientnet_lite0")
DTYPES = ("float32", "bfloat16")


def add_network_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    """Adds the options that `training` and `detection` share; `rounds` is the default of `--rounds`."""
    count = number(int, 1)
    parser.add_argument(
        "--network", nargs="+", default=NETWORKS, metavar="NAME", help="backbones (default: vgg16 efficientnet_lite0)"
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="default: both")
    parser.add_argument("--shorter-side", type=number(int, 32), default=600, metavar="PIXELS", help="default: 600")
    parser.add_argument(
        "--rounds", type=count, default=rounds, metavar="N", help=f"timed runs of each (default: {rounds})"
    )
    parser.add_argument("--threads", type=count, default=2, metavar="N", help="default: 2")
    parser.add_argument("--plot", metavar="FILE", help="plot the time of each part")
    add_json_argument(parser, "the measurements")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the benchmark."""
    add_network_arguments(parser, rounds=3)


def measure(options: argparse.Namespace) -> None:
    """Runs the benchmark with its parsed options."""
    results = [_measure_network(network, options) for network in options.network]
    if options.plot:
        plot_parts({f"{result['network']}, a training step": result["parts"] for result in results}, options.plot)
    write_result(options, results, "\n\n".join(map(_table, results)))


def _measure_network(network, options):
    """One network's results: those of `measure_training`, plus each contestant's memory."""
    size = [options.shorter_side, round(options.shorter_side * 4 / 3)]
    result = in_a_fresh_process(_training, network, options.dtype, size, options.rounds, options.threads)
    memory = {}
    for contestant in tqdm(result["seconds"], f"{network}: memory", unit="run", delay=2, leave=False):
        name, dtype = contestant.split(", ")
        memory[contestant] = in_a_fresh_process(_memory, network, name, dtype, size, options.threads) / 1e9
    return {"network": network, "image": size, "threads": options.threads, **result, "memory_gb": memory}


def _training(*arguments):
    from tf_fast_rcnn.benchmarks.training import measure_training

    return measure_training(*arguments)


def _memory(*arguments):
    from tf_fast_rcnn.benchmarks.training import measure_training_memory

    return measure_training_memory(*arguments)


def _table(result):
    height, width = result["image"]
    parts = dict.fromkeys(part for shares in result["parts"].values() for part in shares)
    lines = [
        f"{result['network']}: seconds per step on 2 images of {height}x{width} with 128 RoIs, "
        f"{result['threads']} thread(s)",
        f"{'':20}{'step':>8}{'GB':>7}" + "".join(f"{part:>17}" for part in parts),
    ]
    for name, seconds in result["seconds"].items():
        shares = [result["parts"][name].get(part) for part in parts]
        cells = "".join(f"{'-' if share is None else format(share, '.3f'):>17}" for share in shares)
        lines.append(f"{name:20}{seconds:8.3f}{result['memory_gb'][name]:7.2f}{cells}")
    lines += _ratios(result["seconds"], result["memory_gb"])
    if result["missing"]:
        lines.append(f"PyTorch skipped: {result['missing']}; install it with pip install '.[pytorch]'")
    return "\n".join(lines)


def _ratios(seconds, memory):
    lines = []
    for dtype in DTYPES:
        ours, peer = f"ours, {dtype}", f"PyTorch, {dtype}"
        if peer in seconds:
            times, share = seconds[peer] / seconds[ours], memory[ours] / memory[peer]
            lines.append(
                f"{dtype}: {times:.2f} times as fast as PyTorch (without its RoI pooling), {share:.2f} x its memory"
            )
    ours, half = (seconds.get(f"ours, {dtype}") for dtype in DTYPES)
    if ours and half:
        lines.append(f"bfloat16: {ours / half:.2f} times as fast as float32")
    return lines
