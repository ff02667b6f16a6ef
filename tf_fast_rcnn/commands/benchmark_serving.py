"""`tf-fast-rcnn benchmark serving`: the embedded server against calling the model directly."""

from __future__ import annotations

import argparse

from tf_fast_rcnn.commands.common import add_json_argument, in_a_fresh_process, number, write_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the benchmark."""
    count = number(int, 1)
    parser.add_argument("--network", default="efficientnet_lite0", metavar="NAME", help="default: efficientnet_lite0")
    parser.add_argument("--proposals", type=count, default=300, metavar="N", help="per image (default: 300)")
    parser.add_argument("--clients", type=count, default=8, metavar="N", help="in the closed loop (default: 8)")
    parser.add_argument(
        "--seconds", type=number(float, 0, above=True), default=5.0, metavar="X", help="per turn (default: 5)"
    )
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="turns of each (default: 5)")
    parser.add_argument(
        "--soak",
        type=number(float, 0),
        default=0.0,
        metavar="SECONDS",
        help="duration of an overload at twice the throughput (default: 0)",
    )
    add_json_argument(parser, "the measurements")


def measure(options: argparse.Namespace) -> None:
    """Runs the benchmark with its parsed options."""
    names = ("network", "proposals", "clients", "seconds", "rounds", "soak")
    arguments = {name: getattr(options, name) for name in names}
    found = in_a_fresh_process(_serving, *arguments.values())
    write_result(options, {**arguments, **found}, _table(options, found))


def _serving(*arguments):
    from tf_fast_rcnn.benchmarks.serving import measure_serving

    return measure_serving(*arguments)


def _table(options, found):
    lines = [
        f"{options.network}, JPEG of 640x480 pixels, {options.proposals} proposals",
        f"{'':34}{'requests/s':>10}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'refused':>9}{'failed':>8}",
    ]
    for title, key in (("1 client", "one_client"), (f"{options.clients} clients", "many_clients")):
        lines += [_row(f"{title}, {name}", load) for name, load in found[key].items()]
    lines += [_row(f"half the rate, {name}", load) for name, load in found["open_loop"].items()]
    if found["soak"]:
        lines += [_row("twice the rate, gRPC", found["soak"]), _memory(found["soak"]["memory_mb"])]
    for what, values in found["ratios"].items():
        shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in values.items())
        lines.append(
            {"overhead": "slower than direct calls: ", "throughput": "of direct calls' throughput: "}[what] + shown
        )
    return "\n".join(lines)


def _row(title, load):
    times = "".join(f"{load[f'p{share}_ms']:9.1f}" for share in (50, 95, 99))
    return f"{title:34}{load['throughput']:10.2f}{times}{load['refused']:9}{load['failed']:8}"


def _memory(megabytes):
    """Growth from the end of the first tenth on, when every thread has handled a request."""
    first, last = megabytes[len(megabytes) // 10], megabytes[-1]
    change = 100 * (last / first - 1)
    return f"memory: {first:.0f} MB after a tenth of the time, {last:.0f} MB at the end ({change:+.1f} %)"
