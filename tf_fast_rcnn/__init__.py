"""Fast R-CNN for TensorFlow and Keras 3 (R. Girshick, "Fast R-CNN", ICCV 2015).

Public names are loaded on first use, so worker processes and `tf-fast-rcnn --help` do not wait for TensorFlow.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.keras_objects import register_with_keras

__version__ = "0.1.0"

# Public name -> the module that defines it. `__init__.pyi` repeats this for editors and type checkers.
_PUBLIC_NAMES = {
    "native_ops_available": "ops.native",
    "roi_pool": "ops.roi_pooling",
    "RoIPooling": "ops.roi_pooling",
    "fast_rcnn": "models.fast_rcnn",
    "load_caffe_detector": "models.caffe_detectors",
    "BoxStatistics": "boxes",
    "multi_task_loss": "models.losses",
    "Detection": "data.detections",
    "Detections": "data.detections",
    "DetectionDataset": "data.datasets",
    "CocoObjects": "data.records",
    "ImageRecord": "data.records",
    "load_dataset": "data.specs",
    "split_dataset": "data.selection",
    "with_classes": "data.selection",
    "coco_category_ids": "data.readers.coco",
    "convert": "data.writers.convert",
    "save_detections": "data.writers.convert",
    "prepare": "data.prepared.write",
    "cached_proposals": "data.prepared.write",
    "verify_prepared": "data.prepared.read",
    "Tiles": "data.tiles",
    "cut_tiles": "data.prepared.tiles",
    "ProposalSettings": "data.proposals",
    "DenseBoxes": "data.proposals",
    "FileProposals": "data.proposals",
    "ProposalReport": "data.proposals.files",
    "dense_grid": "data.proposals",
    "file_proposals": "data.proposals",
    "proposal_settings": "data.proposals",
    "browse": "browsing.page",
    "read_image": "data.images",
    "read_video": "data.video",
    "selective_search": "data.proposals.selective_search",
    "SamplingRules": "data.batches.settings",
    "hierarchical_batches": "data.batches.hierarchical",
    "roi_centric_batches": "data.batches.hierarchical",
    "box_statistics": "data.statistics",
    "resume_position": "training.keras_backup",
    "sgd": "training.optimizers",
    "adamw": "training.optimizers",
    "FineTuningSGD": "training.optimizers",
    "FineTuningAdamW": "training.optimizers",
    "Recipe": "training.settings",
    "OptimizerSettings": "training.settings",
    "NetworkSettings": "training.settings",
    "recipe": "training.recipes",
    "train": "training.run",
    "TrainingSummary": "training.run",
    "TrainingData": "training.training_data",
    "training_data": "training.training_data",
    "load_run": "training.run_folder",
    "Run": "training.run_folder",
    "DetectionSettings": "inference.settings",
    "Predictor": "inference.predictor",
    "Source": "inference.sources",
    "detect": "inference.detect",
    "detect_batch": "inference.detect",
    "classify_regions": "inference.detect",
    "detection_settings": "inference.detect",
    "draw_detections": "data.drawing",
    "evaluate": "evaluation.models",
    "score_detections": "evaluation",
    "EvaluationResult": "evaluation.results",
    "ClassResult": "evaluation.results",
    "Confidence": "evaluation.results",
    "with_confidence": "evaluation.confidence",
    "analyse": "evaluation.analysis",
    "Analysis": "evaluation.analysis",
    "write_report": "evaluation.report",
    "coco_results": "data.writers.coco_results",
    "read_detections": "evaluation.detection_files",
    "write_comp4": "evaluation.detection_files",
    "export_saved_model": "export.saved_model",
    "export_tflite": "export.tflite",
    "export_tfjs": "export.tfjs",
    "TFLiteDetector": "inference.tflite",
    "ServingLimits": "export.limits",
    "compress": "models.truncated_svd",
    "compression_summary": "models.truncated_svd",
    "CompressionSummary": "models.truncated_svd",
    "LayerChange": "models.truncated_svd",
    "smallest_ranks": "evaluation.rank_search",
}

__all__ = sorted([*_PUBLIC_NAMES, "InputError"])


def check_keras_backend() -> None:
    """Raises an InputError if Keras has or will have a backend other than TensorFlow."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise InputError(f"KERAS_BACKEND: found {backend!r}; expected 'tensorflow'; unset it")
    keras = sys.modules.get("keras")
    backend = keras.config.backend() if keras is not None and hasattr(keras, "config") else backend
    if backend != "tensorflow":
        raise InputError(
            f"keras.json: found backend {backend!r}, which Keras has read from its configuration file; expected "
            "'tensorflow'; set KERAS_BACKEND=tensorflow, import tf_fast_rcnn before keras, or change the file"
        )


def __getattr__(name: str) -> Any:
    if name in _PUBLIC_NAMES:
        check_keras_backend()
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


# So that keras.models.load_model reads our models.
register_with_keras()
