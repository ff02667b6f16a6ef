"""What a `Predictor` runs: a Keras model, a SavedModel, a TF Lite file; `servers` has those of servers.

A source detects in batches of images whose proposals are known. Reading images, computing proposals and progress bars
are the predictor's.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings, settings_from_json
from tf_fast_rcnn.data.records import DetectionDataset
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.inference.detect import classify_regions, detect_batch, detect_dataset, detection_settings
from tf_fast_rcnn.inference.graph import DetectionSettings
from tf_fast_rcnn.inference.signature import PROPOSAL_INPUTS, signature_detections, signature_inputs
from tf_fast_rcnn.inference.tflite import TFLiteDetector
from tf_fast_rcnn.models.parts import number_of_classes
from tf_fast_rcnn.ops.native import native_ops_available
from tf_fast_rcnn.training.run_folder import load_run


class Source:
    """Something that detects in images whose proposals are known: the base of what a `Predictor` runs.

    A subclass defines `detect`, and as much of the rest as it can do.

    Attributes:
        name: what messages and reports call it.
        class_names: of the classes 1..K; None if it does not report them.
        class_map: the one of `with_classes` with which the training data was renamed, or None.
        proposals: how its proposals are computed; None if it does not report this.
        settings: `DetectionSettings`; None if it does not report them.
        description: what is known of how it was made, in JSON types.
        encoded: whether it takes the bytes of image files; otherwise uint8 `[H, W, 3]`.
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
        """The `Detections` of a batch of images, with float32 `[R, 4]` proposals for each."""
        raise NotImplementedError

    def detect_dataset(self, dataset: DetectionDataset, batch_size: int, progress: bool) -> Iterator[Detections] | None:
        """Detects in a dataset with proposals, if there is a way that is better than `detect` batch by batch."""
        return None

    def classify_regions(self, image: np.ndarray | bytes, regions: np.ndarray) -> np.ndarray:
        """Class probabilities float32 `[R, K + 1]` of regions float32 `[R, 4]`."""
        raise InputError(
            f"{self.name}: found a source that only detects; expected one that classifies regions; give a RUN, a "
            "SavedModel or a server"
        )

    def with_settings(self, settings: DetectionSettings) -> "Source":
        """The same detector with other settings; InputError if they cannot be changed."""
        raise InputError(
            f"{self.name}: found other settings for an exported model; expected a RUN, because an exported model "
            "detects as it was exported; leave them out, or give them to `export`"
        )

    @property
    def num_classes(self) -> int | None:
        """K; None if it does not report it."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def adjustable(self) -> bool:
        """Whether `with_settings` works."""
        return type(self).with_settings is not Source.with_settings


class KerasSource(Source):
    """A Keras model that `fast_rcnn` returned; arguments as those of `Predictor`.

    Raises:
        InputError: if the number of class names is not that of the model.
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
                f"class_names: found {len(class_names)}; expected the model's {number_of_classes(model)}; give one "
                "name a class"
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
        return KerasSource(self.model, self.class_names, self.proposals, settings, self.name, self.description)


def run_source(folder: str | Path) -> KerasSource:
    """The detector of a RUN, at the image size of its training."""
    run = load_run(folder)
    settings = detection_settings(run)
    return KerasSource(run.model, run.class_names, run.proposals, settings, str(folder), run.description)


class SavedModelSource(Source):
    """A SavedModel that `export_saved_model` wrote, run as a server runs it.

    Its score threshold, and so the end of its precision-recall curves, is the one it was exported with. Class names and
    proposals come from its assets.

    Raises:
        InputError: if TensorFlow cannot read the folder, or its signature is another.
    """

    encoded = True

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self._model = _load_saved_model(folder)
        metadata = _read_metadata(folder / "assets" / "metadata.json")
        run = (metadata.get("training") or {}).get("run") or {}
        super().__init__(
            str(folder),
            metadata.get("class_names"),
            settings_from_json(run["proposals"]) if "proposals" in run else None,
            _exported_settings(metadata),
            {"saved_model": str(folder), **metadata},
            run.get("classes"),
        )

    def detect(self, images: Sequence, proposals: Sequence[np.ndarray]) -> list[Detections]:
        return signature_detections(self._run("serving_default", images, proposals))

    def classify_regions(self, image: Any, regions: np.ndarray) -> np.ndarray:
        return self._run("regions", [image], [regions])["class_probabilities"][0, : len(regions)]

    def _run(self, signature, images, proposals):
        # The signature alone does not keep the model's variables alive.
        run = self._model.signatures[signature]
        inputs = {name: tf.constant(value) for name, value in signature_inputs(images, proposals).items()}
        return {name: value.numpy() for name, value in run(**inputs).items()}


def _load_saved_model(folder):
    native_ops_available()  # Loads our ops, which an export with native RoI pooling contains.
    try:
        model = tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{folder}: found no readable SavedModel ({reason}); expected one of `export`") from None
    signature = model.signatures.get("serving_default")
    found = set() if signature is None else set(signature.structured_input_signature[1])
    if found != set(PROPOSAL_INPUTS):
        raise InputError(
            f"{folder}: found {', '.join(sorted(found)) or 'no'} inputs of serving_default; expected "
            f"{', '.join(sorted(PROPOSAL_INPUTS))}; give a SavedModel that `export` wrote"
        )
    return model


def _read_metadata(path):
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: found broken JSON ({error}); expected what `export` writes; export again") from None


def _exported_settings(metadata):
    """The `DetectionSettings` that the metadata contains; None without any."""
    return DetectionSettings.from_json(metadata["detection"]) if "detection" in metadata else None


class TFLiteSource(Source):
    """A TF Lite file that `export_tflite` wrote. Its score threshold is the one it was exported with.

    Raises:
        InputError: if it is no such file.
    """

    def __init__(self, path: str | Path) -> None:
        self._detector = TFLiteDetector(path)
        metadata = self._detector.metadata
        settings = _exported_settings(metadata)
        super().__init__(str(path), self._detector.class_names, self._detector.proposals, settings, metadata)

    def detect(self, images: Sequence, proposals: Sequence[np.ndarray]) -> list[Detections]:
        return list(map(self._detector.detect, images, proposals))
