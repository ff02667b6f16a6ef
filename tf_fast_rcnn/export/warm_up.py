"""Warm-up requests, which TensorFlow Serving runs before a version takes traffic.

The first request of each signature and batch size is slow, because TensorFlow optimises the graph and allocates memory.
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
    from tf_fast_rcnn.inference.settings import DetectionSettings

# The file name and the maximum number of requests are fixed by TensorFlow Serving.
_WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
_MAX_REQUESTS = 1000
# The signatures that take encoded images.
_SIGNATURES = ("serving_default", "regions", "detect_image_bytes")


def warm_up_records(
    signatures: Collection[str], warm_up: Iterable[tuple[int, int]], settings: DetectionSettings, limits: ServingLimits
) -> list[bytes]:
    """Creates warm-up requests as serialised PredictionLog messages.

    Args:
        signatures: names of the signatures of the SavedModel.
        warm_up: `(images, proposals per image)` of each request; signatures without proposals get one request for each
            number of images.
        settings: `DetectionSettings`; the images have the size at which the network runs.
        limits: `ServingLimits` of the graph.

    Raises:
        InputError: if tensorflow-serving-api is not installed, a request exceeds the limits, or there are too many.
    """
    # A server rejects a version if any of its warm-up requests fails.
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
    """Writes `warm_up_records` to the folder of a SavedModel, in the file that TensorFlow Serving reads."""
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
            "warm_up: found no package tensorflow-serving-api, which warm-up requests need; expected it to be "
            "installed; run pip install 'tf-fast-rcnn[serving]', or export without warm-up requests"
        ) from None
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    log = prediction_log_pb2.PredictLog(request=request)
    return prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString()


def _image(settings, limits):
    """A JPEG of about the size at which the network runs, within the limits; a gradient, which compresses well."""
    shorter = max(settings.shorter_sides)
    longer = min(shorter * 4 // 3, max(shorter, settings.longer_side))
    factor = min(1.0, limits.max_side / longer, (limits.max_pixels / (shorter * longer)) ** 0.5)
    height, width = (max(1, int(side * factor)) for side in (shorter, longer))
    slope = np.add.outer(np.arange(height), np.arange(width)) * 255 // (height + width)
    return tf.io.encode_jpeg(np.repeat(slope[..., None].astype(np.uint8), 3, axis=2)).numpy()


def _proposals(number):
    """Random boxes, float32 `[number, 4]`, distributed over the image."""
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 0.7, (number, 2)), rng.uniform(0.1, 0.3, (number, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)
