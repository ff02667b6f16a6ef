"""Fast R-CNN for TensorFlow and Keras 3 (R. Girshick, "Fast R-CNN", ICCV 2015).

Names are loaded when they are first used, so that worker processes and `tf-fast-rcnn --help` do not wait for
TensorFlow.
"""

import importlib
import os

from tf_fast_rcnn.errors import InputError

__version__ = "0.1.0"

# Public name -> the module that defines it.
_PUBLIC_NAMES = {
    "native_ops_available": "native",
    "roi_pool": "roi_pooling",
    "RoIPooling": "roi_pooling",
    "fast_rcnn": "model",
    "load_caffe_detector": "caffe_detectors",
    "BoxStatistics": "boxes",
    "multi_task_loss": "losses",
    "Detections": "data.records",
    "DetectionDataset": "data.records",
    "ImageRecord": "data.records",
    "load_dataset": "data.specs",
    "split_dataset": "data.selection",
    "with_classes": "data.selection",
    "coco_category_ids": "data.coco",
    "prepare": "data.prepare",
    "cached_proposals": "data.prepare",
    "verify_prepared": "data.prepared",
    "dense_grid": "data.proposals",
    "file_proposals": "data.proposals",
    "proposal_settings": "data.proposals",
    "browse": "browsing.page",
    "read_image": "data.images",
    "selective_search": "data.proposals.selective_search",
    "hierarchical_batches": "data.batches",
    "roi_centric_batches": "data.batches",
    "box_statistics": "data.statistics",
    "sgd": "training.optimizers",
    "adamw": "training.optimizers",
    "recipe": "training.recipes",
    "train": "training.loop",
    "load_run": "training.run_folder",
    "DetectionSettings": "detector",
    "detect": "detection",
    "detect_batch": "detection",
    "classify_regions": "detection",
    "detection_settings": "detection",
    "draw_detections": "drawing",
    "evaluate": "evaluation.models",
    "score_detections": "evaluation",
    "with_confidence": "evaluation.confidence",
    "analyse": "evaluation.analysis",
    "write_report": "evaluation.report",
    "coco_results": "evaluation.coco",
    "read_detections": "evaluation.detection_files",
    "write_comp4": "evaluation.detection_files",
    "export_saved_model": "export.saved_model",
    "export_tflite": "export.tflite",
    "export_tfjs": "export.tfjs",
    "TFLiteDetector": "tflite_detector",
    "ServingLimits": "export.limits",
    "compress": "compression",
    "compression_summary": "compression",
    "smallest_ranks": "compression",
}

__all__ = sorted([*_PUBLIC_NAMES, "InputError"])


def check_keras_backend():
    """Raises an InputError where the environment asks Keras for another backend than TensorFlow."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise InputError(f"KERAS_BACKEND: found {backend!r}; expected 'tensorflow'; unset it")


def __getattr__(name):
    if name in _PUBLIC_NAMES:
        check_keras_backend()
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
