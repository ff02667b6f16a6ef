"""`tf-fast-rcnn benchmark tiles`: detection in tiles against SAHI with the same detector."""

from __future__ import annotations

import argparse

from tf_fast_rcnn.commands.common import add_json_argument, in_a_fresh_process, number, write_result

# Not an extra: its dependency opencv-python would overwrite the OpenCV of our extra `opencv`.
INSTALL_SAHI = "pip install --no-deps sahi; pip install shapely"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the benchmark."""
    count = number(int, 1)
    parser.add_argument("run_folder", metavar="RUN", help="RUN that `train` wrote")
    parser.add_argument("--data", required=True, metavar="SPEC", help="annotated images")
    parser.add_argument(
        "--tile", type=number(int, 32), metavar="PIXELS", help="side of the tiles (default: that of the RUN)"
    )
    parser.add_argument(
        "--overlap",
        type=number(float, 0, 0.75, above=True),
        metavar="SHARE",
        help="overlap of tiles as a share of their side (default: that of the RUN, or 0.2)",
    )
    parser.add_argument("--images", type=count, metavar="N", help="number of images (default: all)")
    parser.add_argument("--threads", type=count, default=2, metavar="N", help="default: 2")
    add_json_argument(parser, "the measurements")


def measure(options: argparse.Namespace) -> None:
    """Runs the benchmark with its parsed options."""
    source, choices = (options.run_folder, options.data), (options.tile, options.overlap, options.images)
    result = {"run": options.run_folder, "data": options.data, "threads": options.threads}
    result |= in_a_fresh_process(_tiles, options.threads, *source, *choices)
    for name, row in result["rows"].items():
        row["memory_gb"] = in_a_fresh_process(_memory, options.threads, *source, name, *choices) / 1e9
    result["times_faster"] = _times_faster(result["rows"])
    write_result(options, result, _table(result))


def _tiles(threads, *arguments):
    from tf_fast_rcnn.benchmarks.tiles import measure_tiles

    _set_threads(threads)
    return measure_tiles(*arguments)


def _memory(threads, *arguments):
    from tf_fast_rcnn.benchmarks.tiles import measure_memory

    _set_threads(threads)
    return measure_memory(*arguments)


def _set_threads(threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)


def _times_faster(rows):
    """How many times as fast as each other contestant ours is: ratios of the medians."""
    return {name: row["seconds"] / rows["ours"]["seconds"] for name, row in rows.items() if name != "ours"}


def _table(result):
    whole = " and the whole image" if result["whole_image"] else ""
    lines = [
        f"{result['data']}: {result['images']} images, {result['objects']} objects; tiles of {result['tile']} pixels "
        f"that overlap by {result['overlap']:.0%}{whole}, {result['threads']} thread(s)",
        f"{'':16}{'AP50':>8}{'recall':>8}{'detections':>12}{'s / image':>11}{'memory GB':>11}",
    ]
    for name, row in result["rows"].items():
        line = f"{name:16}{row['ap50']:8.3f}{row['recall']:8.3f}{row['detections']:12}"
        lines.append(f"{line}{row['seconds']:11.2f}{row['memory_gb']:11.2f}")
    lines += [f"ours: {times:.1f} times as fast as {name}" for name, times in result["times_faster"].items()]
    lines += [f"{name} skipped: {reason}; install it with {INSTALL_SAHI}" for name, reason in result["missing"].items()]
    return "\n".join(lines)
