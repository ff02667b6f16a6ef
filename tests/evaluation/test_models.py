"""Evaluation of a model, compared with scoring the detections of `detect` for each image."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, InputError, detect, evaluate
from tf_fast_rcnn.data.proposals import compute_proposals
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.models import ValidationMap

SETTINGS = DetectionSettings(shorter_side=96, longer_side=144, score_threshold=0.01)


@pytest.fixture
def images_with_detections(prepared_digits, tiny_model):
    """The test images with two detections of the untrained model as the ground truth, so that its mAP is not 0."""
    records = []
    for record in prepared_digits[1]:
        found = detect(tiny_model, record.image_path, record.proposals(), SETTINGS)
        boxes, labels = found.boxes[[0, 3]], found.class_ids[[0, 3]]
        records.append(dataclasses.replace(record, boxes=boxes, class_ids=labels, difficult=[False, False], crowd=None))
    dataset = prepared_digits[1].with_records(records)
    dataset.class_names = ("cat", "dog", "ox")
    return dataset


@pytest.mark.parametrize("protocol", ["voc07", "voc10", "coco"])
def test_evaluate_scores_what_detect_finds(images_with_detections, tiny_model, protocol):
    result = evaluate(tiny_model, images_with_detections, protocol, settings=SETTINGS, progress=False)
    detections = [
        detect(tiny_model, record.image_path, record.proposals(), SETTINGS) for record in images_with_detections
    ]
    expected = score_detections(images_with_detections, detections, protocol)
    assert result.protocol == protocol
    assert result.num_images == 4
    assert 0 < expected.mean_ap < 1
    assert result.mean_ap == pytest.approx(expected.mean_ap, abs=1e-6)
    for found, wanted in zip(result.classes, expected.classes, strict=True):
        assert (found.name, found.num_objects, found.num_detections) == (
            wanted.name,
            wanted.num_objects,
            wanted.num_detections,
        )
        np.testing.assert_allclose(found.ap, wanted.ap, atol=1e-6)


def test_the_default_threshold_keeps_detections_with_low_scores(images_with_detections, tiny_model, monkeypatch):
    from tf_fast_rcnn.inference import sources

    used = []

    def nothing(model, dataset, settings, progress, batch_size):
        used.append(settings)
        return [frcnn.Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))] * len(dataset)

    monkeypatch.setattr(sources, "detect_dataset", nothing)
    result = evaluate(tiny_model, images_with_detections, progress=False)
    assert used == [DetectionSettings(score_threshold=0.01)]
    assert result.mean_ap == 0.0


def test_proposals_are_computed_where_the_data_set_has_none(digits, tiny_model, prepared_digits, tmp_path):
    dataset = frcnn.load_dataset(f"voc:{digits}@test", class_names="0123456789")
    dataset = dataset.with_records(
        [dataclasses.replace(record, class_ids=record.class_ids % 3 + 1) for record in dataset]
    )
    dataset.class_names = ("cat", "dog", "ox")
    proposals = prepared_digits[0].proposals
    result = evaluate(
        tiny_model, dataset, proposals=proposals, settings=SETTINGS, cache_dir=tmp_path, workers=1, progress=False
    )
    detections = [
        detect(
            tiny_model, record.image_path, compute_proposals(frcnn.read_image(record.image_path), proposals), SETTINGS
        )
        for record in dataset
    ]
    expected = score_detections(dataset, detections)
    assert [row.num_detections for row in result.classes] == [row.num_detections for row in expected.classes]
    assert result.mean_ap == pytest.approx(expected.mean_ap, abs=1e-6)
    assert any(tmp_path.iterdir())


def test_another_number_of_classes(prepared_digits, tiny_model):
    with pytest.raises(InputError, match="found 10 classes; expected the model's 3") as error:
        evaluate(tiny_model, prepared_digits[1], progress=False)
    assert "\n" not in str(error.value)


def test_validation_map_is_that_of_evaluate(images_with_detections, tiny_model, capsys):
    callback = ValidationMap(images_with_detections, dataclasses.replace(SETTINGS, score_threshold=0.5), "voc10")
    callback.set_model(tiny_model)
    logs = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    result = evaluate(tiny_model, images_with_detections, "voc10", settings=SETTINGS, progress=False)
    expected = {"loss": 1.0, "mean_ap": result.mean_ap}
    expected |= {f"ap/{row.name}": row.ap for row in result.classes if row.num_objects}
    assert len(expected) >= 3
    assert logs == pytest.approx(expected, abs=1e-6)
    assert f"validation mAP (voc10, IoU 0.50): {result.mean_ap:.3f}" in capsys.readouterr().err


def test_pictures_for_tensorboard(images_with_detections, tiny_model, tmp_path):
    """Trains for two epochs of three mini-batches, then for one more with a new callback, like a resumed run."""
    model = keras.models.clone_model(tiny_model)
    model.set_weights(tiny_model.get_weights())
    model.compile(frcnn.sgd(1e-6), loss=frcnn.multi_task_loss(model), jit_compile=False)
    sides = {"shorter_side": 96, "longer_side": 144}
    batches = frcnn.hierarchical_batches(images_with_detections, rois_per_batch=8, seed=0, **sides)
    for epochs in (2, 1):
        validation = ValidationMap(
            images_with_detections, SETTINGS, progress=False, tensorboard=tmp_path / "board", pictures=2
        )
        model.fit(batches, epochs=epochs, steps_per_epoch=3, callbacks=[validation], verbose=0, shuffle=False)
    found = {
        (value.tag.removesuffix("/image_0"), event.step): value.tensor
        for events in sorted((tmp_path / "board").iterdir())
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    names = [images_with_detections[index].image_id for index in (0, 3)]
    assert set(found) == {(f"detections/{name}", step) for name in names for step in (3, 6, 9)}
    _, _, encoded = tf.make_ndarray(found[f"detections/{names[0]}", 9])
    picture = tf.io.decode_png(encoded).numpy()
    record = images_with_detections[0]
    assert max(picture.shape) <= 400
    assert picture.shape[0] / picture.shape[1] == pytest.approx(record.height / record.width, rel=0.02)
    original = np.asarray(Image.fromarray(record.image()).resize(picture.shape[1::-1]))
    changed = np.abs(picture.astype(int) - original).max(axis=-1) > 60
    assert 0.01 < changed.mean() < 0.9  # boxes are drawn on the image


def test_validation_map_of_images_without_objects_is_left_out(images_with_detections, tiny_model):
    bare = [
        dataclasses.replace(record, boxes=[], class_ids=[], difficult=[], crowd=None)
        for record in images_with_detections
    ]
    callback = ValidationMap(images_with_detections.with_records(bare), SETTINGS, progress=False)
    callback.set_model(tiny_model)
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs == {}


def test_default_proposals_do_not_look_at_the_annotations(images_with_detections, tiny_model, tmp_path):
    dataset = images_with_detections.with_records(
        [dataclasses.replace(record, proposal_boxes=None) for record in images_with_detections]
    )
    dataset.proposals = None
    result = evaluate(tiny_model, dataset, settings=SETTINGS, cache_dir=tmp_path, workers=1, progress=False)
    detections = [detect(tiny_model, record.image_path, None, SETTINGS) for record in dataset]
    expected = score_detections(dataset, detections)
    assert result.mean_ap == pytest.approx(expected.mean_ap, abs=1e-6)
    assert [row.num_detections for row in result.classes] == [row.num_detections for row in expected.classes]
