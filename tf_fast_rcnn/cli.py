"""The command line: dispatches to one module per command, and reports bad input in one line with exit code 2."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from tf_fast_rcnn import __version__
from tf_fast_rcnn.errors import InputError

# Command -> summary, in the order of use. Each is a module of `commands` with EXAMPLES, add_arguments and run.
COMMANDS = {
    "demo": "train, evaluate and export on generated images, and show the results on a page",
    "browse": "check a dataset's annotations and show its images on a page",
    "prepare": "compute object proposals for a dataset",
    "convert": "write a dataset in the format of another tool",
    "formats": "list the formats of datasets, or say which one a file or folder has",
    "train": "train a detector",
    "evaluate": "score a trained detector on a dataset",
    "detect": "find objects in images and draw them",
    "compress": "make a trained detector faster by truncated SVD",
    "export": "export a model for servers, phones or browsers",
    "serve": "serve an exported model over gRPC and REST",
    "import-caffe": "import a Caffe network of the original Fast R-CNN",
    "tables": "run the paper's comparisons on your own dataset",
    "benchmark": "benchmark this machine against other libraries and hardware limits",
}


class _Parser(argparse.ArgumentParser):
    """Reports a bad option in one line, like any other bad input; argparse would print its usage as well."""

    def error(self, message):
        raise InputError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (0, 2 for bad input, 130 for Ctrl-C).

    Args:
        arguments: the command line without the program's name; None for that of this process.

    Example:
        >>> main(["train", "--train", "voc:cells@train", "--out", "runs/cells"])      # doctest: +SKIP
        0
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # TensorFlow and Keras read these variables on their first import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # Keeps the memory of large tensors for the next ones; the system would have to clear each page of it anew. Where
    # TensorFlow uses oneDNN, it does so anyway.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    try:
        options = _parse(arguments)
        _allow_large_images()
        options.run(options)
    except (InputError, OSError) as error:
        print(f"tf-fast-rcnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tf-fast-rcnn: interrupted", file=sys.stderr)
        return 130
    return 0


def _allow_large_images():
    """Lets this process and its workers read images of up to 2^30 pixels (32,768 x 32,768).

    Pillow refuses more than 179 million pixels, because a small file that claims to be a huge image could exhaust the
    memory of a server. Scans and satellite images are larger; the pixels of one take up to 8 GB while it is read.
    `serve` and its gateway have limits of their own for what clients send.
    """
    from PIL import Image

    # Pillow warns above this number and raises an error above twice this number.
    Image.MAX_IMAGE_PIXELS = 1 << 29
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def _parse(arguments):
    """The parsed options; for `serve`, those after -- are for the server that it starts, and not parsed."""
    more = []
    if arguments[:1] == ["serve"] and "--" in arguments:
        end = arguments.index("--")
        arguments, more = arguments[:end], arguments[end + 1 :]
    options = _parser(arguments).parse_args(arguments)
    options.server_options = more
    return options


def _parser(arguments):
    parser = _Parser(prog="tf-fast-rcnn", description="Fast R-CNN for TensorFlow and Keras 3.")
    parser.add_argument("--version", action="version", version=f"tf-fast-rcnn {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for name, summary in COMMANDS.items():
        if name not in arguments:
            commands.add_parser(name, help=summary)
            continue
        module = importlib.import_module(f"tf_fast_rcnn.commands.{name.replace('-', '_')}")
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
