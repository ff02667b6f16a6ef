"""What detections of a data set come from: a trained run, an exported model, a file of any other tool.

One function makes a `Source` of each kind; `open_source` tells kinds that are folders apart.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings
from tf_fast_rcnn.data.records import Detections
from tf_fast_rcnn.detection import detect_dataset, detection_settings
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.detection_files import read_detections
from tf_fast_rcnn.evaluation.models import EVALUATION_SCORE_THRESHOLD
from tf_fast_rcnn.tflite_detector import TFLiteDetector
from tf_fast_rcnn.training.run_folder import load_run


@dataclasses.dataclass(frozen=True)
class Source:
    """Something that gives the detections of a data set.

    Attributes:
        name: what it is called in tables and reports.
        detect: function of a `DetectionDataset` and of whether to show a progress bar; gives the `Detections` of each
            image in order.
        class_names: of the labels 1..K, with which the data set is to be read; None where it takes the data set's own.
        classes: of `with_classes`, where the training data's were renamed or merged.
        takes_proposals: whether `detect` needs a data set with proposals.
        proposals: those of training, as other images need them too; None where that is not known.
        description: what is known of how it was made, in JSON's types.

    Example:
        >>> source = run_source("runs/cells")                                                   # doctest: +SKIP
        >>> test = load_dataset("prepared:cells/test", class_names=source.class_names)          # doctest: +SKIP
        >>> print(score_detections(test, list(source.detect(test))).table())                    # doctest: +SKIP
    """

    name: str
    detect: Callable
    class_names: tuple | None = None
    classes: dict | None = None
    takes_proposals: bool = True
    proposals: ProposalSettings | FileProposals | None = None
    description: dict = dataclasses.field(default_factory=dict)


def open_source(folder):
    """The `Source` of a folder or file: RUN of `train`, or a SavedModel or TF Lite file of `export`.

    Raises:
        InputError: where it is none of these, or cannot be read.
    """
    if Path(folder).suffix == ".tflite":
        return tflite_source(folder)
    if (Path(folder) / "saved_model.pb").is_file():
        return saved_model_source(folder)
    return run_source(folder)


def run_source(folder):
    """The detector of a RUN, at the image size of its training and with a score threshold of 0.01."""
    run = load_run(folder)
    settings = detection_settings(run, score_threshold=EVALUATION_SCORE_THRESHOLD)

    def detect(dataset, progress=True):
        return detect_dataset(run.model, dataset, settings, progress)

    return Source(
        str(folder),
        detect,
        run.class_names,
        run.description.get("classes"),
        proposals=run.proposals,
        description=run.description,
    )


def saved_model_source(folder):
    """The signature `serving_default` of a SavedModel that `export_saved_model` wrote, run as a server runs it.

    Its score threshold, and so the end of its precision-recall curves, is the one that it was exported with. Class
    names come from its assets.

    Raises:
        InputError: where TensorFlow cannot read the folder, or the signature is another.
    """
    folder = Path(folder)
    try:
        model = tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{folder}: found no readable SavedModel ({reason}); expected one of `export`") from None
    signature = model.signatures.get("serving_default")
    expected = {"image_bytes", "proposals", "num_proposals"}
    found = set() if signature is None else set(signature.structured_input_signature[1])
    if found != expected:
        raise InputError(
            f"{folder}: found {', '.join(sorted(found)) or 'no'} inputs of serving_default; expected "
            f"{', '.join(sorted(expected))}; give a SavedModel that `export` wrote"
        )

    def detect(dataset, progress=True):
        # The signature alone does not keep the model's variables alive.
        serve = model.signatures["serving_default"]
        for record in tqdm(dataset, desc="detect", unit="image", delay=2, disable=not progress):
            proposals = record.proposals()
            outputs = serve(
                image_bytes=tf.constant([record.encoded_image()]),
                proposals=tf.constant(proposals[None]),
                num_proposals=tf.constant([len(proposals)]),
            )
            count = int(outputs["num_detections"][0])
            names = ("detection_boxes", "detection_scores", "detection_classes")
            yield Detections(*(outputs[name][0, :count].numpy() for name in names))

    names_file = folder / "assets" / "class_names.txt"
    class_names = tuple(names_file.read_text(encoding="utf-8").splitlines()) if names_file.is_file() else None
    return Source(str(folder), detect, class_names, description={"saved_model": str(folder)})


def tflite_source(path):
    """A TF Lite file that `export_tflite` wrote. Its score threshold is the one that it was exported with.

    Raises:
        InputError: where it is no such file.
    """
    detector = TFLiteDetector(path)
    return Source(
        str(path),
        detector.detect_dataset,
        detector.class_names,
        proposals=detector.proposals,
        description=detector.metadata,
    )


def file_source(path, category_ids=None):
    """Detections that stand in files; arguments as of `read_detections`."""

    def detect(dataset, progress=True):
        return iter(read_detections(path, dataset, category_ids))

    return Source(str(path), detect, takes_proposals=False, description={"detections": str(path)})
