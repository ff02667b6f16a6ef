"""Options and output that several commands share."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn import check_keras_backend
from tf_fast_rcnn.data.box_orders import ANNOTATION_ORDERS
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import write_json

# The help of an argument for what `Predictor.load` opens.
SOURCES = (
    "RUN that `train` wrote, a SavedModel or TF Lite file that `export` wrote, or grpc://HOST:PORT/NAME or "
    "http://HOST:PORT/v1/models/NAME of a server"
)

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.files import StrPath


def start_tensorflow() -> None:
    """Imports TensorFlow and Keras without TensorFlow's start-up messages.

    TensorFlow's C++ code writes them to file descriptor 2 before any log level takes effect.
    """
    check_keras_backend()
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for GPUs, and prints a message if there are none
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def in_a_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns `function(*arguments)`, run in a new process with a fresh TensorFlow and no memory in use yet.

    In a new process the number of TensorFlow's threads can still be set.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, initializer=start_tensorflow) as process:
        return process.submit(function, *arguments).result()


def number(
    kind: type[int] | type[float], low: float, high: float = math.inf, *, above: bool = False
) -> Callable[[str], Any]:
    """The `type` of an option that takes a number.

    Args:
        kind: int or float.
        low, high: limits, both included.
        above: whether `low` itself is excluded.

    Returns:
        A function that parses the option's text; it raises `argparse.ArgumentTypeError`.

    Example:
        >>> number(int, 1)("300")
        300
    """

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or not math.isfinite(value) or (above and value == low):
            what = "a whole number" if kind is int else "a number"
            limits = f"above {low}" if above else f"from {low}"
            limits += "" if high == math.inf else f" to {high}"
            raise argparse.ArgumentTypeError(f"found {text!r}; expected {what} {limits}")
        return value

    return parse


seed = number(int, 0, 2**32 - 1)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every command that reads a dataset and may compute its proposals."""
    parser.add_argument(
        "--classes",
        metavar="LIST",
        help="classes to keep, rename or merge: person,vehicle=car+truck; objects of other classes are dropped",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="skip unreadable images and annotations, and count them"
    )
    add_boxes_order(parser)
    parser.add_argument(
        "--workers", type=number(int, 1), metavar="N", help="processes that compute proposals (default: one per core)"
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="cache folder for proposals and tfds: images (default: $TF_FAST_RCNN_CACHE, else the user's cache)",
    )


def add_boxes_order(parser: argparse.ArgumentParser) -> None:
    """Adds `--boxes-order ORDER`, of the annotations of a dataset."""
    parser.add_argument(
        "--boxes-order",
        choices=ANNOTATION_ORDERS,
        metavar="ORDER",
        help="coordinate order and unit of the boxes of voc:, coco: and csv: data: "
        f"{', '.join(ANNOTATION_ORDERS)} (default: that of the format, which is checked)",
    )


def add_json_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--json FILE`; `what` names the content for the help text."""
    parser.add_argument("--json", metavar="FILE", help=f"write {what} as JSON; - for standard output")


def add_hidden_alias(parser: argparse.ArgumentParser, option: str, alias: str) -> None:
    """Also accepts an option's earlier name, which the help does not show."""
    action = parser._option_string_actions[option]
    kind = action.type or str
    parser.add_argument(alias, dest=action.dest, type=kind, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def write_result(options: argparse.Namespace, value: Any, summary: str) -> None:
    """Prints a summary for people; with `--json`, also writes `value` as JSON (to standard output only, for `-`)."""
    if options.json == "-":
        print(json.dumps(value, indent=2))
        return
    if options.json is not None:
        write_json(options.json, value)
    print(summary)


def load_data(
    spec: str,
    options: argparse.Namespace,
    class_names: Sequence[str] | None = None,
    class_map: Mapping[str, Sequence[str]] | None = None,
) -> DetectionDataset:
    """The dataset of a SPEC, with the classes selected by `class_map`.

    Args:
        spec: see `load_dataset`.
        options: parsed options of `add_data_arguments`.
        class_names: the classes of training, for validation and test data; None for the dataset's own.
        class_map: see `with_classes`; None keeps all classes. A dataset that was prepared with this map is not changed.

    Raises:
        InputError: see `load_dataset` and `with_classes`.
    """
    import tf_fast_rcnn as frcnn

    sources = {"skip_bad": options.skip_bad, "cache_dir": options.cache}
    sources["boxes_order"] = options.boxes_order
    if class_map is None:
        return frcnn.load_dataset(spec, class_names=class_names, **sources)
    dataset = frcnn.load_dataset(spec, **sources)
    if dataset.proposals is not None and dataset.class_names == tuple(class_map):
        return dataset
    return frcnn.with_classes(dataset, class_map, ignore_missing=class_names is not None)


def load_images(spec: str, options: argparse.Namespace, class_names: Sequence[str] | None) -> DetectionDataset:
    """Like `load_data`, for detection: reads only the images of `voc:` and `coco:`, since test sets lack annotations.

    Without class names, those of the dataset are needed, and so are the annotations of `voc:`.
    """
    from tf_fast_rcnn.data.specs import load_images

    return load_images(spec, class_names, skip_bad=options.skip_bad, cache_dir=options.cache)


def report_fixes(dataset: DetectionDataset) -> None:
    """Reports on standard error what the reader clipped, dropped or skipped."""
    for what, count in dataset.fixes.items():
        print(f"{dataset.name}: {count} x {what}", file=sys.stderr)


def with_proposals(
    dataset: DetectionDataset, proposals: ProposalSettings | FileProposals, options: argparse.Namespace
) -> DetectionDataset:
    """The dataset with proposals, computed or read from the cache if it has none; reports fixes and skipped images."""
    import tf_fast_rcnn as frcnn

    if dataset.proposals is None:
        dataset = frcnn.cached_proposals(
            dataset, proposals, cache_dir=options.cache, workers=options.workers, skip_bad=options.skip_bad
        )
    report_fixes(dataset)
    return dataset


def given_options(options: argparse.Namespace, add_arguments: Callable[[argparse.ArgumentParser], object]) -> list[str]:
    """The options of `add_arguments`, as "--name", whose value is not the default."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    defaults = vars(parser.parse_args([]))
    return [f"--{name.replace('_', '-')}" for name, value in defaults.items() if getattr(options, name) != value]


def check_new(path: StrPath, option: str) -> None:
    """Raises InputError if an output exists already; `option` is the one that names it."""
    if Path(path).exists():
        raise InputError(f"{path}: found an existing file or folder; expected a new one; choose another {option}")
