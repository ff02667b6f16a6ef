"""Export as a TF Lite file: the whole detector with built-in ops of TF Lite, for phones and embedded devices.

The file contains preprocessing, convolutions, RoI pooling, the fully connected layers, decoding and per-class
non-maximum suppression: pixels and proposals in, detections out (see `single_image`).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tf_fast_rcnn.errors import InputError, check_choice
from tf_fast_rcnn.export.single_image import OUTPUTS, description, portable_detector, serving_function
from tf_fast_rcnn.files import replacing
from tf_fast_rcnn.inference.tflite import fit

if TYPE_CHECKING:
    import keras

    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.inference.settings import DetectionSettings

PRECISIONS = ("float32", "float16", "dynamic", "int8")


def export_tflite(
    model: keras.Model,
    path: StrPath,
    *,
    class_names: Sequence[str],
    settings: DetectionSettings | None = None,
    image_size: tuple[int, int] | None = None,
    num_proposals: int | None = None,
    precision: str = "float32",
    calibration: Iterable[tuple[np.ndarray, np.ndarray]] = (),
    proposals: ProposalSettings | FileProposals | None = None,
) -> None:
    """Writes a TF Lite file with the signature `serving_default`, for one image.

    Inputs: `images` uint8 `[1, H, W, 3]`, RGB, EXIF orientation applied; `proposals` float32 `[1, R, 4]`,
    `[ymin, xmin, ymax, xmax]` relative to the image; `num_proposals` int32 `[1]`, how many of them are real.
    Outputs, as of `export_saved_model`: `detection_boxes` float32 `[1, D, 4]` relative, `detection_scores`
    float32 `[1, D]`, `detection_classes` int32 `[1, D]`, `num_detections` int32 `[1]`.

    The file is also a ZIP archive with associated files, as usual for TF Lite: labels.txt contains one class name per
    line, and metadata.json describes the inputs and outputs.

    Args:
        model: a model created by `fast_rcnn`.
        path: the output file; an existing file is overwritten.
        class_names: names of the classes 1..K.
        settings: `DetectionSettings` with one shorter side, fixed in the file; None for the defaults. The dtype must
            be float32; see `precision`.
        image_size: fixed (H, W) in pixels; None: any size, which is slower because TF Lite then allocates tensors at
            run time.
        num_proposals: fixed R; None: any number.
        precision: "float32"; "float16": weights in half the space, computed in float16 or float32 depending on the
            device; "dynamic": weights in 8 bits, a quarter of the space, with activations quantised at run time;
            "int8": convolutions and fully connected layers in 8-bit integers. RoIs, scores and boxes are always
            float32, because 8-bit coordinates would fall into different feature-map cells.
        calibration: for "int8", an iterable of `(image, proposals)`, uint8 `[H, W, 3]` and float32 `[R, 4]`, from which
            the ranges of activations are estimated; a few dozen are sufficient.
        proposals: `ProposalSettings` of training, stored in the metadata.

    Raises:
        InputError: for unsupported settings, a number of class names that is not that of the model, a layer that TF
            Lite has no op for, and int8 without calibration images or without the package ai-edge-quantizer.

    Example:
        >>> export_tflite(model, "cells.tflite", class_names=["RBC", "WBC"], image_size=(480, 640))  # doctest: +SKIP
    """
    check_choice("precision", precision, PRECISIONS)
    detector = portable_detector(model, settings, class_names)
    data = _convert(detector, serving_function(detector, image_size, num_proposals), precision)
    if precision == "int8":
        from tf_fast_rcnn.export.quantization import quantize_layers

        data = quantize_layers(data, [fit(*pair, image_size, num_proposals)[0] for pair in calibration])
    metadata = {
        "images": "uint8 [1, H, W, 3], RGB as displayed; resized and normalised inside",
        "proposals": "float32 [1, R, 4], [ymin, xmin, ymax, xmax] relative to the image",
        "signature": f"serving_default: images, proposals, num_proposals -> {', '.join(OUTPUTS)}",
        **description(detector, class_names, image_size, num_proposals, precision, proposals),
    }
    labels = "".join(f"{name}\n" for name in class_names)
    _write(path, data, {"labels.txt": labels, "metadata.json": json.dumps(metadata, indent=1)})


def _convert(detector, function, precision):
    """Converts a function; returns the content of the TF Lite file."""
    module = tf.Module()
    module.weights = [variable.value for variable in detector.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    if precision in ("float16", "dynamic"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        return converter.convert()
    except Exception as error:  # The converter raises its own exception class and others.
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"TF Lite: found a model that cannot be converted ({lines[0][:200] if lines else type(error).__name__}); "
            "expected layers with built-in ops of TF Lite; choose another backbone"
        ) from None


def _write(path, data, associated):
    """Writes the model, followed by a ZIP archive of the associated files; readers of either part skip the other."""
    with replacing(path) as file:
        file.write(data)
        with zipfile.ZipFile(file, "a") as archive:
            for name, text in associated.items():
                archive.writestr(name, text)
