"""Options that select object proposals: a method that computes them, or a file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tf_fast_rcnn.commands.common import number, with_proposals
from tf_fast_rcnn.data.box_orders import ORDERS
from tf_fast_rcnn.data.proposals import METHODS, FileProposals, dense_grid, file_proposals, in_tiles, proposal_settings
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.data.records import ImageRecord
    from tf_fast_rcnn.files import StrPath

_DENSE_OPTIONS = ("dense_scales", "dense_aspects", "dense_stride")


def add_proposal_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--proposals METHOD|FILE` and the options that go with it; `default` describes the default in the help."""
    parser.add_argument(
        "--proposals",
        type=method_or_file,
        metavar="METHOD|FILE",
        help=f"object proposals: {', '.join(METHODS)}, or a proposal file (default: {default})",
    )
    add_file_arguments(parser)
    parser.add_argument(
        "--dense-scales",
        type=_numbers,
        metavar="X,X,...",
        help="sizes of dense boxes: square root of the area over the image's shorter side (default: fitted to the "
        "objects)",
    )
    parser.add_argument(
        "--dense-aspects", type=_numbers, metavar="X,X,...", help="aspect ratios of dense boxes: width over height"
    )
    parser.add_argument(
        "--dense-stride",
        type=number(float, 0, 1, above=True),
        metavar="X",
        help="distance between neighbouring dense boxes, as a fraction of their side",
    )


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that only go with `--proposals FILE`."""
    parser.add_argument(
        "--proposals-order",
        choices=ORDERS,
        metavar="ORDER",
        help=f"coordinate order of the proposal file: {', '.join(ORDERS)} (default: that of its format)",
    )
    parser.add_argument(
        "--max-proposals",
        type=number(int, 1),
        metavar="N",
        help="most proposals per image, the best first (default: 2000)",
    )


def chosen_proposals(
    options: argparse.Namespace, dataset: DetectionDataset, default: str | None = None
) -> ProposalSettings | FileProposals:
    """The proposals selected by the options of `add_proposal_arguments`.

    Args:
        options: the command's parsed options.
        dataset: the dataset to which dense boxes are fitted, or against which a file is checked.
        default: the method used without `--proposals`.

    Returns:
        `ProposalSettings` or `FileProposals`.

    Raises:
        InputError: if `--proposals` is neither a method nor a file, for options that do not go with it, and for a file
            that does not fit the dataset.
    """
    asked = options.proposals or default
    dense = {name.removeprefix("dense_"): getattr(options, name) for name in _DENSE_OPTIONS}
    dense = {name: value for name, value in dense.items() if value is not None}
    if asked not in METHODS:
        if dense:
            raise InputError(
                f"--dense-{next(iter(dense))} is only used with dense proposals, not with a file; remove it"
            )
        return read_file(options, str(asked), dataset)
    if options.proposals_order:
        raise InputError(f"--proposals-order is only used with a proposal file, not with {asked}; remove it")
    if options.max_proposals and "selective-search" not in asked:
        raise InputError(
            f"--max-proposals is only used with selective search or a proposal file, not {asked}; remove it"
        )
    grid = None
    if dense:
        names = {"scales": "scales", "aspects": "aspect_ratios", "stride": "stride"}
        grid = dense_grid(**{names[name]: value for name, value in dense.items()})
    return proposal_settings(asked, dataset, grid, options.max_proposals or 2000)


def read_file(
    options: argparse.Namespace, path: StrPath, dataset: DetectionDataset | Sequence[ImageRecord]
) -> FileProposals:
    """The `FileProposals` of a path, checked against a dataset; reports clipped and dropped boxes on standard error."""
    proposals = file_proposals(path, dataset, options.proposals_order, options.max_proposals)
    for line in proposals.report.lines() if proposals.report else ():
        print(f"{path}: {line}", file=sys.stderr)
    return proposals


def check_has_proposals(proposals: ProposalSettings | FileProposals | None) -> None:
    """Raises InputError for `FileProposals` from an earlier command: they name a file but do not contain its boxes."""
    if isinstance(proposals, FileProposals):
        proposals.check_read()


def proposals_of_images(
    options: argparse.Namespace,
    records: DetectionDataset | Sequence[ImageRecord],
    default: ProposalSettings | FileProposals | None,
) -> ProposalSettings | FileProposals:
    """What `--proposals METHOD|FILE` selects for images, or else `default`. Dense boxes of a method are not fitted.

    Args:
        options: the command's.
        records: `DetectionDataset` or records, with which a file is compared.
        default: the proposals of training; None for `default_proposals()`.

    Raises:
        InputError: for a file that cannot be read or does not fit, and if training used proposals from a file.
    """
    from tf_fast_rcnn.inference.detect import default_proposals

    if options.proposals in METHODS:
        return in_tiles(proposal_settings(options.proposals, dataset=()), getattr(default, "tiles", None))
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
    """Raises InputError if `--proposals` is given for a dataset that already has proposals."""
    if options.proposals and dataset.proposals is not None:
        raise InputError(
            f"--proposals: found {options.proposals} for {dataset.name}, which already has proposals; remove the option"
        )


def method_or_file(text: str) -> str:
    """The `type` of an option: a method of `METHODS` or the path of a file."""
    if text not in METHODS and not os.path.exists(text):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected {', '.join(METHODS)} or a proposal file")
    return text


def _numbers(text):
    """A tuple of the numbers above 0 in a comma-separated list."""
    try:
        return tuple(map(number(float, 0, above=True), text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or several separated by commas") from None
