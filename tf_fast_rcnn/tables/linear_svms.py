"""Linear SVMs instead of softmax, trained after the network as in R-CNN and SPPnet (section 5.4 of the paper).

Each class has one SVM on the features of fc7. Its positive examples are the ground truth boxes of the class; its
negative examples are proposals whose IoU with these is below 0.3. Hard negatives are mined image by image: those that
the current SVM does not reject with a margin. The hyper-parameters are those of R-CNN (Girshick et al., CVPR 2014, and
its released code).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.network_input import decode_image, resize_to_network
from tf_fast_rcnn.data.prepared.examples import example_reader, input_errors
from tf_fast_rcnn.errors import missing_package
from tf_fast_rcnn.models.parts import class_layer
from tf_fast_rcnn.models.pretrained import copy_weights

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.records import ImageRecord
    from tf_fast_rcnn.inference.settings import DetectionSettings

_NEGATIVE_IOU = 0.3
# Features are scaled to this mean norm, so that the same C suits every network.
_FEATURE_NORM = 20.0
_C, _BIAS_SCALE, _POSITIVE_WEIGHT = 0.001, 10.0, 2.0
# Negatives that score above the first are hard and kept; those that fall below the second are dropped.
_HARD_SCORE, _EASY_SCORE = -1.0, -1.2
_NEW_NEGATIVES = 2000  # an SVM is retrained after this many new hard negatives


def linear_svc() -> type:
    """scikit-learn's class, which takes a second to import.

    Raises:
        InputError: without scikit-learn, the extra "tables".
    """
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise missing_package("tables", error, "tables") from None
    return LinearSVC


@dataclasses.dataclass
class ClassSVM:
    """The SVM of one class during training.

    Attributes:
        positives, negatives: scaled features, float32 `[P, F]` and `[N, F]`.
        weights, bias: float64 `[F]` and a number; scores are `features @ weights + bias`.
        seen: number of negatives examined so far.
        waiting: hard negatives since the last training, a list of float32 `[N, F]`.
    """

    positives: np.ndarray
    negatives: np.ndarray
    weights: np.ndarray
    bias: float = 0.0
    seen: int = 0
    waiting: list = dataclasses.field(default_factory=list)

    def scores(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weights + self.bias

    def mine(self, features: np.ndarray) -> None:
        """Mines the negatives of an image, features `[N, F]`; retrains after enough hard ones."""
        first = not self.seen
        self.seen += len(features)
        # Before the first training every negative scores 0 and is therefore hard.
        self.waiting.append(features[self.scores(features) > _HARD_SCORE])
        if first or sum(map(len, self.waiting)) >= _NEW_NEGATIVES:
            self.fit()

    def fit(self) -> None:
        """Trains on all positives and the kept negatives, then drops the easy negatives."""
        self.negatives = np.concatenate([self.negatives, *self.waiting])
        self.waiting = []
        if not len(self.positives) or not len(self.negatives):
            return
        svm = linear_svc()(
            C=_C,
            loss="hinge",
            intercept_scaling=_BIAS_SCALE,
            class_weight={1: _POSITIVE_WEIGHT},
            max_iter=5000,
            random_state=0,
        )
        labels = np.repeat([1, 0], [len(self.positives), len(self.negatives)])
        svm.fit(np.concatenate([self.positives, self.negatives]), labels)
        self.weights, self.bias = svm.coef_[0], float(svm.intercept_[0])
        self.negatives = self.negatives[self.scores(self.negatives) >= _EASY_SCORE]


def with_linear_svms(
    model: keras.Model, dataset: DetectionDataset, settings: DetectionSettings, progress: bool = True
) -> keras.Model:
    """A copy of a detector whose class scores are those of linear SVMs.

    Args:
        model: a trained detector made by `fast_rcnn`.
        dataset: the training images, with proposals.
        settings: the image size, a single scale.
        progress: whether to show a progress bar on standard error.

    Returns:
        A Keras model like `model`, for `DetectionSettings(scores="sigmoid")`: its logits are the SVMs' scores and 0 for
        the background. A class without objects scores below all others.

    Example:
        >>> with_svms = with_linear_svms(run.model, train, detection_settings(run))             # doctest: +SKIP
        >>> evaluate(with_svms, test, settings=detection_settings(run, scores="sigmoid"))       # doctest: +SKIP
    """
    features_of = _feature_reader(model, dataset, settings)
    positives = [[] for _ in dataset.class_names]
    for number, record in enumerate(_bar(dataset, "SVMs: objects", progress)):
        features = features_of(number, record.boxes)
        counted = ~record.difficult & ~record.crowd
        for label, of_class in enumerate(positives, start=1):
            of_class.append(features[counted & (record.class_ids == label)])
    positives = [np.concatenate(of_class) for of_class in positives]
    scale = _FEATURE_NORM / max(np.linalg.norm(np.concatenate(positives), axis=1).mean(), 1e-12)
    width = positives[0].shape[1]
    svms = [ClassSVM(scale * of_class, np.zeros((0, width), np.float32), np.zeros(width)) for of_class in positives]
    for number, record in enumerate(_bar(dataset, "SVMs: hard negatives", progress)):
        features = scale * features_of(number, record.proposals())
        for label, svm in enumerate(svms, start=1):
            svm.mine(features[negatives_of(record, label)])
    for svm in svms:
        svm.fit()
    return _with_class_weights(model, svms, scale)


def negatives_of(record: ImageRecord, label: int) -> np.ndarray:
    """Which proposals of an image are negative examples of a class.

    Args:
        record: an image with proposals.
        label: the class, 1..K.

    Returns:
        bool `[P]`.
    """
    objects = record.boxes[record.class_ids == label]
    proposals = record.proposals()
    if not len(objects):
        return np.ones(len(proposals), bool)
    return boxes.iou(proposals, objects).max(axis=1) < _NEGATIVE_IOU


def _bar(dataset, what, progress):
    return tqdm(dataset, what, unit="image", delay=2, leave=False, disable=not progress)


def _feature_reader(model, dataset, settings):
    """A function from an image's index and relative boxes `[R, 4]` to the inputs of `class_logits`, `[R, F]`."""
    to_features = keras.Model(model.input, class_layer(model).input)
    read = example_reader(dataset)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64), tf.TensorSpec([None, 4], tf.float32)], autograph=False)
    def features(number, proposals):
        image = decode_image(read(number)["image_bytes"])
        image = resize_to_network(image, settings.shorter_side, settings.longer_side)
        height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
        rois = boxes.scale(proposals, height, width)
        return to_features({"images": image[None], "rois": rois[None]}, training=False)[0]

    def features_of(number, proposals):
        with input_errors(dataset):
            return features(tf.constant(number, tf.int64), tf.constant(proposals, tf.float32)).numpy()

    return features_of


def _with_class_weights(model, svms, scale):
    copy = keras.models.clone_model(model)
    copy_weights(model, copy)
    kernel = np.stack([np.zeros(len(svms[0].weights)), *(scale * svm.weights for svm in svms)], axis=1)
    never = -100.0  # its sigmoid is 0
    bias = np.array([0.0, *(svm.bias if len(svm.positives) else never for svm in svms)])
    class_layer(copy).set_weights([kernel, bias])
    return copy
