"""What an exported model says about itself: assets/metadata.json."""

import dataclasses
import hashlib
import json

import tensorflow as tf

import tf_fast_rcnn


def metadata_json(detector, *, class_names, roi_pooling, proposals, limits, training=None):
    """The content of metadata.json.

    Args:
        detector: `Detector`, with the weights that are exported.
        class_names, roi_pooling, proposals, limits, training: see `export_saved_model`.

    Returns:
        str: a JSON object with package_version, tensorflow_version, class_names, weights_sha256 (see
        `weights_sha256`), roi_pooling, detection (of `DetectionSettings.to_json`), proposals (those that the graph
        computes, or null), limits and training.
    """
    value = {
        "package_version": tf_fast_rcnn.__version__,
        "tensorflow_version": tf.__version__,
        "class_names": list(class_names),
        "weights_sha256": weights_sha256(detector.variables),
        "roi_pooling": roi_pooling,
        "detection": detector.settings.to_json(),
        "proposals": None if proposals is None else proposals.to_json(),
        "limits": dataclasses.asdict(limits),
        "training": training,
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def weights_sha256(variables):
    """SHA-256 of the values of Keras variables one after the other, in C order and little-endian, as hexadecimals.

    In the SavedModel these are the variables weights/0, weights/1, ... of its checkpoint.
    """
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(variable.value.numpy().tobytes())
    return digest.hexdigest()
