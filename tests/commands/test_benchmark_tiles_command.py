"""`tf-fast-rcnn benchmark tiles`: the same detector in our tiles and in slices of SAHI, which a stand-in replaces."""

import dataclasses
import json
import sys

import numpy as np
import pytest

import tf_fast_rcnn as frcnn

# Without merging: enough to see what SAHI is called with, and that its boxes come back in the right place.
STAND_IN = {
    "sahi/__init__.py": "",
    "sahi/models/__init__.py": "",
    "sahi/models/base.py": """
class DetectionModel:
    def __init__(self, model, confidence_threshold, device):
        self.confidence_threshold = confidence_threshold
        self.set_model(model)

    def found(self, image, shift):
        self.perform_inference(image)
        self._create_object_prediction_list_from_original_predictions(shift, [999, 999])
        (found,) = self._object_prediction_list_per_image
        return found
""",
    "sahi/prediction.py": """
import types

class ObjectPrediction:
    def __init__(self, bbox, category_id, category_name, score, shift_amount, full_shape):
        assert category_name == str(category_id - 1)  # the digits
        self.score = types.SimpleNamespace(value=score)
        self.category = types.SimpleNamespace(id=category_id)
        self.bbox = types.SimpleNamespace(to_xyxy=lambda: [bbox[i] + shift_amount[i % 2] for i in range(4)])
""",
    "sahi/predict.py": """
import types

calls = []

def get_sliced_prediction(image, model, **options):
    calls.append((image.shape, options))
    size, found = options["slice_height"], []
    for top in range(0, image.shape[0], size):
        for left in range(0, image.shape[1], size):
            found += model.found(image[top : top + size, left : left + size], [[left, top]])
    if options["perform_standard_pred"]:
        found += model.found(image, [0, 0])
    return types.SimpleNamespace(object_prediction_list=found)
""",
}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Importing SAHI imports the stand-in, here and in processes that this one starts."""
    for name, text in STAND_IN.items():
        path = tmp_path / "path" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _forget(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path / "path")
    import sahi.predict

    yield sahi.predict
    _forget(monkeypatch)


def _forget(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sahi"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def no_sahi(tmp_path, monkeypatch):
    """Importing SAHI fails, here and in processes that this one starts."""
    package = tmp_path / "path" / "sahi"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('no SAHI here')\n")
    _forget(monkeypatch)
    monkeypatch.syspath_prepend(package.parent)


def measured(tiny_run, digits, **choices):
    from tf_fast_rcnn.benchmarks.tiles import measure_tiles

    return measure_tiles(tiny_run[0], f"voc:{digits}@test", **choices)


def test_all_contestants_are_measured(tiny_run, digits, stand_in):
    result = measured(tiny_run, digits, tile=120, overlap=0.5, images=2)
    assert (result["images"], result["tile"], result["overlap"], result["whole_image"]) == (2, 120, 0.5, True)
    assert result["missing"] == {}
    assert list(result["rows"]) == ["ours", "SAHI, NMS", "SAHI, GREEDYNMM"]
    for row in result["rows"].values():
        assert row["seconds"] > 0
        assert 0 <= row["ap50"] <= row["recall"] <= 1
        assert row["detections"] > 0
    # Our own path, written out.
    run = frcnn.load_run(tiny_run[0])
    settings = frcnn.detection_settings(run, tile=120, tile_overlap=0.5, score_threshold=0.01)
    proposals = dataclasses.replace(run.proposals, tiles=settings.tiles)
    images = frcnn.load_dataset(f"voc:{digits}@test", run.class_names)[::2]
    found = [frcnn.detect(run.model, record.image(), proposals, settings) for record in images]
    expected = frcnn.score_detections(images, found, "voc10")
    assert result["objects"] == sum(len(record.boxes) for record in images)
    assert result["rows"]["ours"]["ap50"] == pytest.approx(expected.mean_ap)
    assert result["rows"]["ours"]["detections"] == sum(map(len, found))


def test_sahi_gets_the_settings_of_the_run(tiny_run, digits, stand_in):
    measured(tiny_run, digits, tile=120, overlap=0.25, images=1)
    options = [options for _, options in stand_in.calls]
    # Each once to warm up.
    assert [each["postprocess_type"] for each in options] == ["NMS", "NMS", "GREEDYNMM", "GREEDYNMM"]
    assert [each["postprocess_match_metric"] for each in options] == ["IOU", "IOU", "IOS", "IOS"]
    assert [each["postprocess_match_threshold"] for each in options] == [0.3, 0.3, 0.5, 0.5]
    for each in options:
        assert (each["slice_height"], each["slice_width"], each["perform_standard_pred"]) == (120, 120, True)
        assert (each["overlap_height_ratio"], each["overlap_width_ratio"]) == (0.25, 0.25)
        assert each["force_postprocess_type"]


def test_slices_come_back_in_place(tiny_run, digits, stand_in):
    """What is found in a slice is the same, and moved, when another slice comes before it."""
    from tf_fast_rcnn.benchmarks.tiles import _contestants

    run = frcnn.load_run(tiny_run[0])
    choices = {"whole_image": False, "score_threshold": 0.01, "max_detections": 9999}
    settings = frcnn.detection_settings(run, tile=120, tile_overlap=0.75, **choices)
    contestants, _ = _contestants(run, settings)
    image = frcnn.load_dataset(f"voc:{digits}@test", run.class_names)[0].image()
    corner = np.ascontiguousarray(image[:120, :120])
    alone = contestants["SAHI, NMS"](corner)
    assert len(alone) > 0
    padded = np.zeros((120, 240, 3), np.uint8)
    padded[:, 120:] = corner
    beside = contestants["SAHI, NMS"](padded)
    beside = beside[beside.boxes[:, 1] >= 0.5]
    assert len(beside) == len(alone)
    same = 5
    np.testing.assert_allclose(beside.scores[:same], alone.scores[:same], rtol=1e-3)
    np.testing.assert_array_equal(beside.class_ids[:same], alone.class_ids[:same])
    moved = alone.boxes[:same] * [1, 0.5, 1, 0.5] + [0, 0.5, 0, 0.5]
    np.testing.assert_allclose(beside.boxes[:same], moved, atol=1e-4)


def test_proposals_of_slices_and_of_the_whole_image(tiny_run):
    from tf_fast_rcnn.benchmarks.tiles import _ViewDetector

    run = frcnn.load_run(tiny_run[0])
    settings = frcnn.detection_settings(run, tile=120, tile_overlap=0.5)
    views = _ViewDetector(run, settings)
    small = views._proposals_of(np.zeros((120, 120, 3), np.uint8), whole=False) * 120
    large = views._proposals_of(np.zeros((240, 320, 3), np.uint8), whole=True) * [240, 320, 240, 320]
    assert np.max(small[:, 2:] - small[:, :2]) <= 60.01
    assert np.min(np.max(large[:, 2:] - large[:, :2], axis=1)) >= 59.99
    assert len(small) > 0
    assert len(large) > 0


@pytest.mark.slow  # times a peer
def test_real_sahi(tiny_run, digits):
    """With a tile as large as the image, and nothing but suppression, SAHI finds what `detect` finds."""
    pytest.importorskip("sahi", reason="SAHI is not an extra: it would replace OpenCV's package")
    from tf_fast_rcnn.benchmarks.tiles import _contestants

    run = frcnn.load_run(tiny_run[0])
    settings = frcnn.detection_settings(run, tile=400, tile_overlap=0.75, whole_image=False, score_threshold=0.01)
    contestants, missing = _contestants(run, settings)
    assert missing == {}
    image = frcnn.load_dataset(f"voc:{digits}@test", run.class_names)[0].image()
    theirs = contestants["SAHI, NMS"](image)
    assert len(theirs) > 0
    shorter = round(settings.shorter_side * min(image.shape[:2]) / 400)
    plain = dataclasses.replace(settings, tile=None, shorter_side=shorter)
    expected = frcnn.detect(run.model, image, dataclasses.replace(run.proposals, tiles=None), plain)
    np.testing.assert_allclose(theirs.scores[:20], expected.scores[:20], rtol=1e-5)
    np.testing.assert_allclose(theirs.boxes[:5], expected.boxes[:5], atol=1e-4)
    result = measured(tiny_run, digits, tile=120, overlap=0.5, images=2)
    assert list(result["rows"]) == ["ours", "SAHI, NMS", "SAHI, GREEDYNMM"]


@pytest.mark.slow  # four processes
@pytest.mark.usefixtures("stand_in")
def test_command(tiny_run, digits, tmp_path, command):
    path = tmp_path / "found.json"
    options = ["--data", f"voc:{digits}@test", "--tile", "120", "--overlap", "0.5", "--images", "1", "--json", path]
    finished = command("benchmark", "tiles", tiny_run[0], *options)
    assert finished.code == 0, finished.err
    result = json.loads(path.read_text())
    rows = result["rows"]
    assert result["threads"] == 2
    assert all(0 < row["memory_gb"] < 4 for row in rows.values())
    times = rows["SAHI, NMS"]["seconds"] / rows["ours"]["seconds"]
    assert result["times_faster"]["SAHI, NMS"] == pytest.approx(times)
    assert f"ours: {times:.1f} times as fast as SAHI, NMS" in finished.out
    assert "1 images" in finished.out
    assert "tiles of 120 pixels that overlap by 50% and the whole image" in finished.out


@pytest.mark.slow  # two processes
@pytest.mark.usefixtures("no_sahi")
def test_without_sahi(tiny_run, digits, command):
    options = ["--data", f"voc:{digits}@test", "--tile", "120", "--images", "1"]
    finished = command("benchmark", "tiles", tiny_run[0], *options)
    assert finished.code == 0, finished.err
    assert "SAHI skipped: no SAHI here; install it with pip install --no-deps sahi" in finished.out
    assert "times as fast" not in finished.out


def test_run_without_tiles(tiny_run, digits, refused):
    message = refused("benchmark", "tiles", tiny_run[0], "--data", f"voc:{digits}@test")
    assert message == f"{tiny_run[0]}: found a run without tiles; expected one trained with --tile; pass --tile PIXELS"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--overlap", "1"], "found '1'; expected a number above 0 to 0.75"),
        (["--tile", "8"], "found '8'; expected a whole number from 32"),
    ],
)
def test_bad_values_get_one_line(option, message, refused):
    assert message in refused("benchmark", "tiles", "run", "--data", "voc:x@y", *option)
