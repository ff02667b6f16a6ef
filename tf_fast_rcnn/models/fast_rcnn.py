"""Fast R-CNN as a functional Keras model, built from a classification network by the paper's three transformations.

Section 2.2 of the paper ("Initializing from pre-trained networks"):

1. the last max pooling layer is replaced by a RoI pooling layer, whose H and W fit the first fully connected layer;
2. the last fully connected layer and softmax are replaced by two predictor layers (the paper's "sibling layers"):
   K + 1 class scores, and box regression for each of the K classes;
3. the network takes two inputs: images, and RoIs in those images.

`backbone_split` finds where RoI pooling is inserted, this module applies the transformations, and `parts` provides
access to the parts of a finished detector.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import renamed
from tf_fast_rcnn.models import parts
from tf_fast_rcnn.models.backbone_checks import check_any_image_size, check_network, check_preprocessing
from tf_fast_rcnn.models.backbone_split import cut_at_roi_pooling, with_any_image_size
from tf_fast_rcnn.models.backbones import load_backbone
from tf_fast_rcnn.models.pretrained import copy_layer, copy_layer_weights, freeze_normalization, is_composite
from tf_fast_rcnn.ops.roi_pooling import RoIPooling

if TYPE_CHECKING:
    import numpy.typing as npt
    import tensorflow as tf

    from tf_fast_rcnn.boxes import BoxStatistics
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.ops.roi_pooling import PoolSize, Shape

# Typical standard deviations of the regression targets of proposals with IoU >= 0.5, used as constants by Girshick's
# later systems.
DEFAULT_TARGET_STD = (0.1, 0.1, 0.2, 0.2)

# The first layers are generic, and fine-tuning them costs time and memory without benefit (section 4.5): conv1 in the
# paper's networks S and M, conv1 and conv2 in L.
FINETUNE_FROM = {
    "caffenet": "conv2",
    "vgg_cnn_m_1024": "conv2",
    "caffe_vgg16": "conv3_1",
    "vgg16": "block3_conv1",
    "vgg19": "block3_conv1",
}


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class RoICorners(keras.layers.Layer):
    """Converts RoIs with continuous edges, float32 `[B, R, 4]`, to the corners that `RoIPooling` expects, which include
    the last row and column.

    Args:
        context: the RoIs are enlarged by this factor about their centres, so that the pooled features include their
            surroundings.
    """

    def __init__(self, context: float = 1.0, **kwargs: Any) -> None:
        # RoIs are never cast to a half type: bfloat16 cannot distinguish pixel 600 from 601.
        super().__init__(**{**kwargs, "autocast": False, "dtype": "float32"})
        self.context = float(context)

    def call(self, rois: tf.Tensor) -> tf.Tensor:
        return boxes.to_inclusive_corners(rois if self.context == 1.0 else boxes.enlarge(rois, self.context))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "context": self.context}


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class BoxDenormalization(keras.layers.Layer):
    """Converts regression outputs with zero mean and unit variance to `(ty, tx, th, tw)`.

    The paper normalises the regression targets (section 2.3). Their statistics are stored in this layer, not in the
    training code, so that a saved model is complete.

    Args:
        mean, std: `[K, 4]` numbers.
    """

    def __init__(self, mean: npt.ArrayLike, std: npt.ArrayLike, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.mean = np.asarray(mean, np.float32)
        self.std = np.asarray(std, np.float32)

    def call(self, normalized: tf.Tensor) -> tf.Tensor:
        return normalized * self.std + self.mean

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BoxDenormalization:
        return super().from_config(renamed(config, parts.EARLIER_NAMES))


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class RoIsToBatch(keras.layers.Layer):
    """Pooled RoIs `[B, R, P, Q, C]` -> `[B * R, P, Q, C]`, the input of convolutions.

    Without RoIs the result is a single map of zeros, since TensorFlow's convolutions return a wrong shape for an empty
    batch on CPUs.
    """

    def call(self, pooled: tf.Tensor) -> tf.Tensor:
        maps = keras.ops.reshape(pooled, (-1, *pooled.shape[2:]))
        missing = keras.ops.maximum(1 - keras.ops.shape(maps)[0], 0)
        return keras.ops.concatenate([maps, keras.ops.zeros((missing, *maps.shape[1:]), maps.dtype)])

    def compute_output_shape(self, pooled_shape: Shape) -> Shape:
        return (None, *pooled_shape[2:])


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class BatchToRoIs(keras.layers.Layer):
    """`[B * R, D]` -> `[B, R, D]`, where B and R are those of the pooled RoIs `[B, R, P, Q, C]`."""

    def call(self, vectors: tf.Tensor, pooled: tf.Tensor) -> tf.Tensor:
        images, rois = keras.ops.shape(pooled)[:2]
        return keras.ops.reshape(vectors[: images * rois], (images, rois, vectors.shape[-1]))

    def compute_output_shape(self, vectors_shape: Shape, pooled_shape: Shape) -> Shape:
        return (*pooled_shape[:2], vectors_shape[-1])


def fast_rcnn(
    backbone: str | keras.Model,
    num_classes: int,
    *,
    weights: StrPath | None = "imagenet",
    preprocessing: keras.layers.Layer | None = None,
    box_statistics: BoxStatistics | None = None,
    head: str = "auto",
    stride: int | Sequence[int] = 16,
    roi_output_size: PoolSize | None = None,
    lateral_channels: int | None = None,
    context: float = 1.0,
    fc_units: Sequence[int] = (1024, 1024),
    dropout: float = 0.5,
    finetune_from: str | None = None,
    roi_pooling: str = "auto",
    seed: int = 0,
) -> keras.Model:
    """Builds a Fast R-CNN detector from a classification network.

    If the network max-pools its last feature map and flattens it into fully connected layers (VGG16), RoI pooling
    replaces that pooling layer, and the fully connected layers are reused with their weights. Otherwise (networks that
    end in global pooling) the network is split at `stride`, and RoI pooling is followed either by the network's
    remaining layers with their weights, or by two new fully connected layers.

    Args:
        backbone: a name ("caffenet", "vgg_cnn_m_1024" and "caffe_vgg16", the paper's S, M and L; "vgg16",
            "efficientnet_lite0", "resnet50", any network of keras.applications), or a `keras.Model` that classifies
            images.
        num_classes: K, the number of classes without the background.
        weights: "imagenet", None (random), or a weights file of the backbone.
        preprocessing: if the backbone is a `keras.Model`, the layer that converts RGB 0..255 to its input; None if the
            model itself accepts RGB 0..255.
        box_statistics: `boxes.BoxStatistics` of the training set; None for constants that suit most datasets.
        head: the layers after RoI pooling. "reuse": the network's own layers up to its classifier, with their weights.
            These are its fully connected layers (fc6 and fc7 of VGG16) or else all layers after the split, which then
            run on each pooled RoI (conv5 and global average pooling in ResNets, as in K. He et al., CVPR 2016). "fc":
            new fully connected layers. "auto": "reuse" for networks with fully connected layers after a pooling, unless
            they do not fit `roi_output_size`, and for ResNets at stride 16 (networks whose name starts with "resnet");
            "fc" for all others.
        stride: image pixels per feature-map cell where the network is split; not used if fully connected layers after a
            pooling are reused. Several numbers, such as (8, 16), pool every RoI from several maps and concatenate the
            channels (this helps with small objects; only with new layers).
        roi_output_size: (H, W) of a pooled RoI; three or more numbers are the levels of a spatial pyramid, such as
            (1, 2, 3, 6): see `pooling_grids`. None: for reused layers, the size that they received when the network
            classified images, (7, 7) in VGG16 and (14, 14) in ResNets; (7, 7) for new layers.
        lateral_channels: a 1x1 convolution reduces each feature map to this many channels before RoI pooling (like the
            lateral connections of feature pyramid networks), so that the first fully connected layer does not grow with
            the number of maps. None: no reduction. A reused head always receives its feature map unchanged.
        context: RoIs pooled from the coarsest of several maps are enlarged by this factor about their centres, because
            the surroundings of a box help to predict its edges. A single map is pooled without context.
        fc_units: sizes of the new fully connected layers.
        dropout: probability of dropping each output of the fully connected layers in training; a reused stage keeps the
            dropout of the network.
        finetune_from: name of the first layer that is fine-tuned, in the backbone or after RoI pooling; all layers
            before it are frozen. "head": the whole backbone is frozen. None: conv3_1 for VGG networks and conv2 for S
            and M as in the paper, all layers for other networks. Batch normalisation is always frozen, inside composite
            layers too: mini-batches of two images are too small for its statistics.
        roi_pooling: the `implementation` of RoI pooling: "native", "portable" or "auto" (see `roi_pool`). All functions
            of `models` use this argument name.
        seed: seed for the initial weights of new layers and for dropout.

    Returns:
        A functional `keras.Model`:

        - inputs `images`, float32 `[B, H, W, 3]`, RGB 0..255, and `rois`, float32 `[B, R, 4]`, `[ymin, xmin, ymax,
          xmax]` in pixels of `images` with continuous edges;
        - outputs `class_logits`, float32 `[B, R, K + 1]` (0 is the background), and `box_deltas`, float32
          `[B, R, K, 4]`, `(ty, tx, th, tw)` for each class.

        B, R, H and W may vary from call to call; R may be 0.

    Raises:
        InputError: if the backbone is unknown, cannot be split at `stride`, or has no layer `finetune_from`; if reused
            layers do not fit `stride` or `roi_output_size`; if a network or preprocessing of your own cannot be used
            (see docs/networks.md).

    Example:
        >>> model = fast_rcnn("vgg16", num_classes=20, weights=None)
        >>> [layer.name for layer in model.layers if "fc" in layer.name]
        ['fc1', 'fc1_dropout', 'fc2', 'fc2_dropout']

    Reference:
        R. Girshick, "Fast R-CNN", ICCV 2015, sections 2.1 to 2.3.
    """
    if num_classes < 1:
        raise InputError(f"num_classes: found {num_classes}; expected at least one class besides the background")
    name, network, preprocess = load_backbone(backbone, weights=weights, preprocessing=preprocessing)
    images = keras.Input((None, None, 3), name="images", dtype="float32")
    rois = keras.Input((None, 4), name="rois", dtype="float32")
    preprocessed = preprocess(images)
    check_preprocessing(preprocess, preprocessed)
    check_network(network, preprocessed.shape[-1])
    cut = cut_at_roi_pooling(network, stride, roi_output_size, head)
    convolutions = with_any_image_size(cut.convolutions, name=parts.BACKBONE)
    if isinstance(backbone, keras.Model):
        check_any_image_size(convolutions, cut.strides, network.name)
    features = keras.tree.flatten(convolutions(preprocessed))
    if lateral_channels is not None and not cut.fc_layers and cut.stage is None:
        features = _lateral(features, cut, lateral_channels, seed)
    pooled = _pool(features, rois, cut, context, roi_pooling)
    if cut.stage is None:
        vectors = keras.layers.Reshape((-1, math.prod(pooled.shape[2:])), name="roi_vectors")(pooled)
        hidden = _fully_connected(vectors, cut.fc_layers, fc_units, dropout, seed)
    else:
        vectors = cut.stage(RoIsToBatch(name="rois_to_batch")(pooled))
        hidden = BatchToRoIs(name="batch_to_rois")(vectors, pooled)
    outputs = _predictors(hidden, num_classes, box_statistics, seed)
    model = keras.Model({"images": images, "rois": rois}, outputs, name="fast_rcnn")
    _freeze(model, finetune_from or FINETUNE_FROM.get(name))
    return model


def _lateral(features, cut, channels, seed):
    """Reduces the channels of each feature map by a 1x1 convolution."""
    return [
        keras.layers.Conv2D(
            channels,
            kernel_size=1,
            kernel_initializer=keras.initializers.HeNormal(seed=seed + stride),
            name=f"lateral_{stride}",
        )(feature_map)
        for feature_map, stride in zip(features, cut.strides, strict=True)
    ]


def _pool(features, rois, cut, context, implementation):
    """Pools the RoIs from each feature map and concatenates the channels. With several maps, the RoIs are enlarged by
    `context` for the coarsest one."""
    corners = dict.fromkeys(cut.strides, RoICorners(name=parts.ROI_CORNERS)(rois))
    if context != 1.0 and len(features) > 1:
        corners[max(cut.strides)] = RoICorners(context, name=parts.ROI_CONTEXT)(rois)
    pooled = [
        RoIPooling(cut.roi_output_size, 1.0 / stride, implementation, name=f"roi_pooling_{stride}")(
            feature_map, corners[stride]
        )
        for feature_map, stride in zip(features, cut.strides, strict=True)
    ]
    return pooled[0] if len(pooled) == 1 else keras.layers.Concatenate(name=parts.POOLED)(pooled)


def _fully_connected(vectors, reused_layers, fc_units, dropout, seed):
    """fc6 and fc7, reused with their weights or new, each followed by dropout."""
    if not reused_layers:
        reused_layers = [
            keras.layers.Dense(
                units, "relu", kernel_initializer=keras.initializers.HeNormal(seed=seed + number), name=f"fc{number}"
            )
            for number, units in enumerate(fc_units, start=6)
        ]
    # `dropout` replaces the network's own dropout layers; together they would drop too much.
    layers = [layer for layer in reused_layers if not isinstance(layer, keras.layers.Dropout)]
    for number, (layer, following) in enumerate(itertools.zip_longest(layers, layers[1:])):
        if is_composite(layer):
            raise InputError(
                f"head: found {layer.name} ({type(layer).__name__}), which contains other layers, among the fully "
                "connected layers; expected single layers; use new layers (head='fc')"
            )
        vectors = _apply_copy(layer, vectors)
        if isinstance(layer, keras.layers.Dense) and dropout > 0 and not _are_factors(layer, following):
            # Each layer needs a different seed: with the same seed, layers of equal size would drop the same units.
            vectors = keras.layers.Dropout(dropout, seed=seed + number, name=f"{layer.name}_dropout")(vectors)
    return vectors


def _are_factors(layer, following):
    """Whether two layers are one fully connected layer split by truncated SVD (section 3.1): the first has neither bias
    nor activation."""
    linear = not layer.use_bias and layer.activation is keras.activations.linear
    return linear and isinstance(following, keras.layers.Dense)


def _apply_copy(layer, tensor):
    """Applies a copy of a layer, with its configuration and weights, so that the original network is not modified."""
    copy = copy_layer(layer)
    result = copy(tensor)
    if layer.built:
        copy_layer_weights(layer, copy)
    return result


def _predictors(hidden, num_classes, box_statistics, seed):
    """The two predictor layers, class scores and box regression, initialised as in section 2.3 ("SGD
    hyper-parameters")."""
    normal = keras.initializers.RandomNormal
    if box_statistics is None:
        box_statistics = boxes.BoxStatistics(np.zeros((num_classes, 4)), np.tile(DEFAULT_TARGET_STD, (num_classes, 1)))
    if np.shape(box_statistics.mean) != (num_classes, 4):
        raise InputError(
            f"box_statistics: found shape {np.shape(box_statistics.mean)}; expected ({num_classes}, 4), one row per "
            "class; compute them on a dataset with these classes"
        )
    class_logits = keras.layers.Dense(
        num_classes + 1, kernel_initializer=normal(stddev=0.01, seed=seed), dtype="float32", name=parts.CLASS_LOGITS
    )(hidden)
    regression = keras.layers.Dense(
        4 * num_classes,
        kernel_initializer=normal(stddev=0.001, seed=seed + 1),
        dtype="float32",
        name=parts.BOX_REGRESSION,
    )(hidden)
    regression = keras.layers.Reshape((-1, num_classes, 4), dtype="float32", name=parts.BOX_BY_CLASS)(regression)
    box_deltas = BoxDenormalization(box_statistics.mean, box_statistics.std, name=parts.BOX_DELTAS)(regression)
    return {parts.CLASS_LOGITS: class_logits, parts.BOX_DELTAS: box_deltas}


def _freeze(model, finetune_from):
    """Freezes batch normalisation everywhere, inside other layers too, and all layers before `finetune_from`."""
    convolutions, head = parts.backbone_layers(model), parts.head_layers(model)
    names = [*(layer.name for layer in convolutions), "head", *(layer.name for layer in head if layer.weights)]
    if finetune_from is not None and finetune_from not in names:
        raise InputError(
            f"finetune_from: found {finetune_from!r}; expected one of the layers {', '.join(names)}; choose one of "
            "these"
        )
    frozen = set() if finetune_from is None else set(names[: names.index(finetune_from)])
    for layer in (*convolutions, *head):
        if layer.name in frozen:
            layer.trainable = False
        freeze_normalization(layer)
