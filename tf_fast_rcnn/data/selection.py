"""Random parts of data sets, and selecting, renaming and merging classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset

# "[START:STOP]" at the end of a SPEC, with percentages or numbers of images, and optionally ",seed=N".
_PART = re.compile(r"\[(?P<start>[\d.]*%?):(?P<stop>[\d.]*%?)(?:,seed=(?P<seed>\d{1,9}))?\]")
# The same, less strictly: anything that the user probably meant as a part, valid or not.
_ANY_PART = re.compile(r"\[[^\[\]/\\]*:[^\[\]/\\]*\]$")


def split_dataset(
    dataset: DetectionDataset, fraction: float, seed: int = 0
) -> tuple[DetectionDataset, DetectionDataset]:
    """Splits a data set at random into two disjoint parts: `fraction` of its images, and the rest.

    For a fraction of 0.8 these are the SPECs "...[:80%,seed=0]" and "...[80%:,seed=0]"; see `select_part`.

    Args:
        dataset: `DetectionDataset`.
        fraction: between 0 and 1; the number of images is rounded (halves to the even number).
        seed: of the permutation, 0 to 999,999,999.

    Returns:
        `(part, rest)`.

    Raises:
        InputError: if a part would have no images.

    Example:
        >>> train, val = split_dataset(load_dataset("voc:cells@trainval"), 0.8)          # doctest: +SKIP
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction: found {fraction}; expected a number between 0 and 1, for example 0.8")
    percentage = f"{100 * fraction:.10g}%"
    return select_part(dataset, f"[:{percentage},seed={seed}]"), select_part(dataset, f"[{percentage}:,seed={seed}]")


def without_part(spec: str) -> tuple[str, str | None]:
    """Splits a SPEC that may end with a part such as "[:80%]" into `(SPEC, part)`; part is None if there is none."""
    match = _ANY_PART.search(spec)
    return (spec, None) if match is None else (spec[: match.start()], match[0])


def select_part(dataset: DetectionDataset, part: str) -> DetectionDataset:
    """Selects a random part of a data set, given as "[:80%]", "[80%:]", "[10%:20%,seed=3]" or "[:500]".

    START and STOP are positions in a random permutation of the data set by the seed (default 0): percentages, rounded
    to whole images (halves to the even number), or numbers of images. Parts with a common boundary and the same seed
    are disjoint and adjacent. The permutation depends only on the number of images and the seed; the images of a part
    keep their order. `fixes` is that of the whole data set.

    Raises:
        InputError: for an invalid part, or one without images.
    """
    match = _PART.fullmatch(part)
    bounds = match and (
        _position(match["start"], len(dataset), 0),
        _position(match["stop"], len(dataset), len(dataset)),
    )
    if match is None or bounds is None or None in bounds:
        raise InputError(
            f"{dataset.name}: found the part {part}; expected [START:STOP] or [START:STOP,seed=N] with percentages or "
            'numbers of images, as in "voc:DIR@train[:80%]"'
        )
    if bounds[0] >= bounds[1]:
        raise InputError(
            f"{dataset.name}: found no images in the part {part} of {len(dataset)}; expected at least one; widen it"
        )
    # NumPy guarantees the same stream in all versions for RandomState, but not for default_rng.
    permutation = np.random.RandomState(int(match["seed"] or 0)).permutation(len(dataset))
    selected = dataset[np.sort(permutation[slice(*bounds)])]
    selected.name = f"({dataset.name}){part}" if "+" in dataset.name else f"{dataset.name}{part}"
    return selected


def _position(text, count, default):
    """The number of images before a bound; None if the bound is not a number or is outside the data set."""
    try:
        position = float(text.rstrip("%")) if text else default
    except ValueError:
        return None
    if text.endswith("%"):
        position = round(count * position / 100)
    return int(position) if 0 <= position <= count and int(position) == position else None


def with_classes(
    dataset: DetectionDataset, class_map: Mapping[str, Sequence[str]], ignore_missing: bool = False
) -> DetectionDataset:
    """The same images with a subset of the classes, optionally renamed or merged.

    Objects of other classes are dropped and counted in `fixes`. Images without remaining objects are kept as
    background.

    Args:
        dataset: `DetectionDataset`.
        class_map: dict from new name to a list of names in the data set, in the order of the new class ids.
        ignore_missing: ignore names that the data set does not have, e.g. because test data lack a class of the
            training data.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for a name that the data set does not have, or that is in two classes.

    Example:
        >>> with_classes(dataset, {"person": ["person"], "vehicle": ["car", "truck"]})         # doctest: +SKIP
    """
    _check_classes(dataset, class_map, ignore_missing)
    label_of = {name: label for label, names in enumerate(class_map.values(), start=1) for name in names}
    new_labels = [label_of.get(name, 0) for name in dataset.class_names]
    selected = dataset.relabelled(class_map, new_labels)
    dropped = sum(new_labels[label - 1] == 0 for record in dataset for label in record.class_ids)
    selected.fixes = dict(Counter(dataset.fixes) + Counter({"objects of other classes dropped": dropped}))
    selected.name = f"{dataset.name} --classes {class_map_to_text(class_map)}"
    return selected


def _check_classes(dataset, class_map, ignore_missing):
    names = [name for names in class_map.values() for name in names]
    missing = [name for name in names if name not in dataset.class_names]
    if not names or (missing and not ignore_missing):
        raise InputError(
            f"classes: found {missing[0]!r}, which {dataset.name} does not have; expected some of "
            f"{', '.join(dataset.class_names)}"
            if missing
            else "classes: found none; expected at least one"
        )
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise InputError(f"classes: found {repeated!r} twice; expected each name only once; remove one")


def parse_class_map(text: str) -> dict[str, list[str]]:
    """Parses text such as "person,vehicle=car+truck" into the `class_map` of `with_classes`.

    Raises:
        InputError: for an empty or repeated name.

    Example:
        >>> parse_class_map("person,vehicle=car+truck")
        {'person': ['person'], 'vehicle': ['car', 'truck']}
    """
    class_map = {}
    for item in text.split(","):
        name, _, others = (part.strip() for part in item.partition("="))
        others = [other.strip() for other in others.split("+")] if "=" in item else [name]
        if not name or not all(others) or name in class_map:
            raise InputError(
                f"classes: found {item!r} in {text!r}; expected NAME or NAME=NAME+NAME, separated by commas, each new "
                "NAME only once"
            )
        class_map[name] = others
    return class_map


def class_map_to_text(class_map: Mapping[str, Sequence[str]]) -> str:
    """The inverse of `parse_class_map`."""
    return ",".join(name if names == [name] else f"{name}={'+'.join(names)}" for name, names in class_map.items())
