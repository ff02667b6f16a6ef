"""Metadata of an exported model: assets/metadata.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

import tf_fast_rcnn

if TYPE_CHECKING:
    import keras

    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.export.limits import ServingLimits
    from tf_fast_rcnn.inference.graph import Detector


def metadata_json(
    detector: Detector,
    *,
    class_names: Sequence[str],
    roi_pooling: str,
    proposals: ProposalSettings | None,
    limits: ServingLimits,
    training: Mapping[str, Any] | None = None,
) -> str:
    """The content of metadata.json.

    Args:
        detector: the `Detector` that is exported.
        class_names, roi_pooling, proposals, limits, training: see `export_saved_model`.

    Returns:
        str: a JSON object with package_version, tensorflow_version, class_names, weights_sha256 (see
        `weights_sha256`), roi_pooling, detection (as `DetectionSettings.to_json`), proposals (settings of the proposals
        that the graph computes, or null), limits and training.
    """
    value = {
        "package_version": tf_fast_rcnn.__version__,
        "tensorflow_version": tf.__version__,
        "class_names": list(class_names),
        "weights_sha256": weights_sha256(detector.weights),
        "roi_pooling": roi_pooling,
        "detection": detector.settings.to_json(),
        "proposals": None if proposals is None else proposals.to_json(),
        "limits": dataclasses.asdict(limits),
        "training": training,
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def weights_sha256(variables: Iterable[keras.Variable]) -> str:
    """SHA-256 of the concatenated values of Keras variables, in C order and little-endian, as a hexadecimal string.

    A SavedModel has the hash of the trained model's weights, in which batch normalisation is not yet folded.
    """
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(variable.value.numpy().tobytes())
    return digest.hexdigest()
