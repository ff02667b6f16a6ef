"""Export as one TF Lite file: the whole detector in TF Lite's built-in ops, for phones and small computers.

Preprocessing, convolutions, RoI pooling, the fully connected layers, decoding and non-maximum suppression by class are
in the file: pixels and proposals in, detections out. The steps are those of `detector`, for one image, without what
TF Lite has no ops for: ragged tensors, loops over images, the search for RoIs of equal cells.
"""

import dataclasses
import json
import os
import tempfile
import zipfile
from pathlib import Path

import tensorflow as tf

from tf_fast_rcnn import __version__, boxes
from tf_fast_rcnn.data.network_input import network_size
from tf_fast_rcnn.detector import Detector
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.tflite_detector import fit

PRECISIONS = ("float32", "float16", "dynamic", "int8")
_DETECTIONS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")


def export_tflite(
    model,
    path,
    *,
    class_names,
    settings=None,
    image_size=None,
    num_proposals=None,
    precision="float32",
    calibration=(),
    proposals=None,
):
    """Writes a TF Lite file with the signature `serving_default`, for one image.

    Inputs: `images` uint8 `[1, H, W, 3]`, RGB, EXIF orientation applied; `proposals` float32 `[1, R, 4]`,
    `[ymin, xmin, ymax, xmax]` relative to the image; `num_proposals` int32 `[1]`, how many of them are real.
    Outputs, as those of `export_saved_model`: `detection_boxes` float32 `[1, D, 4]` relative, `detection_scores`
    float32 `[1, D]`, `detection_classes` int32 `[1, D]`, `num_detections` int32 `[1]`.

    The file is also a ZIP archive, as TF Lite's associated files are: labels.txt has the class names, a line each, and
    metadata.json says how images and proposals are to be given.

    Args:
        model: what `fast_rcnn` returned.
        path: the file; what is there is overwritten.
        class_names: names of the classes 1..K.
        settings: `DetectionSettings` of one shorter side, fixed in the file; None for the defaults. Its dtype is to be
            float32: see `precision`.
        image_size: (H, W), fixed; None: any size, which runs slower, since TF Lite then plans at run time.
        num_proposals: R, fixed; None: any number.
        precision: "float32"; "float16": weights of half the size, computed with as the machine has it; "dynamic":
            weights of a quarter, rounded to 8 bits, and activations where they are multiplied; "int8": convolutions
            and fully connected layers in whole numbers of 8 bits. RoIs, scores and boxes stay float32 always: a
            coordinate of 8 bits would fall into other cells.
        calibration: for "int8", iterable of pairs of an image, uint8 `[H, W, 3]`, and its proposals, float32 `[R, 4]`,
            by which the activations' ranges are found; a few dozen do.
        proposals: `ProposalSettings`, to be told in the file.

    Raises:
        InputError: for settings that TF Lite cannot have, class names that do not fit the model, no images to
            calibrate with, a layer that TF Lite has no op for, or int8 without the package ai-edge-quantizer.

    Example:
        >>> export_tflite(model, "cells.tflite", class_names=["RBC", "WBC"], image_size=(480, 640))  # doctest: +SKIP
    """
    detector = _detector(model, settings, class_names, precision)
    data = _convert(detector, _serving_default(detector, image_size, num_proposals), precision)
    if precision == "int8":
        from tf_fast_rcnn.export.quantization import quantize_layers

        data = quantize_layers(data, [fit(*pair, image_size, num_proposals)[0] for pair in calibration])
    metadata = _metadata(detector.settings, class_names, image_size, num_proposals, precision, proposals)
    labels = "".join(f"{name}\n" for name in class_names)
    _write(path, data, {"labels.txt": labels, "metadata.json": json.dumps(metadata, indent=1)})


def _detector(model, settings, class_names, precision):
    detector = Detector(model, settings, "portable")
    settings = detector.settings
    if precision not in PRECISIONS:
        raise InputError(f"precision: found {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if len(class_names) != detector.num_classes:
        raise InputError(
            f"class_names: found {len(class_names)}; expected the model's {detector.num_classes}; give one name a class"
        )
    if len(settings.shorter_sides) > 1:
        raise InputError("shorter_side: found several; expected one in a TF Lite file; image pyramids are not for it")
    if settings.dtype != "float32":
        raise InputError(
            f"dtype: found {settings.dtype}; expected float32 in a TF Lite file; choose a precision instead"
        )
    return detector


# --- the graph --------------------------------------------------------------------------------------------------------


def _serving_default(detector, image_size, num_proposals):
    """The signature as a function of TensorFlow."""
    height, width = image_size or (None, None)
    inputs = (
        tf.TensorSpec([1, height, width, 3], tf.uint8, name="images"),
        tf.TensorSpec([1, num_proposals, 4], tf.float32, name="proposals"),
        tf.TensorSpec([1], tf.int32, name="num_proposals"),
    )

    @tf.function(input_signature=inputs, autograph=False)
    def serving_default(images, proposals, num_proposals):
        size = network_size(tf.shape(images)[1:3], detector.settings.shorter_side, detector.settings.longer_side)
        features = detector.stages.convolve(tf.image.resize(tf.cast(images, tf.float32), size), training=False)
        # TF Lite's layers want at least one row; this one is not real.
        rows = tf.pad(proposals[0], [[0, 1], [0, 0]])
        probabilities, class_boxes = _classify(detector, tf.nest.flatten(features), size, rows)
        is_real = tf.range(tf.shape(rows)[0]) < tf.minimum(num_proposals[0], tf.shape(rows)[0] - 1)
        # Scores of zero are below any threshold.
        probabilities = tf.where(tf.expand_dims(is_real, 1), probabilities, 0.0)
        found = _suppress(detector, probabilities, class_boxes)
        return {name: tf.expand_dims(value, 0) for name, value in zip(_DETECTIONS, found, strict=True)}

    return serving_default


def _classify(detector, features, size, proposals):
    """Class probabilities `[R, K + 1]` and boxes `[R, K, 4]` of proposals `[R, 4]`."""
    height, width = tf.unstack(tf.cast(size, tf.float32))

    def classify(rows):
        rois = tf.expand_dims(boxes.scale(rows, height, width), 0)
        outputs = detector.stages.classify(detector.stages.pool(features, rois), training=False)
        decoded = boxes.decode(tf.expand_dims(rows, 1), outputs["box_deltas"][0])
        return detector.to_scores(outputs["class_logits"][0]), boxes.clip(decoded)

    probabilities, class_boxes = classify(proposals)
    for _ in range(detector.settings.box_passes - 1):
        best = tf.argmax(probabilities[:, 1:], axis=1, output_type=tf.int32)
        probabilities, class_boxes = classify(tf.gather(class_boxes, best, batch_dims=1))
    return probabilities, class_boxes


def _suppress(detector, probabilities, class_boxes):
    """Non-maximum suppression for each class apart, and the best of all: as `Detector.suppress`, for one image."""
    limit, found = detector.settings.max_detections, []
    for label in detector.settings.classes or range(1, detector.num_classes + 1):
        of_class, scores = class_boxes[:, label - 1], probabilities[:, label]
        kept, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=of_class,
            scores=scores,
            max_output_size=limit,
            iou_threshold=detector.settings.nms_iou,
            score_threshold=detector.settings.score_threshold,
            pad_to_max_output_size=True,
        )
        scores = tf.where(tf.range(limit) < count, tf.gather(scores, kept), 0.0)
        found.append((tf.gather(of_class, kept), scores, tf.fill([limit], label)))
    of_classes, scores, labels = (tf.concat(parts, 0) for parts in zip(*found, strict=True))
    scores, best = tf.math.top_k(scores, limit)
    is_found = scores > 0
    return (
        tf.where(tf.expand_dims(is_found, 1), tf.gather(of_classes, best), 0.0),
        scores,
        tf.where(is_found, tf.gather(labels, best), 0),
        tf.reduce_sum(tf.cast(is_found, tf.int32)),
    )


# --- the file ---------------------------------------------------------------------------------------------------------


def _convert(detector, function, precision):
    """The flat buffer of a function."""
    module = tf.Module()
    module.weights = [variable.value for variable in detector.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    if precision in ("float16", "dynamic"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        return converter.convert()
    except Exception as error:  # The converter raises a class of its own, and others.
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"TF Lite: found a model that cannot be converted ({lines[0][:200] if lines else type(error).__name__}); "
            "expected layers that TF Lite has built-in ops for; choose another backbone"
        ) from None


def _metadata(settings, class_names, image_size, num_proposals, precision, proposals):
    return {
        "description": "Fast R-CNN detector; signature serving_default: images, proposals, num_proposals -> "
        + ", ".join(_DETECTIONS),
        "package": f"tf_fast_rcnn {__version__}",
        "images": "uint8 [1, H, W, 3], RGB as displayed; resized and normalised inside",
        "image_size": image_size,
        "proposals": "float32 [1, R, 4], [ymin, xmin, ymax, xmax] relative to the image",
        "num_proposals": num_proposals,
        "proposal_settings": None if proposals is None else proposals.to_json(),
        "precision": precision,
        "class_names": list(class_names),
        "detection_settings": dataclasses.asdict(settings),
    }


def _write(path, data, associated):
    """Writes the flat buffer with its associated files: an archive behind it, which readers of either part skip."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".export-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            with zipfile.ZipFile(file, "a") as archive:
                for name, text in associated.items():
                    archive.writestr(name, text)
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
