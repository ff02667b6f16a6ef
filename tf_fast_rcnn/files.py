"""Files and folders that are whole or not there, and the folder of those that can be made again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

# What a path is given as.
StrPath = str | os.PathLike[str]

# Temporary names begin so: no reader takes them for the real thing, and what a kill left behind is found by them.
PARTIAL_PREFIX = ".partial-"


@contextlib.contextmanager
def replacing_path(path: StrPath) -> Iterator[Path]:
    """A temporary path for writers that open files themselves; the file takes the place of `path` at the end.

    It has the same suffixes and lies in the same folder, which is made where there is none. After an error it is
    removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Other processes may write the same file.
    temporary = path.with_name(f"{PARTIAL_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` once it is complete; it can be read too."""
    with replacing_path(path) as temporary, open(temporary, "w+b") as file:
        yield file


def write_text(path: StrPath, text: str) -> None:
    """Writes a text file, UTF-8, that takes the place of `path` once it is complete."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: StrPath, value: Any) -> None:
    """Writes a JSON file that takes the place of `path` once it is complete."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextlib.contextmanager
def new_folder(path: StrPath) -> Iterator[Path]:
    """An empty folder that is renamed to `path` once it is complete; after an error it is removed.

    Until then it lies in a folder beside `path` whose name begins with a dot, which no model server takes for a
    version. What a killed process left of that is removed.
    """
    path = Path(path)
    temporary = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    folder = temporary / path.name
    try:
        folder.mkdir(parents=True)
        yield folder
        os.replace(folder, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_partial_files(folder: StrPath) -> None:
    """Removes what killed processes left half written below a folder that nothing writes to now."""
    for path in Path(folder).rglob(f"{PARTIAL_PREFIX}*"):
        if path.is_file():
            path.unlink()


def cache_folder(cache_dir: StrPath | None = None) -> Path:
    """`cache_dir`, else $TF_FAST_RCNN_CACHE, else the user's cache folder (Linux: ~/.cache/tf-fast-rcnn)."""
    return Path(cache_dir or os.environ.get("TF_FAST_RCNN_CACHE") or platformdirs.user_cache_dir("tf-fast-rcnn"))


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A dict with today's keys, of one that an earlier version may have saved.

    Args:
        values: dict by name.
        names: dict from earlier names to today's.

    Example:
        >>> renamed({"deviation": 1, "mean": 0}, {"deviation": "std"})
        {'std': 1, 'mean': 0}
    """
    return {names.get(name, name): value for name, value in values.items()}
