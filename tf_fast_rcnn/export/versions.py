"""Version folders in the layout of TensorFlow Serving: MODEL/1, MODEL/2, ..."""

from __future__ import annotations

from pathlib import Path

from tf_fast_rcnn.errors import InputError


def version_folder(out: Path) -> Path:
    """The folder to export a model to. A folder with a numeric name is a version; any other folder contains versions.

    Args:
        out: the folder of a model or of a version.

    Returns:
        `out` if its name is a number, otherwise the next version in it.

    Raises:
        InputError: if `out` is a file, or a SavedModel that is not a version.

    Example:
        >>> version_folder(Path("serving/new"))
        PosixPath('serving/new/1')
    """
    if out.name.isdecimal():
        return out
    if out.is_file() or (out / "saved_model.pb").exists():
        raise InputError(
            f"{out}: found a {'file' if out.is_file() else 'SavedModel'}; expected a model's folder with numbered "
            f"versions, or a version; choose another folder, or {out.parent}/1"
        )
    versions = [int(entry.name) for entry in out.glob("*") if entry.name.isdecimal()]
    return out / str(1 + max(versions, default=0))
