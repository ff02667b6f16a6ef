"""Parts of data sets drawn by a seed, and subsets and new names of their classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import DetectionDataset

# "[START:STOP]" at the end of a SPEC, with percentages or numbers of images, and perhaps ",seed=N".
_PART = re.compile(r"\[(?P<start>[\d.]*%?):(?P<stop>[\d.]*%?)(?:,seed=(?P<seed>\d{1,9}))?\]")
# The same loosely: what a user meant for one, right or wrong.
_ANY_PART = re.compile(r"\[[^\[\]/\\]*:[^\[\]/\\]*\]$")


def split_dataset(
    dataset: DetectionDataset, fraction: float, seed: int = 0
) -> tuple[DetectionDataset, DetectionDataset]:
    """Two parts of a data set, without a common image: `fraction` of its images drawn at random, and the rest.

    For a fraction of 0.8 these are the SPECs "...[:80%,seed=0]" and "...[80%:,seed=0]", see `select_part`.

    Args:
        dataset: `DetectionDataset`.
        fraction: between 0 and 1; the number of images is rounded (a half to the even number).
        seed: of the permutation, 0 to 999,999,999.

    Returns:
        `(part, rest)`.

    Raises:
        InputError: for a fraction that leaves a part without images.

    Example:
        >>> train, val = split_dataset(load_dataset("voc:cells@trainval"), 0.8)          # doctest: +SKIP
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction: found {fraction}; expected a number between 0 and 1; 0.8 is usual")
    percentage = f"{100 * fraction:.10g}%"
    return select_part(dataset, f"[:{percentage},seed={seed}]"), select_part(dataset, f"[{percentage}:,seed={seed}]")


def without_part(spec: str) -> tuple[str, str | None]:
    """`(SPEC, part)` of a SPEC that may end with a part as "[:80%]"; the part is None where there is none."""
    match = _ANY_PART.search(spec)
    return (spec, None) if match is None else (spec[: match.start()], match[0])


def select_part(dataset: DetectionDataset, part: str) -> DetectionDataset:
    """The images of a part as "[:80%]", "[80%:]", "[10%:20%,seed=3]" or "[:500]".

    START and STOP are positions in a permutation of the data set made by the seed (default 0): percentages, rounded to
    whole images (a half to the even number), or numbers of images. Parts that meet at one boundary, under one seed,
    have no image in common and none between them. The permutation depends on the number of images and the seed alone;
    within a part the images keep their order. `fixes` is that of the whole.

    Raises:
        InputError: for a part that is not written so, or without images.
    """
    match = _PART.fullmatch(part)
    bounds = match and (
        _position(match["start"], len(dataset), 0),
        _position(match["stop"], len(dataset), len(dataset)),
    )
    if match is None or bounds is None or None in bounds:
        raise InputError(
            f"{dataset.name}: found the part {part}; expected [START:STOP] or [START:STOP,seed=N] with percentages or "
            'numbers of images; write it as in "voc:DIR@train[:80%]"'
        )
    if bounds[0] >= bounds[1]:
        raise InputError(
            f"{dataset.name}: found no images in the part {part} of {len(dataset)}; expected one at least; widen it"
        )
    # NumPy keeps the stream of RandomState the same in all its versions, that of default_rng not.
    permutation = np.random.RandomState(int(match["seed"] or 0)).permutation(len(dataset))
    selected = dataset[np.sort(permutation[slice(*bounds)])]
    selected.name = f"({dataset.name}){part}" if "+" in dataset.name else f"{dataset.name}{part}"
    return selected


def _position(text, count, default):
    """The number of images before a bound; None for a bound that is no number or lies outside the data set."""
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
    """The same images with a subset of the classes, renamed or merged; objects of other classes are dropped.

    Dropped objects are counted in `fixes`. Images that lose all their objects stay, as background.

    Args:
        dataset: `DetectionDataset`.
        class_map: new name -> list of names of the data set, in the order of the new labels.
        ignore_missing: names that the data set does not have stand for nothing, as test data may lack a class of the
            training data.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for a name that the data set does not have, or that stands in two classes.

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
            f"{', '.join(dataset.class_names)}; correct it"
            if missing
            else "classes: found none; expected one at least; name some"
        )
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise InputError(f"classes: found {repeated!r} twice; expected each name once; remove one")


def parse_class_map(text: str) -> dict[str, list[str]]:
    """The `class_map` of `with_classes` from "person,vehicle=car+truck".

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
                f"classes: found {item!r} in {text!r}; expected NAME or NAME=NAME+NAME, each NAME once, joined by "
                "commas; correct it"
            )
        class_map[name] = others
    return class_map


def class_map_to_text(class_map: Mapping[str, Sequence[str]]) -> str:
    """The inverse of `parse_class_map`."""
    return ",".join(name if names == [name] else f"{name}={'+'.join(names)}" for name, names in class_map.items())
