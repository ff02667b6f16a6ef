"""The page in a browser: its content, console, script, and its width on a phone."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.visualization.drawing import PALETTE


def with_script(page, code):
    """Writes a copy of a page next to it, with some code at the end."""
    copy = page.with_name("copy.html")
    copy.write_text(page.read_text().replace("</body>", f"<script>{code}</script></body>"))
    return copy


@pytest.fixture
def page(odd_page, tmp_path):
    """The page in a copy of its folder, to which a test may add files."""
    return shutil.copytree(odd_page[0], tmp_path / "a page") / "index.html"


def test_findings_are_shown_and_the_console_is_silent(chromium, page):
    dom, log = chromium(page, "--dump-dom")
    assert "alert('$x_1')" in dom
    assert "Objects annotated twice (1)" in dom
    assert "cat and &lt;script&gt;alert('$x_1')&lt;/script&gt;, IoU 1.00" in dom
    assert "CONSOLE" not in log
    assert "Uncaught" not in log


def test_an_error_of_the_script_would_be_noticed(chromium, page):
    _, log = chromium(with_script(page, "throw new Error('seen')"), "--dump-dom")
    assert "Uncaught Error: seen" in log


def test_every_picture_loads(chromium, page):
    """Including those with loading="lazy", which the test requests at once."""
    code = """const images = [...document.images];
        for (const image of images) image.loading = "eager";
        addEventListener("load", () => {
          document.title = `${images.filter((image) => image.naturalWidth > 0).length} of ${images.length}`;
        });"""
    dom, _ = chromium(with_script(page, code), "--dump-dom")
    loaded, total = map(int, re.search(r"<title>(\d+) of (\d+)</title>", dom).groups())
    assert loaded == total > 25


def test_the_class_filter_shows_the_images_of_a_class(chromium, page):
    code = """const select = document.querySelector("#filter select");
        select.value = "%s"; select.dispatchEvent(new Event("change"));
        const shown = [...document.querySelectorAll(".sheet figure")].filter((each) => each.offsetParent !== null);
        document.title = shown.map((each) => each.dataset.labels).join("|");"""
    all_images = chromium(with_script(page, code % ""), "--dump-dom")[0]
    cards = re.search("<title>(.*)</title>", all_images)[1].split("|")
    assert len(cards) == 6
    cats = chromium(with_script(page, code % "1"), "--dump-dom")[0]
    expected = [labels for labels in cards if "1" in labels.split()]
    assert 0 < len(expected) < 6
    assert re.search("<title>(.*)</title>", cats)[1].split("|") == expected
    assert re.search(rf'<output id="shown" class="soft">{len(expected)} images', cats)


def test_the_switch_shows_annotations_or_proposals_without_a_script(chromium, page):
    code = """const all = (name) => [...document.querySelectorAll("." + name)];
        const seen = (name) => all(name).filter((each) => each.offsetParent).length;
        const before = [seen("annotated"), seen("proposed")];
        document.getElementById("show-proposed").checked = true;
        document.title = [...before, seen("annotated"), seen("proposed")].join(" ");"""
    dom, _ = chromium(with_script(page, code), "--dump-dom")
    assert re.search("<title>(.*)</title>", dom)[1] == "6 0 0 6"


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(chromium, page, width):
    """The test uses a frame, because Chromium's windows are at least 500 pixels wide."""
    measure = "parent.postMessage(`${document.documentElement.scrollWidth} ${innerWidth}`, '*');"
    inner = with_script(page, measure)
    outer = page.with_name("outer.html")
    outer.write_text(
        "<title></title><script>onmessage = (event) => document.title = event.data</script>"
        f'<iframe src="{inner.name}" style="border: 0; width: {width}px; height: 900px"></iframe>'
    )
    dom, _ = chromium(outer, "--dump-dom")
    scroll_width, inner_width = map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups())
    assert inner_width == width
    assert scroll_width <= width


def test_screenshot_shows_text_charts_and_class_colours(chromium, page, tmp_path):
    chromium(page, f"--screenshot={tmp_path / 'page.png'}", "--window-size=1000,1600")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert pixels.shape == (1600, 1000, 3)
    ground = np.all(pixels == pixels[0, 0], axis=-1)
    assert 0.4 < ground.mean() < 0.97
    for color in PALETTE[:3]:  # swatches of the classes, and the bars of charts
        shade = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
        assert np.count_nonzero(np.all(pixels == shade, axis=-1)) > 50, color
