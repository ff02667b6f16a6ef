"""The sources that a `Predictor` can run: Keras models, SavedModels and TF Lite files (see `servers` for servers).

A source runs detection on a batch of images with given proposals. The predictor reads the images, computes the
proposals and shows the progress.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings, in_tiles, settings_from_json
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.inference.detect import classify_regions, detect_batch, detect_dataset, detection_settings
from tf_fast_rcnn.inference.settings import DetectionSettings
from tf_fast_rcnn.inference.signature import PROPOSAL_INPUTS, signature_detections, signature_inputs
from tf_fast_rcnn.inference.tflite import TFLiteDetector
from tf_fast_rcnn.models.parts import number_of_classes
from tf_fast_rcnn.ops.native import native_ops_available
from tf_fast_rcnn.training.run_folder import load_run


class Source:
    """Base class of the sources of a `Predictor`: runs detection on images with given proposals.

    A subclass defines `detect`, and those of the other methods that it supports.

    Attributes:
        name: its name in messages and reports.
        class_names: names of the classes 1..K; None if it does not report them.
        class_map: how `with_classes` renamed the classes of the training data, or None.
        proposals: how its proposals are computed; None if it does not report this.
        settings: `DetectionSettings`; None if it does not report them.
        description: how it was made, as far as known, in JSON types.
        encoded: whether it takes images as the bytes of image files; otherwise as uint8 `[H, W, 3]`.
        takes_proposals: whether a dataset needs proposals.
    """

    encoded = False
    takes_proposals = True

    def __init__(
        self,
        name: str,
        class_names: Sequence[str] | None = None,
        proposals: ProposalSettings | FileProposals | None = None,
        settings: DetectionSettings | None = None,
        description: Mapping[str, Any] | None = None,
        class_map: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.class_names = None if class_names is None else tuple(class_names)
        self.proposals = proposals
        self.settings = settings
        self.description = dict(description or {})
        self.class_map = class_map

    def detect(self, images: Sequence[np.ndarray | bytes], proposals: Sequence[np.ndarray]) -> list[Detections]:
        """The `Detections` of a batch of images, each with proposals float32 `[R, 4]`."""
        raise NotImplementedError

    def detect_dataset(self, dataset: DetectionDataset, batch_size: int, progress: bool) -> Iterator[Detections] | None:
        """The `Detections` of a dataset with proposals; None if the source has nothing faster than `detect`."""
        return None

    def classify_regions(self, image: np.ndarray | bytes, regions: np.ndarray) -> np.ndarray:
        """Class probabilities float32 `[R, K + 1]` of regions float32 `[R, 4]`, relative to the image.

        Raises:
            InputError: if the source cannot classify regions.
        """
        raise InputError(
            f"{self.name}: found a model that cannot classify regions; expected a RUN, a SavedModel or a server; use "
            "one of these"
        )

    def with_settings(self, settings: DetectionSettings) -> "Source":
        """The same detector with other settings; raises an InputError if they cannot be changed."""
        raise InputError(
            f"{self.name}: found settings for an exported model; expected a RUN, because the settings of an exported "
            "model are fixed; leave them out, or pass them to `export`"
        )

    @property
    def num_classes(self) -> int | None:
        """K, the number of classes without the background; None if the source does not report it."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def adjustable(self) -> bool:
        """Whether `with_settings` works."""
        return type(self).with_settings is not Source.with_settings


class KerasSource(Source):
    """A Keras model that `fast_rcnn` returned. The arguments are those of `Predictor`.

    Raises:
        InputError: if the number of class names differs from the model's number of classes.
    """

    def __init__(
        self,
        model: keras.Model,
        class_names: Sequence[str] | None = None,
        proposals: ProposalSettings | FileProposals | None = None,
        settings: DetectionSettings | None = None,
        name: str | None = None,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        if class_names is not None and len(class_names) != number_of_classes(model):
            raise InputError(
                f"class_names: found {len(class_names)}; expected the model's {number_of_classes(model)}; pass one "
                "name per class"
            )
        settings = settings or DetectionSettings()
        description = description or {}
        mapping = description.get("classes")
        super().__init__(name or model.name, class_names, proposals, settings, description, mapping)
        self.model = model

    def detect(self, images: Sequence, proposals: Sequence[np.ndarray]) -> list[Detections]:
        return detect_batch(self.model, images, proposals, self.settings)

    def detect_dataset(self, dataset: DetectionDataset, batch_size: int, progress: bool) -> Iterator[Detections]:
        return detect_dataset(self.model, dataset, self.settings, batch_size=batch_size, progress=progress)

    def classify_regions(self, image: Any, regions: np.ndarray) -> np.ndarray:
        return classify_regions(self.model, image, regions, self.settings)

    @property
    def num_classes(self) -> int:
        return number_of_classes(self.model)

    def with_settings(self, settings: DetectionSettings) -> "KerasSource":
        proposals = in_tiles(self.proposals, settings.tiles)
        return KerasSource(self.model, self.class_names, proposals, settings, self.name, self.description)


def run_source(folder: str | Path) -> KerasSource:
    """The detector of a RUN, at the image size of its training."""
    run = load_run(folder)
    settings = detection_settings(run)
    return KerasSource(run.model, run.class_names, run.proposals, settings, str(folder), run.description)


class SavedModelSource(Source):
    """A SavedModel that `export_saved_model` wrote, run through its signatures as on a server.

    Its score threshold, and therefore the end of its precision-recall curves, is that of the export. Its class names
    and proposals come from its assets.

    Raises:
        InputError: if TensorFlow cannot read the folder, or the model has a different signature.
    """

    encoded = True

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self._model = _load_saved_model(folder)
        metadata = _read_metadata(folder / "assets" / "metadata.json")
        run = (metadata.get("training") or {}).get("run") or {}
        settings = _exported_settings(metadata)
        proposals = settings_from_json(run["proposals"]) if "proposals" in run else None
        super().__init__(
            str(folder),
            metadata.get("class_names"),
            in_tiles(proposals, settings.tiles if settings else None),
            settings,
            {"saved_model": str(folder), **metadata},
            run.get("classes"),
        )

    def detect(self, images: Sequence, proposals: Sequence[np.ndarray]) -> list[Detections]:
        return signature_detections(self._run("serving_default", images, proposals))

    def classify_regions(self, image: Any, regions: np.ndarray) -> np.ndarray:
        return self._run("regions", [image], [regions])["class_probabilities"][0, : len(regions)]

    def _run(self, signature, images, proposals):
        # Looked up on each call: a signature alone does not keep the model's variables alive.
        run = self._model.signatures[signature]
        inputs = {name: tf.constant(value) for name, value in signature_inputs(images, proposals).items()}
        return {name: value.numpy() for name, value in run(**inputs).items()}


def _load_saved_model(folder):
    native_ops_available()  # Loads our ops, which an export with native RoI pooling contains.
    try:
        model = tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"{folder}: found no readable SavedModel ({reason}); expected one that `export` wrote"
        ) from None
    signature = model.signatures.get("serving_default")
    found = set() if signature is None else set(signature.structured_input_signature[1])
    if found != set(PROPOSAL_INPUTS):
        raise InputError(
            f"{folder}: serving_default has the inputs {', '.join(sorted(found)) or '(none)'}; expected "
            f"{', '.join(sorted(PROPOSAL_INPUTS))}; pass a SavedModel that `export` wrote"
        )
    return model


def _read_metadata(path):
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: found broken JSON ({error}); expected what `export` writes; export again") from None


def _exported_settings(metadata):
    """The `DetectionSettings` in the metadata; None if there are none."""
    return DetectionSettings.from_json(metadata["detection"]) if "detection" in metadata else None


class TFLiteSource(Source):
    """A TF Lite file that `export_tflite` wrote. Its score threshold is that of the export.

    Raises:
        InputError: if the file was not written by `export_tflite`.
    """

    def __init__(self, path: str | Path) -> None:
        self._detector = TFLiteDetector(path)
        metadata = self._detector.metadata
        settings = _exported_settings(metadata)
        super().__init__(str(path), self._detector.class_names, self._detector.proposals, settings, metadata)

    def detect(self, images: Sequence, proposals: Sequence[np.ndarray]) -> list[Detections]:
        return list(map(self._detector.detect, images, proposals))
