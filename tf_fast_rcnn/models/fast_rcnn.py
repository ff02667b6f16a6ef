"""Fast R-CNN as a functional Keras model, made from a classification network by the paper's three transformations.

Section 2.2 of the paper ("Initializing from pre-trained networks"):

1. the last max pooling layer is replaced by a RoI pooling layer, whose H and W fit the first fully connected layer;
2. the last fully connected layer and softmax are replaced by two sibling layers: K + 1 class scores, and box
   regression for each of the K classes;
3. the network takes two inputs: images, and RoIs in those images.

`backbone_split` finds the place of the first transformation; this module makes the three. `parts` takes a detector
apart again.
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
from tf_fast_rcnn.models.backbone_split import cut_at_roi_pooling, with_any_image_size
from tf_fast_rcnn.models.backbones import load_backbone
from tf_fast_rcnn.ops.roi_pooling import RoIPooling

if TYPE_CHECKING:
    import numpy.typing as npt
    import tensorflow as tf

    from tf_fast_rcnn.boxes import BoxStatistics
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.ops.roi_pooling import PoolSize, Shape

# The spread of regression targets of proposals with IoU >= 0.5, which Girshick's later systems use as constants.
DEFAULT_TARGET_STD = (0.1, 0.1, 0.2, 0.2)

# The first layers are generic, and tuning them costs time and memory for nothing: conv1 of the paper's networks S and
# M, conv1 and conv2 of L (section 4.5).
FINETUNE_FROM = {
    "caffenet": "conv2",
    "vgg_cnn_m_1024": "conv2",
    "caffe_vgg16": "conv3_1",
    "vgg16": "block3_conv1",
    "vgg19": "block3_conv1",
}


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class RoICorners(keras.layers.Layer):
    """RoIs with continuous edges, float32 `[B, R, 4]`, as `RoIPooling` takes them: last row and column included.

    Args:
        context: the RoIs are enlarged by this factor about their centres, so that what is pooled shows their
            surroundings too.
    """

    def __init__(self, context: float = 1.0, **kwargs: Any) -> None:
        # RoIs are never cast to a half type: bfloat16 cannot tell pixel 600 from 601.
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
    """Turns regression outputs with zero mean and unit variance into `(ty, tx, th, tw)`.

    The paper normalises the regression targets (section 2.3); keeping their statistics here, and not in the training
    code, is what makes a saved model complete.

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
    """Pooled RoIs `[B, R, P, Q, C]` -> `[B * R, P, Q, C]`, as convolutions take them; where there are none, one of
    zeros, since TensorFlow's convolutions give nothing a wrong shape on CPUs."""

    def call(self, pooled: tf.Tensor) -> tf.Tensor:
        maps = keras.ops.reshape(pooled, (-1, *pooled.shape[2:]))
        missing = keras.ops.maximum(1 - keras.ops.shape(maps)[0], 0)
        return keras.ops.concatenate([maps, keras.ops.zeros((missing, *maps.shape[1:]), maps.dtype)])

    def compute_output_shape(self, pooled_shape: Shape) -> Shape:
        return (None, *pooled_shape[2:])


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class BatchToRoIs(keras.layers.Layer):
    """`[B * R, D]` -> `[B, R, D]`, with B and R of the pooled RoIs `[B, R, P, Q, C]` that it came from."""

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
    """A Fast R-CNN detector over a classification network.

    Where the network pools its last convolutional map and flattens it for fully connected layers (VGG16), that
    pooling becomes RoI pooling and the layers are carried over with their weights. Where it does not (networks that
    end in global pooling), it is cut at `stride`; after RoI pooling either stand the layers that followed, with their
    weights, or two fully connected layers that are made.

    Args:
        backbone: a name ("caffenet", "vgg_cnn_m_1024" and "caffe_vgg16", the paper's S, M and L; "vgg16",
            "efficientnet_lite0", "resnet50", any network of keras.applications), or a `keras.Model` that classifies
            images.
        num_classes: K, the number of classes without the background.
        weights: "imagenet", None (random), or a weights file of the backbone.
        preprocessing: with a `keras.Model` as backbone, the layer that turns RGB 0..255 into what it takes; None
            where it takes RGB 0..255 itself.
        box_statistics: `boxes.BoxStatistics` of the training set; None for constants that suit most data sets.
        head: what follows RoI pooling. "reuse": what followed in the network, up to its classifier, with its weights:
            fully connected layers (fc6 and fc7 of VGG16), or else all layers from the cut on, which then run on each
            pooled RoI (conv5 and global average pooling of ResNets, as in K. He et al., CVPR 2016). "fc": new fully
            connected layers. "auto": "reuse" for networks with fully connected layers after a pooling, unless they do
            not fit `roi_output_size`, and for ResNets at stride 16 (a network whose name begins with "resnet"); "fc"
            elsewhere.
        stride: pixels of the image per cell of the feature map, where the network is cut, unless that is at the pooling
            before fully connected layers that are carried over; several, as in (8, 16), pool every RoI from as many
            maps, whose channels are put side by side (small objects gain; new layers only).
        roi_output_size: (H, W) of a pooled RoI; three numbers or more are the levels of a spatial pyramid, as in
            (1, 2, 3, 6): see `pooling_grids`. None: what the layers that are carried over were given when
            the network classified images, (7, 7) in VGG16 and (14, 14) in ResNets; (7, 7) for new layers.
        lateral_channels: a 1x1 convolution reduces each feature map to this many channels before RoI pooling (as the
            lateral connections of feature pyramid networks do), so that several maps cost the first fully connected
            layer no more than one. None: the maps are pooled as they are. A head that is reused with its weights
            takes its map as it is in any case.
        context: from the coarsest of several maps, RoIs are pooled enlarged by this factor about their centres: what
            surrounds a box says how to move its edges. A single map is pooled without context.
        fc_units: sizes of the fully connected layers that are made.
        dropout: probability of dropping each output of the fully connected layers in training; a carried stage has
            the dropout that the network has.
        finetune_from: name of the first layer that is fine-tuned, of the backbone's or of those after RoI pooling;
            layers before it keep their weights. "head": no convolution is tuned, only what follows RoI pooling.
            None: conv3_1 for VGG networks and conv2 for S and M as in the paper, all layers elsewhere. Batch
            normalisation is frozen always: mini-batches of two images are too small for its statistics.
        roi_pooling: the `implementation` of RoI pooling: "native", "portable" or "auto" (see `roi_pool`). The argument
            has this name in every function of models.
        seed: of the new layers' initial weights and of dropout.

    Returns:
        A functional `keras.Model`:

        - inputs `images`, float32 `[B, H, W, 3]`, RGB 0..255, and `rois`, float32 `[B, R, 4]`, `[ymin, xmin, ymax,
          xmax]` in pixels of `images` with continuous edges;
        - outputs `class_logits`, float32 `[B, R, K + 1]` (0 is the background), and `box_deltas`, float32
          `[B, R, K, 4]`, `(ty, tx, th, tw)` for each class.

        B, R, H and W may vary from call to call; R may be 0.

    Raises:
        InputError: where the backbone is unknown, cannot be cut at `stride`, or has no layer `finetune_from`; where
            what is to be carried over does not fit `stride` or `roi_output_size`.

    Example:
        >>> model = fast_rcnn("vgg16", num_classes=20, weights=None)
        >>> [layer.name for layer in model.layers if "fc" in layer.name]
        ['fc1', 'fc1_dropout', 'fc2', 'fc2_dropout']

    Reference:
        R. Girshick, "Fast R-CNN", ICCV 2015, sections 2.1 to 2.3.
    """
    if num_classes < 1:
        raise InputError(f"num_classes: found {num_classes}; expected at least one class; name the objects to detect")
    name, network, preprocess = load_backbone(backbone, weights=weights, preprocessing=preprocessing)
    cut = cut_at_roi_pooling(network, stride, roi_output_size, head)
    convolutions = with_any_image_size(cut.convolutions, name=parts.BACKBONE)

    images = keras.Input((None, None, 3), name="images", dtype="float32")
    rois = keras.Input((None, 4), name="rois", dtype="float32")
    features = keras.tree.flatten(convolutions(preprocess(images)))
    if lateral_channels is not None and not cut.fc_layers and cut.stage is None:
        features = _lateral(features, cut, lateral_channels, seed)
    pooled = _pool(features, rois, cut, context, roi_pooling)
    if cut.stage is None:
        vectors = keras.layers.Reshape((-1, math.prod(pooled.shape[2:])), name="roi_vectors")(pooled)
        hidden = _fully_connected(vectors, cut.fc_layers, fc_units, dropout, seed)
    else:
        vectors = cut.stage(RoIsToBatch(name="rois_to_batch")(pooled))
        hidden = BatchToRoIs(name="batch_to_rois")(vectors, pooled)
    outputs = _siblings(hidden, num_classes, box_statistics, seed)
    model = keras.Model({"images": images, "rois": rois}, outputs, name="fast_rcnn")
    _freeze(model, finetune_from or FINETUNE_FROM.get(name))
    return model


def _lateral(features, cut, channels, seed):
    """Each feature map with fewer channels, by a 1x1 convolution."""
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
    """Pools the RoIs from each feature map, with their context from the coarsest of several; their channels are
    concatenated."""
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
    """fc6 and fc7: the network's own with their weights, or new ones; dropout after each (section 4.2's solver)."""
    if not reused_layers:
        reused_layers = [
            keras.layers.Dense(
                units, "relu", kernel_initializer=keras.initializers.HeNormal(seed=seed + number), name=f"fc{number}"
            )
            for number, units in enumerate(fc_units, start=6)
        ]
    # `dropout` takes the place of the network's own: both would drop more than either says.
    layers = [layer for layer in reused_layers if not isinstance(layer, keras.layers.Dropout)]
    for number, (layer, following) in enumerate(itertools.zip_longest(layers, layers[1:])):
        vectors = _apply_copy(layer, vectors)
        if isinstance(layer, keras.layers.Dense) and dropout > 0 and not _are_factors(layer, following):
            # A seed of its own: with one seed, layers of one size would drop the same units.
            vectors = keras.layers.Dropout(dropout, seed=seed + number, name=f"{layer.name}_dropout")(vectors)
    return vectors


def _are_factors(layer, following):
    """Whether two layers are one fully connected layer by truncated SVD (section 3.1): no bias, nothing in between."""
    linear = not layer.use_bias and layer.activation is keras.activations.linear
    return linear and isinstance(following, keras.layers.Dense)


def _apply_copy(layer, tensor):
    """Applies a new layer of the same configuration and weights, so that the given network is left as it was."""
    copy = type(layer).from_config(layer.get_config())
    result = copy(tensor)
    if layer.built:
        copy.set_weights(layer.get_weights())
    return result


def _siblings(hidden, num_classes, box_statistics, seed):
    """Class scores and box regression side by side, initialised as in section 2.3 ("SGD hyper-parameters")."""
    normal = keras.initializers.RandomNormal
    if box_statistics is None:
        box_statistics = boxes.BoxStatistics(np.zeros((num_classes, 4)), np.tile(DEFAULT_TARGET_STD, (num_classes, 1)))
    if np.shape(box_statistics.mean) != (num_classes, 4):
        raise InputError(
            f"box_statistics: found shape {np.shape(box_statistics.mean)}; expected ({num_classes}, 4), a row a class; "
            "compute them on a data set with these classes"
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
    """Freezes batch normalisation everywhere, and all layers before `finetune_from`."""
    convolutions, head = parts.backbone_layers(model), parts.head_layers(model)
    names = [*(layer.name for layer in convolutions), "head", *(layer.name for layer in head if layer.weights)]
    if finetune_from is not None and finetune_from not in names:
        raise InputError(
            f"finetune_from: found {finetune_from!r}; expected a layer of the backbone; known: {', '.join(names)}"
        )
    frozen = set() if finetune_from is None else set(names[: names.index(finetune_from)])
    for layer in (*convolutions, *head):
        if layer.name in frozen or isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
