"""The report in a browser: content, console messages, network requests, and width on a phone."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.visualization.drawing import PALETTE


@pytest.fixture
def page(report, tmp_path):
    """A copy of the page in a folder without the other files of the report."""
    return shutil.copy(report[0] / "index.html", tmp_path / "copy.html")


def test_it_is_shown_whole_and_asks_for_nothing(chromium, page):
    text = page.read_text().replace(
        "</body>",
        """<script>addEventListener("load", () => {
          const images = [...document.images];
          const loaded = images.filter((each) => each.naturalWidth > 0).length;
          const asked = performance.getEntriesByType("resource").filter((each) => !each.name.startsWith("data:"));
          document.title = `${loaded} of ${images.length}, ${asked.length}`;
        });
        for (const image of document.images) image.loading = "eager";</script></body>""",
    )
    page.write_text(text)
    dom, console = chromium(page, "--dump-dom")
    loaded, total, asked = map(int, re.search(r"<title>(\d+) of (\d+), (\d+)</title>", dom).groups())
    assert loaded == total >= 11
    assert asked == 0
    assert "CONSOLE" not in console
    assert "Uncaught" not in console
    assert "&lt;script&gt;alert('$x_1')&lt;/script&gt; detected as cat: 1" in dom


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(chromium, page, width):
    """The page is in a frame because Chromium windows are at least 500 pixels wide."""
    measure = "parent.postMessage(`${document.documentElement.scrollWidth} ${innerWidth}`, '*');"
    page.write_text(page.read_text().replace("</body>", f"<script>{measure}</script></body>"))
    outer = page.with_name("outer.html")
    outer.write_text(
        "<title></title><script>onmessage = (event) => document.title = event.data</script>"
        f'<iframe src="{page.name}" style="border: 0; width: {width}px; height: 900px"></iframe>'
    )
    dom, _ = chromium(outer, "--dump-dom")
    scroll_width, inner_width = map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups())
    assert inner_width == width
    assert scroll_width <= width


def test_screenshot_shows_charts_and_class_colours(chromium, page, tmp_path):
    chromium(page, f"--screenshot={tmp_path / 'page.png'}", "--window-size=1000,3000")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    ground = np.all(pixels == pixels[0, 0], axis=-1)
    assert 0.4 < ground.mean() < 0.97
    for color in PALETTE[:2]:
        shade = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
        assert np.count_nonzero(np.all(pixels == shade, axis=-1)) > 50, color
