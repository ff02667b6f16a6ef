"""The demo's result page, in a browser."""

from types import SimpleNamespace

import pytest
from browser_page import browser, scroll_widths
from PIL import Image

from tf_fast_rcnn.demo.page import write_page


@pytest.mark.skipif(browser() is None, reason="no Chromium or Chrome on the PATH")
def test_the_page_fits_phones_and_desktops(tmp_path):
    classes = [SimpleNamespace(name=str(digit), ap=0.9, num_objects=17, num_detections=219) for digit in range(10)]
    result = SimpleNamespace(mean_ap=0.9, rule=lambda: "voc07, IoU 0.50", classes=classes)
    pictures = ["pictures/a.png", "evaluation/precision_recall.png", "run/losses.png"]
    for name in pictures:
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (900, 300)).save(tmp_path / name)
    values = {"summary": SimpleNamespace(steps=800, seconds=700.0), "facts": SimpleNamespace(seconds=791.0, out="demo")}
    write_page(tmp_path, result=result, test=[None] * 60, train=[None] * 400, pictures=pictures[:1] * 3, **values)
    phone, desktop = scroll_widths(browser(), tmp_path, "index.html", [390, 1280])
    assert phone <= 390
    assert desktop <= 1280
