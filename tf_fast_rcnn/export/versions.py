"""Version folders, as TensorFlow Serving watches them: MODEL/1, MODEL/2, ..."""

from __future__ import annotations

from pathlib import Path

from tf_fast_rcnn.errors import InputError


def version_folder(out: Path) -> Path:
    """Where a model is exported to: a folder whose name is a number is a version, any other has versions in it.

    Args:
        out: pathlib.Path.

    Returns:
        `out` itself where its name is a number, else the next version in it.

    Raises:
        InputError: where `out` is a file, or a SavedModel that is no version.

    Example:
        >>> version_folder(Path("serving/new"))
        PosixPath('serving/new/1')
    """
    if out.name.isdecimal():
        return out
    if out.is_file() or (out / "saved_model.pb").exists():
        raise InputError(
            f"{out}: found a {'file' if out.is_file() else 'SavedModel'}; expected a model's folder, whose versions "
            f"are numbers, or a version; give another one, or {out.parent}/1"
        )
    versions = [int(entry.name) for entry in out.glob("*") if entry.name.isdecimal()]
    return out / str(1 + max(versions, default=0))
