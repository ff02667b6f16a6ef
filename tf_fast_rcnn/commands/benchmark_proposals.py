"""`tf-fast-rcnn benchmark proposals`: selective search against OpenCV's."""

from __future__ import annotations

import argparse

from tf_fast_rcnn.commands.common import add_json_argument, in_a_fresh_process, number, write_result
from tf_fast_rcnn.visualization.plots import plot_search_growth

MODES = ("fast", "quality")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the benchmark."""
    count = number(int, 1)
    parser.add_argument("--data", required=True, nargs="+", metavar="SPEC", help="annotated images to search")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=["fast"], help="default: fast")
    parser.add_argument("--images", type=count, default=40, metavar="N", help="per dataset (default: 40)")
    parser.add_argument("--threads", type=count, default=2, metavar="N", help="for batches of images (default: 2)")
    parser.add_argument(
        "--growth", type=count, nargs="+", metavar="SIDE", help="also search one image, resized to these longer sides"
    )
    parser.add_argument("--plot", metavar="FILE", help="plot time over pixels; needs --growth")
    add_json_argument(parser, "the measurements")


def measure(options: argparse.Namespace) -> None:
    """Runs the benchmark with its parsed options."""
    searches = [
        in_a_fresh_process(_proposals, spec, mode, options.images, options.threads)
        for spec in options.data
        for mode in options.mode
    ]
    growth = []
    if options.growth:
        growth = in_a_fresh_process(_growth, options.data[0], options.mode[0], sorted(options.growth))
        if options.plot:
            plot_search_growth(growth, options.plot)
    tables = [*map(_table, searches), *([_growth_table(growth)] if growth else [])]
    write_result(options, {"searches": searches, "growth": growth}, "\n\n".join(tables))


def _proposals(spec, mode, images, threads):
    import tf_fast_rcnn as frcnn
    from tf_fast_rcnn.benchmarks.proposals import measure_proposals

    dataset = frcnn.load_dataset(spec)
    return {"data": spec, **measure_proposals(dataset[:: max(1, len(dataset) // images)][:images], mode, threads)}


def _growth(spec, mode, sides):
    import tf_fast_rcnn as frcnn
    from tf_fast_rcnn.benchmarks.proposals import measure_growth

    return measure_growth(frcnn.load_dataset(spec)[0].image(), mode, sides)


def _table(result):
    lines = [
        f"{result['data']}: {result['images']} images, {result['boxes']} objects, {result['mode']} mode",
        f"{'':8}{'ms, 1 thread':>14}{'proposals':>11}   recall at IoU 0.5 and 0.7, average best overlap, for boxes:",
        f"{'':33}" + "".join(f"{count:>21}" for count in result["quality"]["native"]),
    ]
    for name, by_count in result["quality"].items():
        line = f"{name:8}{result['milliseconds'][name]:14.1f}{result['proposals'][name]:11.0f}"
        for of in by_count.values():
            line += f"{of['recall_0.5']:9.3f}{of['recall_0.7']:6.3f}{of['abo']:6.3f}"
        lines.append(line)
    lines.append(
        f"native: {result['times_faster']:.1f} times as fast with one thread, {result['times_faster_in_batches']:.1f} "
        f"times with {result['threads']} threads on batches"
    )
    return "\n".join(lines)


def _growth_table(rows):
    lines = [f"{'pixels':>10}{'ms':>10}{'ns / pixel':>12}{'bytes / pixel':>15}"]
    for row in rows:
        nanoseconds = 1e6 * row["milliseconds"] / row["pixels"]
        lines.append(f"{row['pixels']:10}{row['milliseconds']:10.1f}{nanoseconds:12.0f}{row['bytes_per_pixel']:15.0f}")
    return "\n".join(lines)
