"""The page that shows what the demo's detector finds."""

from pathlib import Path

from tf_fast_rcnn.files import write_text
from tf_fast_rcnn.visualization.pages import render_page


def write_page(folder, **values):
    """Writes index.html to a folder: metrics, curves and pictures, by relative paths alone.

    Args:
        folder: where the demo wrote everything else.
        values: what `page.html` asks for.
    """
    write_text(Path(folder) / "index.html", render_page("demo/page.html", **values))
