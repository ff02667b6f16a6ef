"""`Predictor`: every kind of source returns the detections of the Keras model, for every kind of input."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from naive_detection import some_image, some_proposals
from servers import served

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError, Predictor
from tf_fast_rcnn.data.datasets import DetectionDataset

KINDS = ["run", "saved_model", "versions", "tflite", "grpc", "rest"]


@pytest.fixture(scope="module")
def settings(tiny_run):
    return frcnn.detection_settings(frcnn.load_run(tiny_run[0]), max_detections=20)


@pytest.fixture(scope="module")
def run(tiny_run):
    return frcnn.load_run(tiny_run[0])


@pytest.fixture(scope="module")
def exported(run, settings, tmp_path_factory):
    """The folder with versions 2 and 10 of an export."""
    folder = tmp_path_factory.mktemp("served") / "digits"
    facts = {"class_names": run.class_names, "settings": settings}
    training = {"run": {"proposals": run.proposals.to_json(), "classes": None}}
    for version, names_output in ((2, False), (10, True)):
        path = folder / str(version)
        frcnn.export_saved_model(run.model, path, class_names_output=names_output, training=training, **facts)
    return folder


@pytest.fixture(scope="module")
def server(exported):
    with served("digits", exported) as server:
        yield server


@pytest.fixture(scope="module")
def addresses(tiny_run, run, settings, exported, server, tmp_path_factory):
    """The argument of `Predictor.load` for each kind of source."""
    tflite = tmp_path_factory.mktemp("tflite") / "digits.tflite"
    frcnn.export_tflite(run.model, tflite, class_names=run.class_names, settings=settings, proposals=run.proposals)
    return {
        "run": tiny_run[0],
        "saved_model": exported / "2",
        "versions": str(exported),
        "tflite": tflite,
        "grpc": f"grpc://127.0.0.1:{server.ports['grpc']}/digits",
        "rest": server.url(),
    }


@pytest.fixture(params=KINDS)
def predictor(request, addresses):
    changes = {"max_detections": 20} if request.param == "run" else {}
    return Predictor.load(addresses[request.param], **changes)


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine) == len(theirs) > 0
        # The hardly trained model gives many boxes nearly the same score; only the first few are unambiguous.
        np.testing.assert_allclose(mine.scores[:5], theirs.scores[:5], atol=1e-4)
        np.testing.assert_allclose(mine.boxes[0], theirs.boxes[0], atol=1e-4)
        assert mine.class_ids[0] == theirs.class_ids[0]


def test_every_source_detects_what_the_model_does(predictor, run, settings, prepared_digits):
    test = prepared_digits[1]
    expected = [frcnn.detect(run.model, record.image(), record.proposals(), settings) for record in test]
    found = predictor.detect(test, progress=False)
    assert_same(found, expected)
    for batch_size in (1, 3):
        assert_same(list(predictor.detect_each(test, batch_size=batch_size, progress=False)), expected)
    # The names come from the model, the outputs of a server, or the dataset.
    assert found[0][0].class_name == run.class_names[expected[0].class_ids[0] - 1]
    np.testing.assert_array_equal(found[0].draw(min_score=1.0), test[0].image())


def test_iterators_are_read_as_needed(run):
    predictor = Predictor(run.model, class_names=run.class_names, settings=frcnn.detection_settings(run))
    taken = []

    def frames():
        for seed in range(40):
            taken.append(seed)
            yield some_image(seed=seed)

    rows = [some_proposals(12, seed) for seed in range(40)]
    found = predictor.detect_each(frames(), rows, progress=False, batch_size=2)
    first = [next(found), next(found)]
    assert len(taken) < 15
    assert_same([*first, *found], [predictor.detect(some_image(seed=seed), rows[seed]) for seed in range(40)])
    for given, message in ((39, "found 39 entries for more images"), (41, "found 41 entries for 40 images")):
        proposals = [np.zeros((0, 4))] * given
        with pytest.raises(InputError, match=f"^proposals: {message}; expected one per image"):
            list(predictor.detect_each(frames(), proposals, progress=False))


def test_every_kind_of_input(predictor, run, settings, digits, prepared_digits):
    paths = sorted((digits / "JPEGImages").glob("test_*.jpg"))
    rows = [some_proposals(12, seed) for seed in range(len(paths))]
    expected = [frcnn.detect(run.model, path, each, settings) for path, each in zip(paths, rows, strict=True)]
    assert_same([predictor.detect(paths[0], rows[0])], expected[:1])
    assert_same([predictor.detect(str(paths[0]), rows[0].tolist())], expected[:1])
    arrays = [frcnn.read_image(path) for path in paths]
    alone = predictor.detect(arrays[1], rows[1])
    assert_same([alone], expected[1:2])
    assert alone.image is arrays[1]
    assert_same(predictor.detect(paths, rows, batch_size=3, progress=False), expected)
    assert_same(predictor.detect([arrays[0], paths[1]], rows[:2], progress=False), expected[:2])


def test_a_folder(run, settings, digits, tmp_path):
    predictor = Predictor(run.model, class_names=run.class_names, proposals=run.proposals, settings=settings)
    for name in ("b.jpg", "a.JPG"):
        (tmp_path / name).symlink_to(digits / "JPEGImages" / "test_0001.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    found = predictor.detect(tmp_path, progress=False)
    expected = frcnn.detect(run.model, tmp_path / "b.jpg", run.proposals, settings)
    assert [Path(each.image).name for each in found] == ["a.JPG", "b.jpg"]
    assert_same(found, [expected, expected])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: found no images; expected files that end in \.jpg"):
        predictor.detect(tmp_path / "empty")


def test_a_dataset_without_proposals_gets_those_of_training(run, settings, digits, tmp_path):
    predictor = Predictor(run.model, proposals=run.proposals, settings=settings)
    dataset = frcnn.load_dataset(f"voc:{digits}@test", run.class_names)
    found = predictor.detect(dataset, cache_dir=tmp_path, workers=1, progress=False)
    assert_same(found, [frcnn.detect(run.model, each.image_path, run.proposals, settings) for each in dataset])
    assert list(tmp_path.iterdir())


def test_regions(predictor, run, settings, digits):
    path, regions = digits / "JPEGImages" / "test_0001.jpg", some_proposals(7)
    if predictor.name.endswith(".tflite"):
        with pytest.raises(InputError, match=r"tflite: found a model that cannot classify regions; expected a RUN, a"):
            predictor.classify_regions(path, regions)
        return
    found = predictor.classify_regions(path, regions)
    assert found.shape == (7, 11)
    np.testing.assert_allclose(found, frcnn.classify_regions(run.model, path, regions, settings), atol=1e-4)
    np.testing.assert_allclose(predictor.classify_regions(frcnn.read_image(path), regions.tolist()), found, atol=1e-4)


def test_what_a_predictor_knows(predictor, run, settings):
    known = not predictor.name.startswith(("grpc", "http"))
    assert predictor.class_names == (tuple(run.class_names) if known else None)
    assert predictor.proposals == (run.proposals if known else None)
    # TF Lite files have no first pass.
    own = dataclasses.replace(settings, screening_rank=None) if predictor.name.endswith(".tflite") else settings
    assert predictor.settings == (own if known else None)
    assert predictor.num_classes == (10 if known else None)
    assert predictor.name in repr(predictor)
    assert json.loads(json.dumps(predictor.description))


def test_class_names_of_a_server(addresses, run, prepared_digits):
    named = Predictor.load(addresses["grpc"], class_names=run.class_names)
    assert named.class_names == tuple(run.class_names)
    with pytest.raises(InputError, match="class_names: found 2; expected the 10 of"):
        Predictor.load(addresses["saved_model"], class_names=["a", "b"])


def test_settings(addresses, run, prepared_digits):
    predictor = Predictor.load(addresses["run"], score_threshold=0.3)
    assert predictor.settings == frcnn.detection_settings(run, score_threshold=0.3)
    other = predictor.with_settings(max_detections=1, score_threshold=0.01)
    assert (other.settings.max_detections, predictor.settings.max_detections) == (1, 100)
    assert [len(each) for each in other.detect(prepared_digits[1], progress=False)] == [1, 1, 1, 1]
    assert predictor.adjustable
    for kind in KINDS[1:]:
        with pytest.raises(InputError, match="found settings for an exported model; expected a RUN"):
            Predictor.load(addresses[kind], score_threshold=0.3)


def test_a_keras_model(tiny_model):
    predictor = Predictor(tiny_model)
    assert predictor.class_names is None
    assert predictor.settings == frcnn.DetectionSettings()
    assert predictor.num_classes == 3
    with pytest.raises(InputError, match="class_names: found 2; expected the model's 3"):
        Predictor(tiny_model, class_names=["cat", "dog"])


def test_evaluate_takes_a_predictor(addresses, run, prepared_digits):
    settings = frcnn.detection_settings(run, score_threshold=0.01)
    expected = frcnn.evaluate(run.model, prepared_digits[1], settings=settings, progress=False)
    found = frcnn.evaluate(Predictor.load(addresses["run"]), prepared_digits[1], progress=False)
    assert found.mean_ap == pytest.approx(expected.mean_ap, abs=1e-6)
    assert found.mean_ap > 0
    served = frcnn.evaluate(Predictor.load(addresses["rest"]), prepared_digits[1], progress=False)
    exported = frcnn.evaluate(Predictor.load(addresses["saved_model"]), prepared_digits[1], progress=False)
    assert served.mean_ap == pytest.approx(exported.mean_ap, abs=1e-6)
    fewer = DetectionDataset("few", "ab", [])
    with pytest.raises(InputError, match="few: found 2 classes; expected the model's 10; load the dataset with"):
        frcnn.evaluate(Predictor.load(addresses["saved_model"]), fewer)


# --- invalid input ----------------------------------------------------------------------------------------------------


def test_proposals_for_each_image(tiny_model, digits):
    path = digits / "JPEGImages" / "test_0001.jpg"
    with pytest.raises(InputError, match="proposals: found 1 entries for 2 images; expected one per image"):
        Predictor(tiny_model).detect([path, path], [some_proposals()])


def test_arrays_are_no_proposals_of_a_dataset(tiny_model, digits):
    dataset = frcnn.load_dataset(f"voc:{digits}@test")
    with pytest.raises(InputError, match="proposals: found arrays for a dataset; expected ProposalSettings or"):
        Predictor(tiny_model).detect(dataset, [some_proposals()] * 4)


def test_a_server_without_the_model(addresses, prepared_digits):
    grpc = Predictor.load(addresses["grpc"].replace("digits", "letters"))
    with pytest.raises(
        InputError, match=r"/letters: found NOT_FOUND \(Servable not found .*\); expected an answer from"
    ):
        grpc.detect(prepared_digits[1], progress=False)
    rest = Predictor.load(addresses["rest"].replace("digits", "letters"))
    with pytest.raises(
        InputError, match=r"/letters: found HTTP 404 \(Servable not found .*\); expected an answer from"
    ):
        rest.detect(prepared_digits[1], progress=False)


@pytest.mark.parametrize(
    ("url", "reason"),
    [("grpc://127.0.0.1:1/digits", "UNAVAILABLE"), ("http://127.0.0.1:1/v1/models/digits", "no answer")],
)
def test_no_server(prepared_digits, url, reason):
    with pytest.raises(InputError, match=rf"^{url}: found {reason} \("):
        Predictor.load(url).detect(prepared_digits[1], progress=False)


@pytest.mark.parametrize(
    "url", ["grpc://127.0.0.1:8500", "grpc:///digits", "grpc://host:8500/a/b", "http://host:8501", "http://host/digits"]
)
def test_no_address(url):
    with pytest.raises(InputError, match=r"not the address of a model; expected (grpc|http)://HOST:PORT/"):
        Predictor.load(url)


@pytest.mark.parametrize(
    ("url", "package"), [("http://host:1/v1/models/a", "httpx"), ("grpc://host:1/a", "tensorflow_serving")]
)
def test_without_the_extra(monkeypatch, url, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.apis", None)
    monkeypatch.setitem(sys.modules, f"{package}.apis.predict_pb2", None)
    with pytest.raises(
        InputError, match=rf"^{url}: found no package {package}.*run pip install 'tf-fast-rcnn\[serving"
    ):
        Predictor.load(url)


def test_no_source(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: found no run.json"):
        Predictor.load(tmp_path / "nowhere")


def test_a_predictor_is_public_without_tensorflow():
    code = "import tf_fast_rcnn as f, sys; assert 'Predictor' in dir(f); print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
