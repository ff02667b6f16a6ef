"""The error raised for invalid input."""

from __future__ import annotations

from collections.abc import Collection, Sequence

# A message lists at most this many bad files.
_MAX_LISTED = 10


class InputError(ValueError):
    """Invalid input, described in one line: where, what was found, what was expected, and how to fix it.

    The command line prints the message without a traceback and exits with code 2.

    Example:
        >>> raise InputError("labels.xml: found xmin 40 >= xmax 40; expected xmin < xmax; fix the box")
        Traceback (most recent call last):
        ...
        tf_fast_rcnn.errors.InputError: labels.xml: found xmin 40 >= xmax 40; expected xmin < xmax; fix the box
    """

    def __init__(self, message: object) -> None:
        # Text and file names quoted from the user may contain line breaks.
        super().__init__(" ".join(str(message).splitlines()))


def in_one_go(problems: Sequence[str], what: str) -> InputError:
    """The `InputError` for all `problems`, which are messages: a single one as it is, else their number and the first.

    Example:
        >>> print(in_one_go(["a.png: no such file", "b.png: no such file"], "images"))  # doctest: +NORMALIZE_WHITESPACE
        2 images cannot be used: (1) a.png: no such file (2) b.png: no such file; repair or remove them, or leave them
        out with --skip-bad (skip_bad=True)
    """
    if len(problems) == 1:
        return InputError(problems[0])
    listed = " ".join(f"({number}) {problem}" for number, problem in enumerate(problems[:_MAX_LISTED], start=1))
    more = f" and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
    return InputError(
        f"{len(problems)} {what} cannot be used: {listed}{more}; repair or remove them, or leave them out with "
        "--skip-bad (skip_bad=True)"
    )


def check_setting(name: str, value: object, holds: object, expected: str) -> None:
    """Raises an InputError with the value of a setting and what was `expected`, unless `holds` is true."""
    if not holds:
        raise InputError(f"{name}: found {value}; expected {expected}")


def missing_package(what: str, error: ImportError, extra: str) -> InputError:
    """Returns the InputError for a missing package that one `extra` of ours installs.

    Example:
        >>> missing_package("tfds:coco", ImportError(name="tensorflow_datasets"), "tfds").args[0]
        "tfds:coco: found no package tensorflow_datasets; expected it installed; run pip install 'tf-fast-rcnn[tfds]'"
    """
    return InputError(
        f"{what}: found no package {error.name}; expected it installed; run pip install 'tf-fast-rcnn[{extra}]'"
    )


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raises an InputError if a setting is not one of the `choices`."""
    if value not in choices:
        raise InputError(f"{name}: found {value!r}; expected one of {', '.join(choices)}")
