"""`tf-fast-rcnn benchmark detection`: time of each stage of detection, against PyTorch and OpenVINO."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from tf_fast_rcnn.commands.benchmark_training import add_network_arguments
from tf_fast_rcnn.commands.common import in_a_fresh_process, number, write_result
from tf_fast_rcnn.visualization.plots import plot_parts

# Convolutions and matrix products, which all contestants have.
NETWORK = ("convolutions", "fc6", "fc7", "predictor layers")
EXTRAS = {"PyTorch": "pytorch", "OpenVINO": "benchmark"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the benchmark."""
    numbers = [300, 1000, 2000]
    parser.add_argument(
        "--proposals", type=number(int, 1), nargs="+", default=numbers, metavar="N", help="default: 300 1000 2000"
    )
    add_network_arguments(parser, rounds=5)


def measure(options: argparse.Namespace) -> None:
    """Runs the benchmark with its parsed options."""
    results = []
    for network, dtype in tqdm(
        [(network, dtype) for network in options.network for dtype in options.dtype], "networks", unit="run", delay=2
    ):
        arguments = network, dtype, options.proposals, options.shorter_side, options.rounds, options.threads
        found = in_a_fresh_process(_detection, *arguments)
        found["ratios"] = _ratios(found["rows"])
        results.append({"network": network, "dtype": dtype, "threads": options.threads, **found})
    if options.plot:
        plot_parts(_panels(results), options.plot)
    write_result(options, results, "\n\n".join([*map(_table, results), *_half_against_float32(results)]))


def _detection(*arguments):
    from tf_fast_rcnn.benchmarks.detection import measure_detection

    return measure_detection(*arguments)


def _panels(results):
    return {
        f"{result['network']}, {result['dtype']}, {proposals} proposals": {
            row["contestant"]: row["parts"] for row in result["rows"] if row["proposals"] == proposals
        }
        for result in results
        for proposals in dict.fromkeys(row["proposals"] for row in result["rows"])
    }


def _ratios(rows):
    """Ratios between the parts, by number of proposals."""
    found = {}
    for proposals in dict.fromkeys(row["proposals"] for row in rows):
        of = {row["contestant"]: row for row in rows if row["proposals"] == proposals}
        ours, compressed = of["ours"], of["ours, SVD"]
        found[proposals] = {
            "share of all but convolutions and products": 1 - _network(ours) / sum(ours["parts"].values()),
            "fc6 and fc7: times faster by SVD": _hidden(ours) / _hidden(compressed),
            "in total: times faster by SVD": ours["total"] / compressed["total"],
            "detect: times the bare network": ours["total"] / ours["bare"],
        }
        for peer in EXTRAS.keys() & of.keys():
            found[proposals][f"convolutions and products: times faster than {peer}"] = _network(of[peer]) / _network(
                ours
            )
    return found


def _network(row):
    return sum(row["parts"].get(part, 0.0) for part in NETWORK)


def _hidden(row):
    return sum(row["parts"].get(part, 0.0) for part in ("fc6", "fc7"))


def _table(result):
    height, width = result["image"]
    parts = dict.fromkeys(part for row in result["rows"] for part in row["parts"])
    lines = [
        f"{result['network']}, {result['dtype']}: milliseconds per image of {height}x{width}, "
        f"{result['threads']} thread(s); selective search on the file takes {1e3 * result['selective_search']:.0f}",
        f"{'':10}{'proposals':>10}{'total':>8}" + "".join(f"{part:>{len(part) + 2}}" for part in parts),
    ]
    for row in result["rows"]:
        shares = {part: row["parts"].get(part) for part in parts}
        cells = "".join(
            f"{'-' if share is None else format(1e3 * share, '.1f'):>{len(part) + 2}}" for part, share in shares.items()
        )
        lines.append(f"{row['contestant']:10}{row['proposals']:10}{1e3 * row['total']:8.1f}{cells}")
    for name in next(iter(result["ratios"].values())):
        values = ", ".join(f"{ratios[name]:.3g} ({proposals})" for proposals, ratios in result["ratios"].items())
        lines.append(f"{name}: {values}")
    lines += [
        f"{name} skipped: {reason}; install it with pip install '.[{EXTRAS[name]}]'"
        for name, reason in result["missing"].items()
    ]
    return "\n".join(lines)


def _half_against_float32(results):
    """One line per network and number of proposals: how much faster bfloat16 is in total."""
    totals = {
        (result["network"], result["dtype"], row["proposals"]): row["total"]
        for result in results
        for row in result["rows"]
        if row["contestant"] == "ours"
    }
    return [
        f"{network}, {proposals} proposals, in total: "
        f"bfloat16 is {totals[network, 'float32', proposals] / seconds:.2f} times as fast"
        for (network, dtype, proposals), seconds in totals.items()
        if dtype == "bfloat16" and (network, "float32", proposals) in totals
    ]
