"""Export as a SavedModel that TensorFlow Serving runs: raw image bytes and proposals in, detections out.

A server loads the graph by session and has TensorFlow's own ops alone, so RoI pooling is the portable one by default,
and nothing of Keras or Python is needed where the model runs.
"""

import os
import tempfile
from pathlib import Path

import tensorflow as tf

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.network_input import decode_image
from tf_fast_rcnn.detector import Detector
from tf_fast_rcnn.errors import InputError

_IMAGE_INPUTS = (
    tf.TensorSpec([None], tf.string, name="image_bytes"),
    tf.TensorSpec([None, None, 4], tf.float32, name="proposals"),
    tf.TensorSpec([None], tf.int32, name="num_proposals"),
)
_TENSOR_INPUTS = (
    tf.TensorSpec([None, None, None, 3], tf.float32, name="images"),
    tf.TensorSpec([None, None, 4], tf.float32, name="rois"),
)


def export_saved_model(model, directory, *, class_names, settings=None, roi_pooling="portable"):
    """Writes a SavedModel.

    Signatures (B images; R proposals an image, of which the first `num_proposals` are real; K classes; D the largest
    number of detections; boxes are float32 `[ymin, xmin, ymax, xmax]`):

    - `serving_default`: `image_bytes` string `[B]` (JPEG or PNG, each of its own size, EXIF orientation not applied),
      `proposals` `[B, R, 4]` relative to the image, `num_proposals` int32 `[B]` -> `detection_boxes` `[B, D, 4]`
      relative, `detection_scores` float32 `[B, D]`, `detection_classes` int32 `[B, D]`, `num_detections` int32 `[B]`;
    - `regions`: the same inputs -> `class_probabilities` float32 `[B, R, K + 1]`, `boxes` `[B, R, K, 4]` relative and
      clipped; rows that are not real hold zeros;
    - `predict_tensors`: the model's `images` and `rois` -> `class_probabilities` `[B, R, K + 1]`, `boxes`
      `[B, R, K, 4]` in pixels of `images`, not clipped.

    The names are those of the TensorFlow Object Detection API. An image's detections do not depend on the images that
    it is batched with: each is convolved at its own size. The class names are an asset, class_names.txt, a line each.

    Args:
        model: what `fast_rcnn` returned.
        directory: a new folder; TensorFlow Serving wants a version number, as in "export/1". It appears only when it
            is complete.
        class_names: names of the classes 1..K.
        settings: `DetectionSettings`, fixed in the graph; None for the defaults.
        roi_pooling: "portable" runs everywhere; "native" needs a server with the compiled op linked in.

    Raises:
        InputError: where the directory exists, or the class names do not fit the model.

    Example:
        >>> export_saved_model(model, "export/1", class_names=["RBC", "WBC"])       # doctest: +SKIP
    """
    directory = Path(directory)
    num_classes = model.output["class_logits"].shape[-1] - 1
    if len(class_names) != num_classes:
        raise InputError(
            f"class_names: found {len(class_names)}; expected the model's {num_classes}; give one name a class"
        )
    if directory.exists():
        raise InputError(
            f"{directory}: found a folder or file; expected a new folder; give another one, or the next version"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".export-") as temporary:
        # The class names lie beside the model until saving has copied them into its assets.
        names_file = Path(temporary) / "class_names.txt"
        names_file.write_text("".join(f"{name}\n" for name in class_names))
        module, signatures = _servable(Detector(model, settings, roi_pooling), names_file)
        options = tf.saved_model.SaveOptions(namespace_whitelist=["TfFastRcnn"] if roi_pooling == "native" else None)
        tf.saved_model.save(module, f"{temporary}/model", signatures=signatures, options=options)
        os.replace(f"{temporary}/model", directory)


def _servable(detector, names_file):
    """The signatures, and a module that tracks the weights themselves and not the Keras model.

    Saved with the Keras model, the weights get names by which a session does not find them, or are stored twice.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in detector.variables]
    module.class_names = tf.saved_model.Asset(str(names_file))

    @tf.function(input_signature=_IMAGE_INPUTS, autograph=False)
    def serving_default(image_bytes, proposals, num_proposals):
        found = detector.detect(*_images_and_proposals(image_bytes, proposals, num_proposals))
        names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
        return dict(zip(names, found, strict=True))

    @tf.function(input_signature=_IMAGE_INPUTS, autograph=False)
    def regions(image_bytes, proposals, num_proposals):
        probabilities, class_boxes = detector.regions(*_images_and_proposals(image_bytes, proposals, num_proposals))
        rows = tf.shape(proposals, out_type=tf.int64)[1]
        return {
            "class_probabilities": probabilities.to_tensor(shape=tf.stack([-1, rows, *probabilities.shape[2:]])),
            "boxes": class_boxes.to_tensor(shape=tf.stack([-1, rows, *class_boxes.shape[2:]])),
        }

    @tf.function(input_signature=_TENSOR_INPUTS, autograph=False)
    def predict_tensors(images, rois):
        stages = detector.stages
        outputs = stages.classify(stages.pool(stages.convolve(images, training=False), rois), training=False)
        return {
            "class_probabilities": detector.to_scores(outputs["class_logits"]),
            "boxes": boxes.decode(tf.expand_dims(rois, 2), outputs["box_deltas"]),
        }

    return module, {"serving_default": serving_default, "regions": regions, "predict_tensors": predict_tensors}


def _images_and_proposals(image_bytes, proposals, num_proposals):
    """What `Detector.detect` takes: a function of an image's number, and the real proposals."""
    # A count that the tensor does not hold would leave rows and values of the ragged tensor at odds.
    counts = tf.clip_by_value(num_proposals, 0, tf.shape(proposals)[1])
    proposals = tf.RaggedTensor.from_tensor(proposals, lengths=counts)
    finite = tf.debugging.check_numerics(proposals.flat_values, "proposals")
    return lambda index: decode_image(image_bytes[index]), proposals.with_flat_values(finite)
