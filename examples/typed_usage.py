"""Typical user code, for type checkers: `make lint` checks it, and the type that each call returns.

Nothing here is run; each function is a separate example.
"""

from pathlib import Path
from typing import assert_type

import keras
import numpy as np
import tensorflow as tf

import tf_fast_rcnn as frcnn


def load_data() -> tuple[frcnn.DetectionDataset, frcnn.DetectionDataset]:
    """Reads a dataset, selects classes and splits it."""
    dataset = frcnn.load_dataset("voc:cells@trainval", class_names=["Platelets", "RBC", "WBC"])
    dataset = frcnn.with_classes(dataset, {"cell": ["RBC", "WBC"]})
    train, val = frcnn.split_dataset(dataset, 0.8, seed=1)
    assert_type(train[0], frcnn.ImageRecord)
    assert_type(train[:10], frcnn.DetectionDataset)
    boxes: np.ndarray = train[0].boxes
    print(len(train), train.class_names, boxes.shape, [record.image_id for record in val])
    return train, val


def train_a_run(train: frcnn.DetectionDataset, val: frcnn.DetectionDataset) -> frcnn.Run:
    """Trains with a recipe and loads the result."""
    recipe: frcnn.Recipe = frcnn.recipe("small-data", {"steps": 500})
    validation = keras.callbacks.TerminateOnNaN()
    summary = frcnn.train(train, Path("runs/cells"), recipe=recipe, callbacks=[validation], seed=1)
    assert_type(summary, frcnn.TrainingSummary)
    return frcnn.load_run(summary.run)


def train_with_keras(train: frcnn.DetectionDataset) -> keras.Model:
    """Trains by `model.fit`."""
    model = frcnn.fast_rcnn(
        "vgg16", num_classes=len(train.class_names), box_statistics=frcnn.box_statistics(train), stride=(8, 16)
    )
    batches: tf.data.Dataset = frcnn.hierarchical_batches(train, images_per_batch=2, rois_per_batch=128, seed=0)
    model.compile(optimizer=frcnn.sgd(), loss=frcnn.multi_task_loss(model))
    model.fit(batches, steps_per_epoch=100)
    return model


def detect(run: frcnn.Run) -> list[tuple[str, float]]:
    """Finds the objects of an image file, and draws them."""
    settings = frcnn.detection_settings(run, score_threshold=0.3)
    found = frcnn.detect(run.model, "cells.jpg", run.proposals, settings)
    image = frcnn.read_image("cells.jpg")
    frcnn.draw_detections(image, found, run.class_names, min_score=0.5).save("found.png")
    predictor = frcnn.Predictor.load("runs/cells", score_threshold=0.3)
    for each in predictor.detect_each(["cells.jpg", "more.jpg"], batch_size=2):
        found = each.filter(min_score=0.5, class_names=["WBC"])
    return [(detection.class_name, detection.score) for detection in found]


def evaluate(run: frcnn.Run, test: frcnn.DetectionDataset) -> float:
    """Scores a detector, with a confidence interval and a report."""
    result = frcnn.evaluate(run.model, test, "voc07", proposals=run.proposals)
    result = frcnn.with_confidence(result, samples=200)
    assert_type(result, frcnn.EvaluationResult)
    worst: frcnn.ClassResult = min(result.classes, key=lambda of_class: of_class.ap)
    print(result.table(), worst.name, worst.interval)
    detections = frcnn.read_detections("detections.json", test)
    frcnn.write_report("report", test, detections, frcnn.score_detections(test, detections))
    return result.mean_ap


def export(run: frcnn.Run) -> None:
    """Compresses a detector and exports it in three formats."""
    small = frcnn.compress(run.model, fc6=256, fc7=64)
    assert_type(frcnn.compression_summary(run.model, small).table(), str)
    proposals = run.proposals if isinstance(run.proposals, frcnn.ProposalSettings) else None
    limits = frcnn.ServingLimits(max_pixels=10_000_000)
    frcnn.export_saved_model(small, "models/1", class_names=run.class_names, proposals=proposals, limits=limits)
    frcnn.export_tflite(small, Path("cells.tflite"), class_names=run.class_names, image_size=(480, 640))
    frcnn.export_tfjs(small, "web", class_names=run.class_names, precision="float16")


def pool_regions(features: tf.Tensor, rois: tf.Tensor) -> tf.Tensor:
    """RoI pooling on its own, as a function and as a Keras layer."""
    layer = frcnn.RoIPooling(output_size=(7, 7), spatial_scale=1 / 16)
    pyramid = frcnn.RoIPooling(output_size=(1, 2, 3, 6))
    pooled = frcnn.roi_pool(features, rois, output_size=(7, 7), spatial_scale=1 / 16, implementation="portable")
    return pooled + layer(features, rois) + tf.reduce_sum(pyramid(features, rois))


def propose(image: np.ndarray, dataset: frcnn.DetectionDataset) -> np.ndarray:
    """Object proposals, computed and from a file."""
    settings = frcnn.proposal_settings("selective-search+dense", dataset, dense=frcnn.dense_grid(stride=0.5))
    dataset = frcnn.cached_proposals(dataset, settings)
    of_file: frcnn.FileProposals = frcnn.file_proposals("boxes.npz", dataset, order="xyxy-0based")
    return np.concatenate([frcnn.selective_search(image, "fast", 1000), of_file.of(dataset[0])])


def report_errors() -> None:
    """Bad input is one exception."""
    try:
        frcnn.load_dataset("voc:nowhere@train")
    except frcnn.InputError as error:
        print(error)
