"""Export as one TF Lite file: the whole detector in TF Lite's built-in ops, for phones and small computers.

Preprocessing, convolutions, RoI pooling, the fully connected layers, decoding and non-maximum suppression by class are
in the file: pixels and proposals in, detections out (`single_image`).
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
    from tf_fast_rcnn.inference.graph import DetectionSettings

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


def _write(path, data, associated):
    """Writes the flat buffer with its associated files: an archive behind it, which readers of either part skip."""
    with replacing(path) as file:
        file.write(data)
        with zipfile.ZipFile(file, "a") as archive:
            for name, text in associated.items():
                archive.writestr(name, text)
