"""Options and output that several commands share."""

import json
import os
import sys
from pathlib import Path

from tf_fast_rcnn.errors import InputError


def add_data_arguments(parser):
    """Options of every command that reads a data set and may compute its proposals."""
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out unreadable images and annotations, and count them"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that compute proposals (default: one a core)"
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where proposals are cached (default: $TF_FAST_RCNN_CACHE, else the user's cache)",
    )


def add_json_argument(parser, what):
    """`--json FILE`."""
    parser.add_argument("--json", metavar="FILE", help=f"write {what} as JSON; - for standard output")


def write_result(options, value, summary):
    """Prints a summary for people, and writes JSON for machines where `--json` asks for it."""
    if options.json == "-":
        print(json.dumps(value, indent=2))
        return
    if options.json is not None:
        path = Path(options.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        temporary.write_text(json.dumps(value, indent=2) + "\n")
        os.replace(temporary, path)
    print(summary)


def tell_mended(dataset):
    """Says on standard error what the reader clipped, dropped or skipped."""
    for what, count in dataset.mended.items():
        print(f"{dataset.name}: {count} x {what}", file=sys.stderr)


def check_new(path, option):
    """InputError where an output exists already."""
    if Path(path).exists():
        raise InputError(f"{path}: found an existing file or folder; expected a new one; give another {option}")
