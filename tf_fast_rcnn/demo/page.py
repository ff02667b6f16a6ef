"""The demo's result page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.files import write_text
from tf_fast_rcnn.visualization.pages import render_page

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath


def write_page(folder: StrPath, **values: Any) -> None:
    """Writes index.html with metrics, curves and pictures, linked by relative paths.

    Args:
        folder: the demo's output folder.
        values: the variables of `page.html`.
    """
    write_text(Path(folder) / "index.html", render_page("demo/page.html", **values))
