"""`tf-fast-rcnn formats`: lists the formats of datasets, or says which one a file or folder has."""

from __future__ import annotations

import argparse
import os

from tf_fast_rcnn.commands.common import add_json_argument, write_result
from tf_fast_rcnn.data.formats import FORMATS, recognise
from tf_fast_rcnn.errors import InputError

EXAMPLES = """\
  tf-fast-rcnn formats
  tf-fast-rcnn formats downloads/cells
  tf-fast-rcnn formats annotations.xml export.json --json -"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `formats`."""
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="files or folders to recognise (default: list all formats)"
    )
    add_json_argument(parser, "the formats, or the SPECs of each PATH,")


def run(options: argparse.Namespace) -> None:
    """Runs `formats` with its parsed options."""
    if not options.paths:
        width = max(map(len, FORMATS))
        write_result(options, FORMATS, "\n".join(f"{spec:{width}}  {what}" for spec, what in FORMATS.items()))
        return
    for path in options.paths:
        if not os.path.exists(path):
            raise InputError(f"{path}: no such file or folder; check the path")
    found = {path: recognise(path) for path in options.paths}
    lines = [line for path, specs in found.items() for line in specs or [f"{path}: not recognised; see docs/data.md"]]
    write_result(options, found, "\n".join(lines))
