"""What detections of a data set come from: a trained run, an exported model, a server.

One function makes a `Source` of each kind; `open_source` tells them apart. Detections in files of any other tool are
`evaluation.models.file_source`.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings, settings_from_json
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.inference.detect import detect_dataset, detection_settings
from tf_fast_rcnn.inference.graph import EVALUATION_SCORE_THRESHOLD
from tf_fast_rcnn.inference.tflite import TFLiteDetector
from tf_fast_rcnn.training.run_folder import load_run

# A server that has not answered within this time is taken for dead.
_ANSWER_SECONDS = 300


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
    """The `Source` of a RUN of `train`, a SavedModel or TF Lite file of `export`, or a server: grpc://HOST:PORT/NAME.

    Raises:
        InputError: where it is none of these, or cannot be read.
    """
    if str(folder).startswith("grpc:"):
        return server_source(folder)
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
            outputs = serve(**{name: tf.constant(value) for name, value in _served_inputs(record).items()})
            yield _served_detections({name: value.numpy() for name, value in outputs.items()})

    metadata = _read_metadata(folder / "assets" / "metadata.json")
    run = (metadata.get("training") or {}).get("run") or {}
    proposals = settings_from_json(run["proposals"]) if "proposals" in run else None
    class_names = tuple(metadata["class_names"]) if "class_names" in metadata else None
    description = {"saved_model": str(folder), **metadata}
    return Source(str(folder), detect, class_names, run.get("classes"), proposals=proposals, description=description)


def _read_metadata(path):
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: found broken JSON ({error}); expected what `export` writes; export again") from None


def server_source(url):
    """A model of a server that speaks TensorFlow Serving's protocol: grpc://HOST:PORT/NAME.

    Class names are not part of that protocol: the data set's own are taken.

    Raises:
        InputError: for another address, without the packages of the extra "serving", and in `detect` where the server
            does not answer as one that serves what `export` wrote.
    """
    parts = urlsplit(str(url))
    name = parts.path.strip("/")
    if parts.scheme != "grpc" or not parts.netloc or not name or "/" in name:
        raise InputError(
            f"{url}: found no server's model; expected grpc://HOST:PORT/NAME, as in grpc://[::1]:8500/cells"
        )
    try:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise InputError(
            f"{url}: found no package {error.name}; expected TensorFlow Serving's protocol; run pip install "
            "'tf-fast-rcnn[serving]'"
        ) from None

    def detect(dataset, progress=True):
        sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(parts.netloc, options=sizes) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            for record in tqdm(dataset, desc="detect", unit="image", delay=2, disable=not progress):
                request = predict_pb2.PredictRequest()
                request.model_spec.name = name
                for key, value in _served_inputs(record).items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
                try:
                    response = stub.Predict(request, timeout=_ANSWER_SECONDS)
                except grpc.RpcError as error:
                    raise InputError(
                        f"{url}: found {error.code().name} ({error.details()[:200]}); expected detections of image "
                        f"{record.image_id}; look at the server and at the model's name"
                    ) from None
                outputs = {key: tf.make_ndarray(value) for key, value in response.outputs.items()}
                yield _served_detections(outputs)

    return Source(str(url), detect, description={"server": str(url)})


def _served_inputs(record):
    """The inputs of `serving_default` for one image."""
    proposals = record.proposals()
    return {
        "image_bytes": np.array([record.encoded_image()], object),
        "proposals": proposals[None],
        "num_proposals": np.array([len(proposals)], np.int32),
    }


def _served_detections(outputs):
    """The `Detections` of the one image in the outputs, arrays, of `serving_default`."""
    count = int(outputs["num_detections"][0])
    names = ("detection_boxes", "detection_scores", "detection_classes")
    return Detections(*(outputs[name][0, :count] for name in names))


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
