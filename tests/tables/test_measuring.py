"""Measuring the tables: results are computed once, stages, detectors without boxes, folders of other settings."""

import dataclasses
import json

import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError
from tf_fast_rcnn.tables import measuring, trainings
from tf_fast_rcnn.tables.definitions import TABLES, Measurement, measurements
from tf_fast_rcnn.tables.measuring import measure_tables, result_path, results_of, without_boxes
from tf_fast_rcnn.tables.proposals import SELECTIVE_SEARCH, ProposalChoice


def test_every_row_has_a_result(measured):
    for row in TABLES["multi-task"].rows:
        ((seed, result),) = results_of(measured.out, row.measurement).items()
        assert seed == 0
        assert 0 <= result["mean_ap"] <= 1
        assert len(result["classes"]) == 10
        assert min(result["seconds_per_image"], result["fc_milliseconds"], result["seconds_per_batch"]) > 0
        assert 0 < result["average_recall"] <= 1


def test_a_result_is_what_evaluate_returns(measured):
    run = frcnn.load_run(measured.out / "seed-0" / "full" / "run")
    test = measured.store.of(measured.test, ProposalChoice(SELECTIVE_SEARCH))
    settings = frcnn.detection_settings(run, score_threshold=0.01)
    expected = frcnn.evaluate(run.model, test, "voc10", settings=settings, progress=False)
    (result,) = results_of(measured.out, Measurement()).values()
    assert result["mean_ap"] == pytest.approx(expected.mean_ap, abs=1e-6)


def weights_of(setup, name):
    model = frcnn.load_run(setup.out / "seed-0" / name / "run").model
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def test_the_second_stage_trains_the_boxes_alone(measured):
    first, second = (weights_of(measured, name) for name in ("classification", "stage-wise"))
    changed = {name for name in first if not all(map(np.array_equal, first[name], second[name]))}
    assert changed == {"box_regression"}


def test_training_for_classification_alone_leaves_the_boxes(measured, tiny_backbone):
    """They receive no gradient, only a weight decay of 1e-4 at a learning rate of 3e-4."""
    fresh = frcnn.fast_rcnn(tiny_backbone, 10, weights=None, stride=8, fc_units=(16, 12), seed=0)
    expected, _ = fresh.get_layer("box_regression").get_weights()
    np.testing.assert_allclose(weights_of(measured, "classification")["box_regression"][0], expected, atol=1e-8)
    assert np.abs(weights_of(measured, "full")["box_regression"][0] - expected).max() > 1e-5


def test_without_boxes_the_proposals_are_detected(tiny_model):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 1, (40, 2, 2)), axis=1).reshape(40, 4).astype(np.float32)
    image = rng.integers(0, 255, (96, 96, 3), np.uint8)
    settings = frcnn.DetectionSettings(96, 96, score_threshold=0.0)
    found = frcnn.detect(without_boxes(tiny_model), image, corners, settings)
    assert len(found.boxes) > 10
    distance = np.abs(found.boxes[:, None] - corners[None]).max(axis=-1).min(axis=1)
    np.testing.assert_allclose(distance, 0, atol=1e-6)
    regressed = frcnn.detect(tiny_model, image, corners, settings)
    assert np.abs(regressed.boxes[:, None] - corners[None]).max(axis=-1).min(axis=1).max() > 0.01


def test_what_is_finished_is_not_done_again(setup_in, tmp_path, monkeypatch):
    setup, trained, tested = setup_in(tmp_path / "out"), [], []

    def train(dataset, folder, **options):
        trained.append(folder.parent.name)
        folder.mkdir(parents=True)
        (folder / "model.keras").touch()

    def measure(setup, measurement, folder, seed):
        if len(tested) == 2:
            raise KeyboardInterrupt
        tested.append((seed, measurement))
        return {"mean_ap": 0.5}

    monkeypatch.setattr(trainings, "train", train)
    monkeypatch.setattr(measuring, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        measure_tables(setup, ["multi-task"], 2)
    assert trained == ["classification", "full"]
    tested.insert(0, None)  # do not interrupt again
    measure_tables(setup, ["multi-task"], 2)
    rows = [row.measurement for row in TABLES["multi-task"].rows]
    assert sorted(map(str, tested[1:])) == sorted(str((seed, row)) for seed in (0, 1) for row in rows)
    assert sorted(trained) == sorted(2 * ["classification", "full", "stage-wise"])
    before = len(tested)
    measure_tables(setup, ["multi-task"], 2)
    assert len(tested) == before


def test_seeds_and_tables_can_be_added_later(measured, monkeypatch):
    """Table 4's detector as trained has been measured already."""
    tested = []
    monkeypatch.setattr(measuring, "measure", lambda setup, measurement, folder, seed: tested.append(measurement) or {})
    monkeypatch.setattr(measuring, "write_json", lambda path, value: None)
    measure_tables(measured, ["svd"], 1)
    assert tested == [Measurement(change="svd")]


def test_unknown_tables_are_refused(setup_in, tmp_path):
    with pytest.raises(InputError, match=r"^tables: found 'tabel'; expected one of multi-task, layers, "):
        measure_tables(setup_in(tmp_path / "out"), ["svd", "tabel"], 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["train", "test"])
def test_data_without_objects(setup_in, tmp_path, part):
    setup = setup_in(tmp_path / "out")
    dataset = getattr(setup, part)
    empty = [dataclasses.replace(record, boxes=[], class_ids=[], difficult=[], crowd=None) for record in dataset]
    setup = dataclasses.replace(setup, **{part: dataset.with_records(empty)})
    with pytest.raises(InputError, match=r"^voc:.*: found no objects; expected annotated images"):
        measure_tables(setup, ["svd"], 1)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_settings(measured, setup_in):
    other = setup_in(measured.out, protocol="voc07")
    with pytest.raises(InputError, match=r"found results with another protocol; expected a new folder"):
        measure_tables(other, ["multi-task"], 1)


def test_a_folder_of_something_else(setup_in, tmp_path):
    (tmp_path / "letter.txt").touch()
    with pytest.raises(InputError, match=r"not empty and not a folder of tables; choose another --out"):
        measure_tables(setup_in(tmp_path), ["multi-task"], 1)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_settings_are_written_once(measured):
    settings = json.loads((measured.out / "settings.json").read_text())
    assert (settings["protocol"], settings["backbone"], settings["recipe"]["steps"]) == ("voc10", "tiny_network", 4)


@pytest.mark.parametrize(
    "measurement", [Measurement("dense", box_refinement_steps=2), Measurement("five-scales", scales=5)]
)
def test_settings_of_detection(setup_in, tmp_path, measurement):
    setup = setup_in(tmp_path)
    settings = measuring._detection_settings(setup, measurement)
    sides = (77, 92, 110, 138, 192) if measurement.scales == 5 else 96
    assert (settings.shorter_side, settings.box_refinement_steps) == (sides, measurement.box_refinement_steps)
    assert result_path(tmp_path, measurement, 3).parent == tmp_path / "seed-3" / measurement.training


def test_all_tables_can_be_measured():
    assert len(measurements(TABLES)) == 30
