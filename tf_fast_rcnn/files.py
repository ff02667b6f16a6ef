"""Writing files that are whole or not there, and the folder of those that can be made again."""

import contextlib
import os
from pathlib import Path

import platformdirs


@contextlib.contextmanager
def replacing(path):
    """A binary file that takes the place of `path` once it is complete."""
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder(cache_dir=None):
    """`cache_dir`, else $TF_FAST_RCNN_CACHE, else the user's cache folder (Linux: ~/.cache/tf-fast-rcnn)."""
    return Path(cache_dir or os.environ.get("TF_FAST_RCNN_CACHE") or platformdirs.user_cache_dir("tf-fast-rcnn"))
