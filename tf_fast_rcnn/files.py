"""Atomic writes of files and folders, and the cache folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

# A path as an argument.
StrPath = str | os.PathLike[str]

# Prefix of temporary names: readers ignore such files, and leftovers of killed processes can be found by it.
PARTIAL_PREFIX = ".partial-"


@contextlib.contextmanager
def replacing_path(path: StrPath) -> Iterator[Path]:
    """A temporary path for writers that open files themselves; on success the file is renamed to `path`.

    The temporary file has the same suffixes and is in the same folder, which is created if necessary. It is removed
    after an error.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps apart processes that write the same file.
    temporary = path.with_name(f"{PARTIAL_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[BinaryIO]:
    """A binary file, open for writing and reading, that replaces `path` once it is complete."""
    with replacing_path(path) as temporary, open(temporary, "w+b") as file:
        yield file


def write_text(path: StrPath, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: StrPath, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextlib.contextmanager
def new_folder(path: StrPath) -> Iterator[Path]:
    """An empty folder that is renamed to `path` once it is complete, or removed after an error.

    Until then it is inside a folder next to `path` whose name begins with a dot, so a model server does not mistake it
    for a version. Leftovers of a killed process are removed first.
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
    """Removes partial files of killed processes below a folder; no process may be writing to it."""
    for path in Path(folder).rglob(f"{PARTIAL_PREFIX}*"):
        if path.is_file():
            path.unlink()


def cache_folder(cache_dir: StrPath | None = None) -> Path:
    """`cache_dir`, else $TF_FAST_RCNN_CACHE, else the user's cache folder (Linux: ~/.cache/tf-fast-rcnn)."""
    return Path(cache_dir or os.environ.get("TF_FAST_RCNN_CACHE") or platformdirs.user_cache_dir("tf-fast-rcnn"))


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Renames the keys of a dict that an earlier version may have saved.

    Args:
        values: the saved dict.
        names: dict from old names to new ones.

    Example:
        >>> renamed({"deviation": 1, "mean": 0}, {"deviation": "std"})
        {'std': 1, 'mean': 0}
    """
    return {names.get(name, name): value for name, value in values.items()}
