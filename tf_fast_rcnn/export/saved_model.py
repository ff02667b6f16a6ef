"""Export as a SavedModel for TensorFlow Serving: encoded images and proposals in, detections out.

A server runs the graph in a session and only has stock TensorFlow ops. RoI pooling is therefore portable by default,
and the exported model needs neither Keras nor Python.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

import tf_fast_rcnn
from tf_fast_rcnn.data.proposals import dense_boxes
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.export.graph_proposals import check_graph_proposals
from tf_fast_rcnn.export.limits import ServingLimits
from tf_fast_rcnn.export.signatures import Signatures
from tf_fast_rcnn.export.warm_up import warm_up_records, write_warm_up
from tf_fast_rcnn.files import new_folder
from tf_fast_rcnn.inference.graph import Detector
from tf_fast_rcnn.models.parts import number_of_classes

if TYPE_CHECKING:
    import keras

    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.inference.settings import DetectionSettings

# Image size (height, width) for which the limits must allow the proposals of the graph.
_COMMON_SIZE = (480, 640)


def export_saved_model(
    model: keras.Model,
    directory: StrPath,
    *,
    class_names: Sequence[str],
    settings: DetectionSettings | None = None,
    roi_pooling: str | None = None,
    proposals: ProposalSettings | None = None,
    limits: ServingLimits | None = None,
    class_names_output: bool = False,
    warm_up: Iterable[tuple[int, int]] = (),
    training: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes a SavedModel.

    Signatures (B images; R proposals per image, of which the first `num_proposals` are real and the rest padding;
    K classes; D the maximum number of detections; boxes are float32 `[ymin, xmin, ymax, xmax]`):

    - `serving_default`: `image_bytes` string `[B]` (JPEG, PNG or WebP, of any size each, EXIF orientation not
      applied), `proposals` `[B, R, 4]` relative to the image, `num_proposals` int32 `[B]` -> `detection_boxes`
      `[B, D, 4]` relative, `detection_scores` float32 `[B, D]`, `detection_classes` int32 `[B, D]`, `num_detections`
      int32 `[B]`;
    - `regions`: the same inputs -> `class_probabilities` float32 `[B, R, K + 1]`, `boxes` `[B, R, K, 4]` relative and
      clipped; padding rows are zeros;
    - `predict_tensors`: the model's `images` and `rois` -> `class_probabilities` `[B, R, K + 1]`, `boxes`
      `[B, R, K, 4]` in pixels of `images`, not clipped;
    - `detect_image_bytes`, if `proposals` is not None: only `image_bytes` -> as `serving_default`.

    The names are those of the TensorFlow Object Detection API. The detections of an image do not depend on the other
    images in its batch, because each image is convolved at its own size. The assets are class_names.txt, with one name
    per line, and metadata.json (see `metadata_json`).

    Args:
        model: a model created by `fast_rcnn`.
        directory: a new folder, created atomically; TensorFlow Serving requires a version number as its name, as in
            "export/1".
        class_names: names of the classes 1..K.
        settings: `DetectionSettings`, fixed in the graph; None for the defaults.
        roi_pooling: "portable" runs everywhere; "native" needs a server with the compiled ops linked in. None: native
            if the graph runs selective search and therefore needs such a server anyway, else portable.
        proposals: `ProposalSettings` of the proposals that the graph computes for clients that send only an image;
            None for none. Dense boxes run everywhere; selective search needs a server with the compiled ops.
        limits: `ServingLimits` of requests; None for the defaults.
        class_names_output: whether to add the output `detection_class_names`, string `[B, D]`.
        warm_up: `(images, proposals per image)` of each request that TensorFlow Serving runs before the version takes
            traffic; needs tensorflow-serving-api.
        training: JSON-serialisable facts to store in metadata.json: recipe, data, metrics.

    Returns:
        The names of the signatures.

    Raises:
        InputError: if the directory exists, the number of class names is not that of the model, or the graph cannot
            compute the proposals.

    Example:
        >>> export_saved_model(model, "export/1", class_names=["RBC", "WBC"])       # doctest: +SKIP
    """
    directory, limits = Path(directory), limits or ServingLimits()
    _check_class_names(class_names, model)
    _check_proposals(proposals, limits)
    if directory.exists():
        raise InputError(
            f"{directory}: found an existing folder or file; expected a new folder; choose another one, or the next "
            "version"
        )
    if roi_pooling is None:
        roi_pooling = "native" if _searches(proposals) else "portable"
    detector = Detector(model, settings, roi_pooling)
    signatures = Signatures(detector, limits, proposals, class_names if class_names_output else None).functions()
    records = warm_up_records(signatures, warm_up, detector.settings, limits) if warm_up else []
    facts: dict[str, Any] = {"roi_pooling": roi_pooling, "proposals": proposals, "limits": limits, "training": training}
    assets = {
        "class_names.txt": "".join(f"{name}\n" for name in class_names),
        "metadata.json": metadata_json(detector, class_names=class_names, **facts),
    }
    with new_folder(directory) as folder:
        _save(folder, detector, signatures, assets, native=roi_pooling == "native" or _searches(proposals))
        if records:
            write_warm_up(folder, records)
    return list(signatures)


def _check_class_names(class_names, model):
    num_classes = number_of_classes(model)
    if len(class_names) != num_classes:
        raise InputError(
            f"class_names: found {len(class_names)}; expected the model's {num_classes}; pass one name per class"
        )


def _check_proposals(proposals, limits):
    """Raises an InputError if the graph cannot compute the proposals, or would compute more than the limits allow."""
    if proposals is None:
        return
    check_graph_proposals(proposals)
    dense = 0 if proposals.dense is None else len(dense_boxes(*_COMMON_SIZE, proposals.dense))
    number = dense + (proposals.max_selective_search if _searches(proposals) else 0)
    if number > limits.max_proposals:
        raise InputError(
            f"max_proposals: found {limits.max_proposals}; expected at least {number}, as many as the graph computes "
            "for a 4:3 image; raise the limit"
        )


def _searches(proposals):
    return proposals is not None and proposals.selective_search is not None


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
        "weights_sha256": weights_sha256(detector.variables),
        "roi_pooling": roi_pooling,
        "detection": detector.settings.to_json(),
        "proposals": None if proposals is None else proposals.to_json(),
        "limits": dataclasses.asdict(limits),
        "training": training,
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def weights_sha256(variables: Iterable[keras.Variable]) -> str:
    """SHA-256 of the concatenated values of Keras variables, in C order and little-endian, as a hexadecimal string.

    In the SavedModel these are the variables weights/0, weights/1, ... of its checkpoint.
    """
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(variable.value.numpy().tobytes())
    return digest.hexdigest()


def _save(folder, detector, signatures, assets, native):
    """Writes the SavedModel with the signatures and the assets, a dict from file names to texts.

    The module tracks the weights, not the Keras model. If it tracked the model, the weights would be stored twice, or
    under names that a session does not find.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in detector.variables]
    module.assets = []
    for name, content in assets.items():
        # Temporary files next to the model's folder; saving copies them.
        path = folder.with_name(name)
        path.write_text(content, encoding="utf-8")
        module.assets.append(tf.saved_model.Asset(str(path)))
    options = tf.saved_model.SaveOptions(namespace_whitelist=["TfFastRcnn"] if native else None)
    tf.saved_model.save(module, str(folder), signatures=signatures, options=options)
