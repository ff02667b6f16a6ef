"""The gateway before a server, and its page in a browser."""

import base64
import concurrent.futures
import contextlib
import os
import re
import signal
import time
import types

import numpy as np
import pytest
import requests
from aiohttp import web
from naive_detection import some_image
from PIL import Image
from servers import CLASS_NAMES, SETTINGS, encoded, in_thread

from tf_fast_rcnn import detect, proposal_settings
from tf_fast_rcnn.data.proposals import compute_proposals
from tf_fast_rcnn.serving.gateway import Gateway, gateway_application
from tf_fast_rcnn.serving.limits import Limits
from tf_fast_rcnn.serving.proposal_workers import ProposalWorkers, with_proposals
from tf_fast_rcnn.serving.server import listening
from tf_fast_rcnn.visualization.drawing import PALETTE
from tf_fast_rcnn.visualization.pages import render_page

PROPOSALS = proposal_settings("selective-search", dataset=())
IMAGE = some_image(120, 160, 0)

# Acts as a user does once the page is there: an image is dropped, and a row of the table takes the focus.
DROP = """<script>addEventListener("load", async () => {
  const file = new File([await (await fetch("image.png")).blob()], "cells.png", { type: "image/png" });
  const dropped = new DataTransfer();
  dropped.items.add(file);
  document.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, cancelable: true, bubbles: true }));
  await new Promise((resolve) => new MutationObserver(resolve).observe(at("rows"), { childList: true }));
  const count = (what) => document.querySelectorAll(what).length;
  const before = count(".box");
  at("threshold").value = 0.98; at("threshold").dispatchEvent(new Event("input"));
  document.querySelector("tbody tr").focus();
  document.title = `${before} ${count(".box")} ${count(".chosen")}`;
});</script>"""


@contextlib.asynccontextmanager
async def gateway_before(address, workers):
    """The gateway's port; beside its page there is one that acts by itself, and an image."""
    limits = Limits(2, 8)
    gateway = Gateway("tiny", address, workers, limits, lambda version: CLASS_NAMES)
    application = gateway_application(gateway, limits, 1 << 20)

    async def image(_):
        return web.Response(body=encoded(IMAGE, "PNG"), content_type="image/png")

    async def acting(_):
        page = render_page("serving/page.html", model="tiny", palette=list(PALETTE))
        return web.Response(text=page.replace("</body>", f"{DROP}</body>"), content_type="text/html")

    application.router.add_get("/image.png", image)
    application.router.add_get("/acting", acting)
    try:
        async with listening(application, "127.0.0.1", 0, 5) as port:
            yield port
    finally:
        await gateway.close()


@pytest.fixture(scope="module")
def workers():
    workers = ProposalWorkers(2, PROPOSALS, 200)
    yield workers
    workers.stop()


@pytest.fixture(scope="module")
def url(detector, workers):
    with in_thread(gateway_before(f"127.0.0.1:{detector.ports['grpc']}", workers)) as port:
        yield f"http://127.0.0.1:{port}/"


def post(url, body, kind="image/jpeg", name="tiny"):
    answer = requests.post(f"{url}v1/models/{name}:detect", data=body, headers={"Content-Type": kind}, timeout=60)
    return answer.status_code, answer.json()


def expected_of(tiny_model, image):
    """What the library finds: selective search's first 200 boxes, and the model itself."""
    return detect(tiny_model, image, compute_proposals(image, PROPOSALS)[:200], SETTINGS)


def assert_same(answer, expected):
    assert [row["class"] for row in answer["detections"]] == [CLASS_NAMES[label - 1] for label in expected.class_ids]
    np.testing.assert_allclose([row["score"] for row in answer["detections"]], expected.scores, atol=1e-4)
    np.testing.assert_allclose([row["box"] for row in answer["detections"]], expected.boxes, atol=1e-4)


def test_an_image_alone_gives_what_the_library_gives(url, tiny_model):
    status, answer = post(url, encoded(IMAGE, "PNG"))
    assert status == 200
    assert len(answer["detections"]) == 20
    assert_same(answer, expected_of(tiny_model, IMAGE))
    assert answer["image"] == {"height": 120, "width": 160}
    assert answer["model_version"] == 1
    body = f'{{"image_bytes": {{"b64": "{base64.b64encode(encoded(IMAGE, "PNG")).decode()}"}}}}'
    assert post(url, body, "application/json")[1]["detections"] == answer["detections"]


def test_all_proposals_count_unless_there_is_a_limit():
    every = compute_proposals(IMAGE, PROPOSALS)
    assert len(every) > 200
    np.testing.assert_array_equal(with_proposals(encoded(IMAGE, "PNG"), PROPOSALS, None).proposals, every)
    np.testing.assert_array_equal(with_proposals(encoded(IMAGE, "PNG"), PROPOSALS, 200).proposals, every[:200])


def test_a_photo_from_a_phone_is_turned_upright(url, tiny_model, tmp_path):
    """EXIF orientation 6: stored on its side. TIFF: a format that the model does not read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(IMAGE)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(IMAGE).save(tmp_path / "image.tiff")
    for name in ("turned.png", "image.tiff"):
        status, answer = post(url, (tmp_path / name).read_bytes())
        assert status == 200, answer
        assert answer["image"] == {"height": 120, "width": 160}
        assert_same(answer, expected_of(tiny_model, IMAGE))


@pytest.mark.parametrize(
    ("body", "kind", "name", "status"),
    [
        (b"", "image/jpeg", "tiny", 400),
        (b"no image", "image/jpeg", "tiny", 400),
        (encoded(IMAGE)[:500], "image/jpeg", "tiny", 400),
        (b"{}", "application/json", "tiny", 400),
        (b'{"image_bytes": {"b64": "?"}}', "application/json", "tiny", 400),
        (b"[", "application/json", "tiny", 400),
        (bytes(2 << 20), "image/jpeg", "tiny", 413),
        (encoded(IMAGE), "image/jpeg", "other", 404),
    ],
)
def test_what_is_refused(url, body, kind, name, status):
    found, answer = post(url, body, kind, name)
    assert found == status
    assert answer["error"]
    assert "0x" not in answer["error"]


def test_a_huge_image_in_a_small_file_is_refused(url, tmp_path):
    Image.new("1", (10_000, 10_001)).save(tmp_path / "huge.png")
    assert (tmp_path / "huge.png").stat().st_size < 100_000
    status, answer = post(url, (tmp_path / "huge.png").read_bytes())
    assert status == 400
    assert "decompression bomb" in answer["error"]


def test_a_killed_worker_fails_what_it_did_and_others_take_its_place(url, workers):
    good = encoded(IMAGE)
    assert post(url, good)[0] == 200
    large = encoded(some_image(600, 800, 1))
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        running = [threads.submit(post, url, large) for _ in range(2)]
        time.sleep(0.3)
        for process in list(workers._executor._processes):
            os.kill(process, signal.SIGKILL)
        for status, answer in (future.result() for future in running):
            assert status in (200, 503)  # 200: it was done already
            if status == 503:
                assert "killed" in answer["error"]
    assert post(url, good)[0] == 200


def test_without_a_server(workers):
    with in_thread(gateway_before("127.0.0.1:9", workers)) as port:
        url = f"http://127.0.0.1:{port}/"
        assert post(url, encoded(IMAGE))[0] == 503
        assert requests.get(f"{url}healthz", timeout=60).status_code == 503


def test_health_and_metrics(url):
    assert requests.get(f"{url}healthz", timeout=60).json() == {"status": "SERVING"}
    post(url, b"")
    assert (
        'method="detect",protocol="rest",status="INVALID_ARGUMENT"'
        in requests.get(f"{url}monitoring/prometheus/metrics", timeout=60).text
    )


def in_browser(chromium, url, *options):
    return chromium(types.SimpleNamespace(as_uri=lambda: url), *options)


def test_a_dropped_image_shows_boxes_and_a_table(chromium, url, tiny_model):
    dom, log = in_browser(chromium, f"{url}acting", "--dump-dom", "--virtual-time-budget=20000")
    assert "CONSOLE" not in log
    assert "Uncaught" not in log
    scores = expected_of(tiny_model, IMAGE).scores
    many, few = (int(np.count_nonzero(scores >= least)) for least in (0.5, 0.98))
    assert 0 < few < many
    assert re.search("<title>(.*)</title>", dom)[1] == f"{many} {few} 1"
    assert f"{few} objects found" in dom
    assert dom.count('tabindex="0"') == few


def test_the_page_can_be_read_without_seeing_it(chromium, url):
    dom, _ = in_browser(chromium, url, "--dump-dom")
    assert 'role="status" aria-live="polite"' in dom
    for control in re.findall(r"<input[^>]*id=\"(\w+)\"", dom):
        assert f'<label for="{control}">' in dom or f'for="{control}">' in dom
    assert "http://" not in dom.replace("http://www.w3.org", "")
    assert requests.get(url, timeout=60).headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_screenshot_shows_the_image_and_class_colours(chromium, url, tmp_path):
    picture = tmp_path / "page.png"
    size = "--window-size=1000,700"
    in_browser(chromium, f"{url}acting", f"--screenshot={picture}", size, "--virtual-time-budget=20000")
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    shades = [[int(color[start : start + 2], 16) for start in (1, 3, 5)] for color in PALETTE[:3]]
    assert max(np.count_nonzero(np.all(pixels == shade, axis=-1)) for shade in shades) > 50
