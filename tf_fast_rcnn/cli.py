"""The command line: dispatches to one module a command, and turns bad input into one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from tf_fast_rcnn import __version__
from tf_fast_rcnn.errors import InputError

# Command -> what it does, in the order of use. Each is a module of `commands` with EXAMPLES, add_arguments and run.
COMMANDS = {
    "demo": "train, evaluate and export on generated images, and show it all on a page",
    "browse": "show pictures of a data set, and what is wrong with it",
    "prepare": "compute object proposals for a data set",
    "train": "train a detector",
    "evaluate": "score a trained detector on a data set",
    "detect": "find objects in images and draw them",
    "compress": "make a trained detector faster by truncated SVD",
    "export": "write a model for servers, phones or browsers",
    "serve": "answer requests with an exported model, over gRPC and REST",
    "import-caffe": "bring a network of the original system over",
    "tables": "run the paper's comparisons on a data set of one's own",
    "benchmark": "measure this machine beside peers and physical floors",
}


class _Parser(argparse.ArgumentParser):
    """Tells of a bad option in one line, as of any other bad input, where argparse would print its usage too."""

    def error(self, message):
        raise InputError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (0, 2 for bad input, 130 for Ctrl-C)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Both are read when TensorFlow and Keras are first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        options = _parser(arguments).parse_args(arguments)
        options.run(options)
    except (InputError, OSError) as error:
        print(f"tf-fast-rcnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tf-fast-rcnn: interrupted", file=sys.stderr)
        return 130
    return 0


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
