"""Options that say which object proposals a command takes: a method that computes them, or a file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tf_fast_rcnn.commands.common import number, with_proposals
from tf_fast_rcnn.data.proposals import METHODS, FileProposals, dense_grid, file_proposals, proposal_settings
from tf_fast_rcnn.data.proposals.orders import ORDERS
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
    from tf_fast_rcnn.files import StrPath

_DENSE_OPTIONS = ("dense_scales", "dense_aspects", "dense_stride")


def add_proposal_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """`--proposals METHOD|FILE` and what belongs to it; `default` is the help's word for what is taken without it."""
    parser.add_argument(
        "--proposals",
        type=method_or_file,
        metavar="METHOD|FILE",
        help=f"object proposals: {', '.join(METHODS)}, or a file of them (default: {default})",
    )
    add_file_arguments(parser)
    parser.add_argument(
        "--dense-scales",
        type=_numbers,
        metavar="X,X,...",
        help="square roots of the dense boxes' areas over the image's shorter side (default: fitted to the objects)",
    )
    parser.add_argument("--dense-aspects", type=_numbers, metavar="X,X,...", help="their widths over heights")
    parser.add_argument(
        "--dense-stride",
        type=number(float, 0, 1, above=True),
        metavar="X",
        help="distance between neighbours over their own side",
    )


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """What belongs to `--proposals FILE` alone."""
    parser.add_argument(
        "--proposals-order",
        choices=ORDERS,
        metavar="ORDER",
        help=f"coordinates of the proposal file: {', '.join(ORDERS)} (default: those of its format)",
    )
    parser.add_argument(
        "--max-proposals",
        type=number(int, 1),
        metavar="N",
        help="proposals taken of an image, the best first (default: 2000)",
    )


def chosen_proposals(
    options: argparse.Namespace, dataset: DetectionDataset, default: str | None = None
) -> ProposalSettings | FileProposals:
    """The settings that the options of `add_proposal_arguments` ask for.

    Args:
        options: the command's.
        dataset: `DetectionDataset` to which dense boxes are fitted, or with which a file is compared.
        default: method without `--proposals`.

    Returns:
        `ProposalSettings` or `FileProposals`.

    Raises:
        InputError: for what is no method and no file, for options that do not belong to it, and for a file that does
            not fit the data set.
    """
    asked = options.proposals or default
    dense = {name.removeprefix("dense_"): getattr(options, name) for name in _DENSE_OPTIONS}
    dense = {name: value for name, value in dense.items() if value is not None}
    if asked not in METHODS:
        if dense:
            raise InputError(f"--dense-{next(iter(dense))}: found the proposals of a file; expected dense ones")
        return read_file(options, str(asked), dataset)
    if options.proposals_order:
        raise InputError(f"--proposals-order: found the method {asked}; expected a file, whose coordinates it names")
    if options.max_proposals and "selective-search" not in asked:
        raise InputError(f"--max-proposals: found the method {asked}; expected selective search or a file")
    grid = None
    if dense:
        names = {"scales": "scales", "aspects": "aspect_ratios", "stride": "stride"}
        grid = dense_grid(**{names[name]: value for name, value in dense.items()})
    return proposal_settings(asked, dataset, grid, options.max_proposals or 2000)


def read_file(
    options: argparse.Namespace, path: StrPath, dataset: DetectionDataset | Sequence[ImageRecord]
) -> FileProposals:
    """The `FileProposals` of a path, compared with a data set; tells on standard error what was clipped or dropped."""
    proposals = file_proposals(path, dataset, options.proposals_order, options.max_proposals)
    for line in proposals.report.lines() if proposals.report else ():
        print(f"{path}: {line}", file=sys.stderr)
    return proposals


def check_has_proposals(proposals: ProposalSettings | FileProposals | None) -> None:
    """InputError for `FileProposals` of an earlier command, which say what these were but hold none."""
    if isinstance(proposals, FileProposals):
        proposals.check_read()


def proposals_of_images(
    options: argparse.Namespace,
    records: DetectionDataset | Sequence[ImageRecord],
    default: ProposalSettings | FileProposals | None,
) -> ProposalSettings | FileProposals:
    """What `--proposals METHOD|FILE` selects for images, or else `default`; of a method, boxes are not fitted.

    Args:
        options: the command's.
        records: `DetectionDataset` or records, with which a file is compared.
        default: the proposals of training; None for `default_proposals()`.

    Raises:
        InputError: for a file that cannot be read or does not fit, and if training took the proposals of a file.
    """
    from tf_fast_rcnn.inference.detect import default_proposals

    if options.proposals in METHODS:
        return proposal_settings(options.proposals, dataset=())
    if options.proposals:
        return read_file(options, options.proposals, records)
    check_has_proposals(default)
    return default or default_proposals()


def with_chosen_proposals(
    options: argparse.Namespace, dataset: DetectionDataset, default: ProposalSettings | FileProposals | None
) -> DetectionDataset:
    """The dataset with proposals: its own, or those of `proposals_of_images`, from the cache if it has them."""
    refuse_second_proposals(options, dataset)
    known = dataset.proposals
    return with_proposals(dataset, known or proposals_of_images(options, dataset, default), options)


def refuse_second_proposals(options: argparse.Namespace, dataset: DetectionDataset) -> None:
    """InputError where `--proposals` is given for a data set that has some."""
    if options.proposals and dataset.proposals is not None:
        raise InputError(
            f"--proposals: found {options.proposals} for {dataset.name}, which has proposals; expected voc:DIR@SPLIT; "
            "leave the option out"
        )


def method_or_file(text: str) -> str:
    """The `type` of an option for a method of `METHODS` or the path of a file."""
    if text not in METHODS and not os.path.exists(text):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected {', '.join(METHODS)} or a file of proposals")
    return text


def _numbers(text):
    """The numbers above 0 of a comma-separated list."""
    try:
        return tuple(map(number(float, 0, above=True), text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or several joined by commas") from None
