"""Warm-up requests, which TensorFlow Serving runs before a version takes traffic.

The first request of a signature and a batch size is slow: TensorFlow optimises the graph and takes memory then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.export.limits import ServingLimits
    from tf_fast_rcnn.inference.graph import DetectionSettings

# TensorFlow Serving knows it by this name, and refuses one of more requests.
_WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
_MAX_REQUESTS = 1000
# The signatures that take images as files.
_SIGNATURES = ("serving_default", "regions", "detect_image_bytes")


def warm_up_records(
    signatures: Collection[str], warm_up: Iterable[tuple[int, int]], settings: DetectionSettings, limits: ServingLimits
) -> list[bytes]:
    """Warm-up requests: serialised PredictionLog messages.

    Args:
        signatures: names of the SavedModel's signatures.
        warm_up: `(images, proposals of an image)` of each request; a signature that takes no proposals is run with
            each number of images once.
        settings: `DetectionSettings`: images have the size that the network works at.
        limits: `ServingLimits` of the graph.

    Raises:
        InputError: where tensorflow-serving-api is not installed, for requests beyond the limits, and for too many.
    """
    # A server refuses a version of which one of these fails.
    for images, proposals in warm_up:
        if not (1 <= images <= limits.max_images and proposals <= limits.max_proposals):
            raise InputError(
                f"warm_up: found {images} images with {proposals} proposals each; expected 1 to {limits.max_images} "
                f"with at most {limits.max_proposals}; ask for fewer, or raise the limits"
            )
    image = _image(settings, limits)
    records = [record for name in _SIGNATURES if name in signatures for record in _records(name, warm_up, image)]
    if len(records) > _MAX_REQUESTS:
        raise InputError(f"warm_up: found {len(records)} requests; expected at most {_MAX_REQUESTS}; ask for fewer")
    return records


def write_warm_up(folder: Path, records: Iterable[bytes]) -> None:
    """Writes `warm_up_records` where TensorFlow Serving looks for them in the folder of a SavedModel."""
    path = folder / _WARM_UP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for record in records:
            file.write(record)


def _records(signature, warm_up, image):
    if signature == "detect_image_bytes":
        return [
            _record(signature, image_bytes=[image] * images) for images in sorted({images for images, _ in warm_up})
        ]
    return [
        _record(
            signature,
            image_bytes=[image] * images,
            proposals=np.broadcast_to(_proposals(number), (images, number, 4)),
            num_proposals=np.full(images, number, np.int32),
        )
        for images, number in warm_up
    ]


def _record(signature, **inputs):
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        raise InputError(
            "warm_up: found no tensorflow-serving-api; expected it for warm-up requests; "
            "pip install 'tf-fast-rcnn[serving]', or export without"
        ) from None
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    log = prediction_log_pb2.PredictLog(request=request)
    return prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString()


def _image(settings, limits):
    """A JPEG that is hardly resized, where the limits allow it: a slope, which takes few bytes."""
    shorter = max(settings.shorter_sides)
    longer = min(shorter * 4 // 3, max(shorter, settings.longer_side))
    factor = min(1.0, limits.max_side / longer, (limits.max_pixels / (shorter * longer)) ** 0.5)
    height, width = (max(1, int(side * factor)) for side in (shorter, longer))
    slope = np.add.outer(np.arange(height), np.arange(width)) * 255 // (height + width)
    return tf.io.encode_jpeg(np.repeat(slope[..., None].astype(np.uint8), 3, axis=2)).numpy()


def _proposals(number):
    """Boxes float32 `[number, 4]` all over the image."""
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 0.7, (number, 2)), rng.uniform(0.1, 0.3, (number, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)
