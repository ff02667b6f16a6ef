"""Data sets by name: SPEC is KIND:LOCATION[@SPLIT], and SPEC+SPEC a union."""

import functools
import operator
import os
import re

from tf_fast_rcnn.data.prepared import read_prepared
from tf_fast_rcnn.data.voc import read_voc
from tf_fast_rcnn.errors import InputError

# The plus sign of a union stands before a kind and its colon; any other belongs to a location ("voc:c++/cells@train").
# A kind has two letters or more: one letter and a colon is a Windows drive.
_UNION = re.compile(r"\+(?=[a-z]{2,}:)")


def load_dataset(spec, class_names=None, skip_bad=False):
    """Reads a data set, or the union of several.

    Kinds:
        voc:DIR@SPLIT: the folder that holds Annotations/, ImageSets/Main/ and JPEGImages/ (see `read_voc`).
        prepared:DIR: the folder that `prepare` wrote.

    Args:
        spec: KIND:LOCATION[@SPLIT], or several joined by "+", as in "voc:VOC2007@trainval+voc:VOC2012@trainval".
        class_names: the classes in the order of their labels 1..K; default: those of the data set (of a union: those of
            all parts, sorted). Read test data with the training data's.
        skip_bad: leave out unreadable images and annotations, counted in `mended`, instead of raising.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for an unknown kind, split or class, and for what the kind's reader refuses.

    Example:
        >>> train = load_dataset("voc:cells@train")                                      # doctest: +SKIP
        >>> test = load_dataset("voc:cells@test", class_names=train.class_names)         # doctest: +SKIP
    """
    parts = [_load_part(part, class_names, skip_bad) for part in _UNION.split(str(spec))]
    if class_names is None and len(parts) > 1:
        class_names = sorted({name for part in parts for name in part.class_names})
        parts = [part.with_class_names(class_names) for part in parts]
    return functools.reduce(operator.add, parts)


def _load_part(spec, class_names, skip_bad):
    kind, colon, location = spec.partition(":")
    if not colon or kind not in _READERS or not location:
        raise InputError(
            f"data set {spec!r}: found no known kind; expected KIND:LOCATION[@SPLIT] with one of the kinds "
            f"{', '.join(_READERS)}"
        )
    return _READERS[kind](location, class_names, skip_bad)


def _load_voc(location, class_names, skip_bad):
    directory, _, split = location.rpartition("@")
    # An @ inside the path, or none, is no split; read_voc then names the splits that there are.
    if not directory or any(slash in split for slash in {os.sep, "/"}):
        directory, split = location, ""
    return read_voc(directory, split, class_names, skip_bad)


def _load_prepared(location, class_names, skip_bad):
    dataset = read_prepared(location)
    return dataset if class_names is None else dataset.with_class_names(class_names)


_READERS = {"voc": _load_voc, "prepared": _load_prepared}
