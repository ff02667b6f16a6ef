"""TensorFlow.js models in Node.js and in a browser, in JavaScript only, without this package."""

import shutil

import numpy as np
import pytest
from browser_page import answer_of, browser
from naive_detection import assert_same, naive_detections, some_image, some_proposals
from PIL import Image
from runtimes import node_detections, run_in_node

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, InputError, detect, export_tfjs
from tf_fast_rcnn.data.proposals import ProposalSettings, compute_proposals, dense_boxes, dense_grid

CLASS_NAMES = ("cat", "dog", "ox")
SETTINGS = DetectionSettings(shorter_side=96, longer_side=144, max_detections=20)


@pytest.fixture(scope="module")
def any_size(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfjs") / "any"
    export_tfjs(tiny_model, folder, class_names=CLASS_NAMES, settings=SETTINGS)
    return folder


@pytest.mark.parametrize("backend", ["cpu", "wasm"])
def test_node_detects_what_loops_do(example, any_size, tiny_model, tmp_path, backend):
    pairs = [(some_image(90, 120, 0), some_proposals(40, 0)), (some_image(130, 80, 1), some_proposals(7, 1))]
    pairs.append((some_image(60, 60, 2), some_proposals(0)))
    found = run_in_node(example, backend, any_size, pairs, tmp_path)
    for each, (image, proposals) in zip(found[:2], pairs, strict=False):
        assert_same(
            node_detections(each["detections"], CLASS_NAMES), naive_detections(tiny_model, image, proposals, SETTINGS)
        )
    assert found[2]["detections"] == []
    # No tensors are leaked in GPU or WebAssembly memory.
    assert found[0]["tensors"] == found[1]["tensors"] == found[2]["tensors"]


def test_float16_weights_and_fixed_shapes(example, tiny_model, tmp_path):
    image, proposals = some_image(90, 120), some_proposals(40)
    export_tfjs(
        tiny_model, tmp_path / "half", class_names=CLASS_NAMES, settings=SETTINGS, precision="float16",
        image_size=(90, 120), num_proposals=40,
    )  # fmt: skip
    (found,) = run_in_node(example, "wasm", tmp_path / "half", [(image, proposals)], tmp_path)
    expected = detect(tiny_model, image, proposals, SETTINGS)
    np.testing.assert_allclose(
        node_detections(found["detections"], CLASS_NAMES).scores[:5], expected.scores[:5], atol=2e-2
    )


def stored_bytes(folder):
    return sum(path.stat().st_size for path in folder.glob("*.bin"))


def test_float16_takes_half_the_room(tiny_run, tmp_path):
    run = frcnn.load_run(tiny_run[0])
    for precision in ("float32", "float16"):
        export_tfjs(run.model, tmp_path / precision, class_names=run.class_names, precision=precision)
    saved = stored_bytes(tmp_path / "float32") - stored_bytes(tmp_path / "float16")
    weights = sum(int(np.prod(weight.shape)) for weight in run.model.trainable_weights if len(weight.shape) > 1)
    assert saved >= 2 * weights


def test_browsers_make_the_dense_boxes_of_training(example, tiny_run, tmp_path):
    run = frcnn.load_run(tiny_run[0])
    export_tfjs(run.model, tmp_path / "model", class_names=run.class_names, proposals=run.proposals)
    images = [np.zeros((height, width, 3), np.uint8) for height, width in [(96, 128), (130, 77), (64, 64)]]
    none = np.zeros((0, 4), np.float32)
    found = run_in_node(example, "wasm", tmp_path / "model", [(image, none) for image in images], tmp_path)
    for each, image in zip(found, images, strict=True):
        made = np.float32(each["proposals"]).reshape(-1, 4)
        np.testing.assert_allclose(made, compute_proposals(image, run.proposals), atol=1e-6)


def test_browsers_make_common_boxes_where_training_had_others(example, any_size, tmp_path):
    image = np.zeros((60, 90, 3), np.uint8)
    (found,) = run_in_node(example, "wasm", any_size, [(image, np.zeros((0, 4), np.float32))], tmp_path)
    made = np.float32(found["proposals"]).reshape(-1, 4)
    np.testing.assert_allclose(made, dense_boxes(60, 90, dense_grid()), atol=1e-6)


HARNESS = """<iframe id="page" src="index.html?backend=wasm&image=image.png"></iframe>
<script>
const post = (answer) => fetch("/answer", { method: "POST", body: JSON.stringify(answer) });
const frame = document.getElementById("page");
frame.onload = () => {
  const page = frame.contentDocument;
  const text = (id) => page.getElementById(id).textContent;
  page.addEventListener("detected", ({ detail }) => {
    page.getElementById("threshold").value = 0.05;
    page.getElementById("threshold").dispatchEvent(new Event("input"));
    const pixel = [...page.getElementById("picture").getContext("2d").getImageData(0, 0, 400, 400).data];
    const resources = frame.contentWindow.performance.getEntriesByType("resource").map(({ name }) => name);
    post({ ...detail, status: text("status"), rows: page.querySelectorAll("#rows tr").length, pixel, resources });
  });
  setInterval(() => text("status").startsWith("Error") && post({ status: text("status") }), 100);
};
</script>"""


def test_the_page_in_a_browser(example, tiny_model, tmp_path):
    chromium = browser()
    if chromium is None:
        pytest.skip("no Chromium or Chrome on the PATH: the page was not opened")
    site = shutil.copytree(example, tmp_path / "site", ignore=shutil.ignore_patterns("node_modules"))
    # Few enough that no two of them have the same cells, and therefore equal scores.
    proposals = ProposalSettings(dense=dense_grid(scales=[0.4, 0.7], aspect_ratios=[1.0], stride=0.5))
    export_tfjs(tiny_model, site / "model", class_names=CLASS_NAMES, settings=SETTINGS, proposals=proposals)
    image = some_image(90, 120)
    Image.fromarray(image).save(site / "image.png")
    (site / "harness.html").write_text(HARNESS)
    answer = answer_of(chromium, site, "harness.html")
    assert "error" not in answer["status"].lower()
    expected = detect(tiny_model, image, proposals, SETTINGS)
    assert len(answer["detections"]) == answer["rows"] == len(expected.scores) > 0
    assert_same(node_detections(answer["detections"], CLASS_NAMES), expected)
    drawn = np.array(answer["pixel"]).reshape(400, 400, 4)[:90, :120, :3]
    assert 0.01 < np.any(drawn != image, axis=2).mean() < 1
    assert {name.split("/")[2].split(":")[0] for name in answer["resources"]} == {"127.0.0.1"}


def test_the_page_says_what_is_no_image(example, any_size, tmp_path):
    chromium = browser()
    if chromium is None:
        pytest.skip("no Chromium or Chrome on the PATH: the page was not opened")
    site = shutil.copytree(example, tmp_path / "site", ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(any_size, site / "model")
    (site / "image.png").write_bytes(b"no image")
    (site / "harness.html").write_text(HARNESS)
    assert "the browser cannot read this file as an image" in answer_of(chromium, site, "harness.html")["status"]


def test_a_layer_that_tensorflow_js_has_no_op_for(detector_with_igamma, tmp_path):
    with pytest.raises(InputError, match=r"found layers with the ops Igamma; expected ops that TensorFlow.js supports"):
        export_tfjs(detector_with_igamma, tmp_path / "model", class_names=CLASS_NAMES, settings=SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_what_a_model_cannot_be(tiny_model, tmp_path):
    with pytest.raises(InputError, match="precision: found 'int8'; expected one of float32, float16"):
        export_tfjs(tiny_model, tmp_path / "model", class_names=CLASS_NAMES, precision="int8")
    with pytest.raises(InputError, match="found an existing folder or file; expected a new folder"):
        export_tfjs(tiny_model, tmp_path, class_names=CLASS_NAMES)
    with pytest.raises(InputError, match="class_names: found 2; expected the model's 3"):
        export_tfjs(tiny_model, tmp_path / "model", class_names=CLASS_NAMES[:2])
    assert list(tmp_path.iterdir()) == []
