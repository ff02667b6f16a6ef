"""Export as a SavedModel that TensorFlow Serving runs: raw image bytes and proposals in, detections out.

A server loads the graph by session and has TensorFlow's own ops alone, so RoI pooling is the portable one by default,
and nothing of Keras or Python is needed where the model runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_fast_rcnn.data.proposals import dense_boxes
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.export.graph_proposals import check_graph_proposals
from tf_fast_rcnn.export.limits import ServingLimits
from tf_fast_rcnn.export.metadata import metadata_json
from tf_fast_rcnn.export.signatures import Signatures
from tf_fast_rcnn.export.warm_up import warm_up_records, write_warm_up
from tf_fast_rcnn.files import new_folder
from tf_fast_rcnn.inference.graph import Detector
from tf_fast_rcnn.models.parts import number_of_classes

if TYPE_CHECKING:
    import keras

    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.inference.graph import DetectionSettings

# The proportions for which an export must be able to make its proposals.
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

    Signatures (B images; R proposals an image, of which the first `num_proposals` are real; K classes; D the largest
    number of detections; boxes are float32 `[ymin, xmin, ymax, xmax]`):

    - `serving_default`: `image_bytes` string `[B]` (JPEG, PNG or WebP, each of its own size, EXIF orientation not
      applied), `proposals` `[B, R, 4]` relative to the image, `num_proposals` int32 `[B]` -> `detection_boxes`
      `[B, D, 4]` relative, `detection_scores` float32 `[B, D]`, `detection_classes` int32 `[B, D]`, `num_detections`
      int32 `[B]`;
    - `regions`: the same inputs -> `class_probabilities` float32 `[B, R, K + 1]`, `boxes` `[B, R, K, 4]` relative and
      clipped; rows that are not real hold zeros;
    - `predict_tensors`: the model's `images` and `rois` -> `class_probabilities` `[B, R, K + 1]`, `boxes`
      `[B, R, K, 4]` in pixels of `images`, not clipped;
    - `detect_image_bytes`, where `proposals` are given: `image_bytes` alone -> as `serving_default`.

    The names are those of the TensorFlow Object Detection API. An image's detections do not depend on the images that
    it is batched with: each is convolved at its own size. Assets are class_names.txt, a line each, and metadata.json
    (see `metadata_json`).

    Args:
        model: what `fast_rcnn` returned.
        directory: a new folder; TensorFlow Serving wants a version number, as in "export/1". It appears only when it
            is complete.
        class_names: names of the classes 1..K.
        settings: `DetectionSettings`, fixed in the graph; None for the defaults.
        roi_pooling: "portable" runs everywhere; "native" needs a server with the compiled ops linked in. None: native
            where such a server is needed anyway, for selective search in the graph.
        proposals: `ProposalSettings` of what the graph computes for clients that send an image alone; None for none.
            Dense boxes run everywhere, selective search needs a server with the compiled ops.
        limits: `ServingLimits` of requests; None for the defaults.
        class_names_output: whether detections have their class's name too, `detection_class_names` string `[B, D]`.
        warm_up: `(images, proposals of an image)` of requests that TensorFlow Serving runs before the version takes
            traffic; needs tensorflow-serving-api.
        training: a value of JSON's types to be kept in metadata.json: recipe, data, metrics.

    Returns:
        The names of the signatures.

    Raises:
        InputError: where the directory exists, the class names do not fit the model, or the graph cannot compute such
            proposals.

    Example:
        >>> export_saved_model(model, "export/1", class_names=["RBC", "WBC"])       # doctest: +SKIP
    """
    directory, limits = Path(directory), limits or ServingLimits()
    _check_class_names(class_names, model)
    _check_proposals(proposals, limits)
    if directory.exists():
        raise InputError(
            f"{directory}: found a folder or file; expected a new folder; give another one, or the next version"
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
            f"class_names: found {len(class_names)}; expected the model's {num_classes}; give one name a class"
        )


def _check_proposals(proposals, limits):
    """InputError where the graph cannot compute such proposals, or its limits refuse them in every image."""
    if proposals is None:
        return
    check_graph_proposals(proposals)
    dense = 0 if proposals.dense is None else len(dense_boxes(*_COMMON_SIZE, proposals.dense))
    number = dense + (proposals.max_selective_search if _searches(proposals) else 0)
    if number > limits.max_proposals:
        raise InputError(
            f"max_proposals: found {limits.max_proposals}, while the graph makes {number} of a 4:3 image; expected "
            "that or more; raise the limit"
        )


def _searches(proposals):
    return proposals is not None and proposals.selective_search is not None


def _save(folder, detector, signatures, assets, native):
    """Writes the SavedModel: the signatures, and assets by file name.

    It tracks the weights themselves and not the Keras model: saved with that, the weights get names by which a session
    does not find them, or are stored twice.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in detector.variables]
    module.assets = []
    for name, content in assets.items():
        # They lie beside the model until saving has copied them.
        path = folder.with_name(name)
        path.write_text(content, encoding="utf-8")
        module.assets.append(tf.saved_model.Asset(str(path)))
    options = tf.saved_model.SaveOptions(namespace_whitelist=["TfFastRcnn"] if native else None)
    tf.saved_model.save(module, str(folder), signatures=signatures, options=options)
