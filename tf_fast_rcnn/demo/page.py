"""The page that shows what the demo's detector finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.files import write_text
from tf_fast_rcnn.visualization.pages import render_page

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath


def write_page(folder: StrPath, **values: Any) -> None:
    """Writes index.html to a folder: metrics, curves and pictures, by relative paths alone.

    Args:
        folder: where the demo wrote everything else.
        values: what `page.html` asks for.
    """
    write_text(Path(folder) / "index.html", render_page("demo/page.html", **values))
