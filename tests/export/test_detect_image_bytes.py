"""Exports for clients that send only an image, and requests that a graph rejects, run in a session."""

import numpy as np
import pytest
from naive_detection import assert_same, naive_detections, some_image, some_proposals
from served import assert_same_detections, decoded, detections_in, encoded, run_saved_model

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError, export_saved_model
from tf_fast_rcnn.data.proposals import ProposalSettings, compute_proposals, dense_grid

IMAGES = [encoded(some_image(90, 120, 0), "JPEG"), encoded(some_image(130, 80, 1), "PNG")]


def images(*contents):
    return {"image_bytes": np.array(contents, object)}


def with_proposals(*contents, proposals=7):
    boxes = np.stack([some_proposals(proposals, 0)] * len(contents))
    return {**images(*contents), "proposals": boxes, "num_proposals": np.full(len(contents), proposals, np.int32)}


CALLS = {
    "batch": ("detect_image_bytes", images(*IMAGES)),
    "alone": ("detect_image_bytes", images(IMAGES[1])),
    "none": ("detect_image_bytes", images()),
    "given": ("serving_default", with_proposals(*IMAGES)),
    "too many images": ("detect_image_bytes", images(*IMAGES, *IMAGES)),
    "too large": ("detect_image_bytes", images(encoded(some_image(500, 10), "PNG"))),
    "too long for the grid": ("detect_image_bytes", images(encoded(some_image(10, 400), "PNG"))),
    "too many given": ("serving_default", with_proposals(IMAGES[0], proposals=1001)),
    "too large, given": ("serving_default", with_proposals(encoded(some_image(500, 10), "PNG"))),
    "too large, regions": ("regions", with_proposals(encoded(some_image(500, 10), "PNG"))),
    "GIF": ("serving_default", with_proposals(encoded(some_image(), "GIF"))),
    "two images, one row": ("serving_default", {**with_proposals(IMAGES[0]), **images(*IMAGES)}),
}
REASONS = {
    "none": "inputs: found [0] images",
    "too many images": "inputs: found [4] images; expected 1 to 3, the same number in each input",
    "too large": "found the size [500 10]",
    "too long for the grid": "proposals: found",
    "too many given": "proposals: found 1001 for an image; expected at most 1000",
    "too large, given": "found the size [500 10]",
    "too large, regions": "found the size [500 10]",
    "GIF": "found the size [0 0] (0: unknown); expected JPEG, PNG or WebP",
    "two images, one row": "inputs: found [2 1 1] images",
}


@pytest.fixture(scope="module")
def served(grid_export, tmp_path_factory):
    return run_saved_model(grid_export.folder, list(CALLS.values()), tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def outputs(served):
    return dict(zip(CALLS, served["outputs"], strict=True))


@pytest.mark.parametrize("index", [0, 1])
def test_detections_are_those_of_the_same_proposals(outputs, grid_export, tiny_model, index):
    image, options = decoded(IMAGES[index]), grid_export.options
    proposals = compute_proposals(image, options["proposals"])
    assert len(proposals) > 30
    found = detections_in(outputs["batch"], index)
    assert_same(found, naive_detections(tiny_model, image, proposals, options["settings"]))
    assert_same_detections(found, frcnn.detect(tiny_model, image, options["proposals"], options["settings"]))


def test_the_batch_does_not_matter(outputs):
    assert_same_detections(detections_in(outputs["alone"], 0), detections_in(outputs["batch"], 1), tolerance=1e-6)


@pytest.mark.parametrize("call", ["batch", "given"])
def test_class_names_stand_beside_the_classes(outputs, grid_export, call):
    names, classes = outputs[call]["detection_class_names"], outputs[call]["detection_classes"]
    assert names.shape == (2, 20)
    expected = np.array(["", *grid_export.options["class_names"]])[classes]
    assert set(expected.flat) >= {"cat", "dog"}
    np.testing.assert_array_equal(np.vectorize(bytes.decode, otypes=[object])(names), expected)


@pytest.mark.parametrize("call", REASONS)
def test_what_is_refused(outputs, call):
    assert isinstance(outputs[call], str), outputs[call]
    assert outputs[call].startswith("InvalidArgument")
    assert REASONS[call] in outputs[call]


def test_the_grid_has_stock_ops_alone(served):
    assert served["unknown"] == []
    assert not any("Fast" in op or op in ("PyFunc", "EagerPyFunc") for op in served["ops"])


def test_selective_search_in_the_graph(search_export, tiny_model, tmp_path):
    calls, options = [("detect_image_bytes", images(*IMAGES))], search_export.options
    result = run_saved_model(search_export.folder, calls, tmp_path, search_export.library)
    # A server with the selective search op also has the RoI pooling op.
    assert {"TfFastRcnn>SelectiveSearch", "TfFastRcnn>RoiPool"} <= result["ops"]
    for index, contents in enumerate(IMAGES):
        proposals = compute_proposals(decoded(contents), options["proposals"])
        expected = frcnn.detect(tiny_model, decoded(contents), proposals, options["settings"])
        assert_same_detections(detections_in(result["outputs"][0], index), expected)


@pytest.mark.parametrize(
    ("proposals", "limits", "message"),
    [
        (
            ProposalSettings(dense=dense_grid()),
            frcnn.ServingLimits(max_proposals=1000),
            "max_proposals: found 1000; expected at least 2..., as many as the graph computes for a 4:3 image",
        ),
        (
            ProposalSettings("fast", 2000),
            frcnn.ServingLimits(max_proposals=1000),
            "max_proposals: found 1000; expected at least 2000, as many as the graph computes for a 4:3 image",
        ),
        (ProposalSettings("fast", implementation="opencv"), None, "found selective search with .* 'opencv'"),
    ],
)
def test_what_cannot_be_exported(tiny_model, tmp_path, proposals, limits, message):
    with pytest.raises(InputError, match=message):
        export_saved_model(
            tiny_model, tmp_path / "1", class_names=("cat", "dog", "ox"), proposals=proposals, limits=limits
        )
    assert list(tmp_path.iterdir()) == []


def test_tiles_are_seen_in_the_graph(tiny_model, tmp_path):
    settings = frcnn.DetectionSettings(64, 128, score_threshold=0.2, tile=48, tile_overlap=0.5, max_detections=30)
    proposals = ProposalSettings(dense=dense_grid([0.2, 0.4], [1.0], 0.5), min_size=0.1, tiles=settings.tiles)
    options = {"settings": settings, "proposals": proposals, "class_names": ("a", "b", "c")}
    export_saved_model(tiny_model, tmp_path / "1", **options)
    calls = [("detect_image_bytes", images(*IMAGES)), ("serving_default", with_proposals(*IMAGES))]
    served, given = run_saved_model(tmp_path / "1", calls, tmp_path)["outputs"]
    for index, content in enumerate(IMAGES):
        expected = frcnn.detect(tiny_model, decoded(content), proposals, settings)
        assert len(expected) > 5
        assert_same_detections(detections_in(served, index), expected)
        expected = frcnn.detect(tiny_model, decoded(content), some_proposals(7, 0), settings)
        assert_same_detections(detections_in(given, index), expected)
    assert len(compute_proposals(decoded(IMAGES[0]), proposals)) > 100
    assert frcnn.Predictor.load(tmp_path / "1").settings.tiles == frcnn.Tiles(48, 0.5)
