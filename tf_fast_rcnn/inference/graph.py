"""Detection (section 3 of the paper) as a TensorFlow graph: scores and boxes of every proposal, then non-maximum
suppression per class.

`detect`, `evaluate` and the exported models all run this graph and therefore return the same results. The backbone runs
on "views". A view is an image at one scale: an image has one view, or several in an image pyramid. The RoIs of all
views are then classified together, whatever the sizes of the images.
"""

import contextlib
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.network_input import resize_to_network
from tf_fast_rcnn.errors import check_setting
from tf_fast_rcnn.inference.settings import DetectionSettings
from tf_fast_rcnn.inference.suppression import suppress
from tf_fast_rcnn.inference.views import tiled_regions
from tf_fast_rcnn.models.folding import compiled_convolutions
from tf_fast_rcnn.models.parts import number_of_classes, stages
from tf_fast_rcnn.models.pretrained import copy_weights
from tf_fast_rcnn.models.screening import Screening, can_screen
from tf_fast_rcnn.models.weights_seen import WeightsSeen
from tf_fast_rcnn.training.precision import in_precision

# In an image pyramid each RoI is pooled from the scale at which its area is closest to that of the images that networks
# are pre-trained on (K. He et al., "Spatial pyramid pooling", 2014, section 4.1; section 5.2 of the paper).
PYRAMID_AREA = 224.0 * 224.0

# Upper limit for the memory of pooled RoIs at any one time. For VGG16 each takes 100 kB in float32.
_POOLED_BYTES = 128 << 20

# The first pass drops RoIs whose probability of being an object is below this share of the score threshold, because its
# probabilities are not exact.
_SCREENED_BELOW = 0.5

# A class logit whose probability is 0.
_NO_OBJECT = -100.0

# The feature-map cells of a RoI's corners are from -4096 to 4096 (see `to_cells`).
_CELL_BITS = 14


class Detector:
    """The steps of detection over a Fast R-CNN model, as functions of tensors.

    Args:
        model: what `fast_rcnn` returned. What the detector computes from its weights is updated by `refresh`.
        settings: `DetectionSettings`; None for the defaults.
        roi_pooling: implementation of RoI pooling; None for the model's own.

    Attributes:
        settings, num_classes (K).
        stages: see `models.parts.stages`.
        variables: all variables that the graph may read.

    Raises:
        InputError: if `settings.class_ids` contains a class that the model does not have.
    """

    def __init__(
        self, model: keras.Model, settings: DetectionSettings | None = None, roi_pooling: str | None = None
    ) -> None:
        self.settings = settings or DetectionSettings()
        self.num_classes = number_of_classes(model)
        class_ids = self.settings.class_ids
        check_setting(
            "class_ids",
            class_ids,
            not class_ids or max(class_ids) <= self.num_classes,
            f"class ids 1..{self.num_classes}",
        )
        own = model if self.settings.dtype == "float32" else _copy_in(model, self.settings.dtype)
        self.stages = stages(own, roi_pooling)
        self._screening = self._first_pass()
        self.variables = [*own.variables, *(self._screening.factors if self._screening else [])]
        self._copy = None if own is model else own
        read = model.variables if self._copy else self._screening.source if self._screening else []
        self._seen = WeightsSeen(read)
        self.refresh(model)

    def _first_pass(self):
        """The `Screening` of the settings, or None."""
        settings, classify = self.settings, self.stages.classify
        # Boxes of any score vote, and a refined box may have a higher score.
        all_count = settings.box_voting or settings.box_refinement_steps > 1
        rank = settings.screening_rank
        return None if rank is None or all_count or not can_screen(classify, rank) else Screening(classify, rank)

    def refresh(self, model: keras.Model) -> None:
        """Computes anew what the detector has computed from the model's weights, if these have changed: its weights in
        bfloat16, and the first pass. All other weights are the model's own variables."""
        if not self._seen.have_changed():
            return
        if self._copy:
            copy_weights(model, self._copy)
        if self._screening:
            self._screening.update()

    def detect(self, image_of: Callable[[tf.Tensor], tf.Tensor], proposals: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        """Detects in B images.

        Args:
            image_of: function that takes the index of an image, int32 `[]`, and returns the image, uint8 `[H, W, 3]`.
            proposals: ragged float32 `[B, (R), 4]`, relative to the images.

        Returns:
            What `suppress` returns.
        """
        # Boxes of any score vote.
        above = None if self.settings.box_voting else self.settings.score_threshold
        probabilities, class_boxes = self.regions(image_of, proposals, above)
        return self.suppress(probabilities.to_tensor(), class_boxes.to_tensor())

    def regions(
        self,
        image_of: Callable[[tf.Tensor], tf.Tensor],
        proposals: tf.RaggedTensor,
        above: float | None = None,
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Scores and boxes of proposals, before non-maximum suppression.

        Args:
            image_of, proposals: as for `detect`.
            above: regions without a class score above this may be missing (with tiles) or have a background probability
                of 1. None: all regions are exact.

        Returns:
            Class probabilities, ragged float32 `[B, (R), K + 1]`, and one box per class, ragged float32
            `[B, (R), K, 4]`, relative to the image and clipped to it.
        """
        if self.settings.tiles is not None:
            return tiled_regions(self.regions_in_view, self.num_classes, self.settings, image_of, proposals, above)
        maps, sizes = self._feature_maps(image_of, tf.cast(proposals.nrows(), tf.int32))
        image = tf.cast(proposals.value_rowids(), tf.int32)
        probabilities, class_boxes = self._classify_and_refine(maps, sizes, image, proposals.values, above)
        return proposals.with_values(probabilities), proposals.with_values(class_boxes)

    def regions_in_view(
        self, view: tf.Tensor, proposals: tf.Tensor, above: float | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores and boxes of proposals in one view of an image.

        Args:
            view: float32 `[1, H, W, 3]`, a part of an image at the size for the network.
            proposals: float32 `[N, 4]`, relative to the view.
            above: as for `regions`.

        Returns:
            Class probabilities float32 `[N, K + 1]` and boxes float32 `[N, K, 4]`, relative to the view and clipped to
            it.
        """
        maps = [
            tf.TensorArray(each.dtype, 1, element_shape=each.shape, clear_after_read=False, infer_shape=False).write(
                0, each
            )
            for each in self._convolved(view)
        ]
        sizes = tf.reshape(tf.shape(view)[1:3], [1, 1, 2])
        return self._classify_and_refine(maps, sizes, tf.zeros_like(proposals[:, 0], tf.int32), proposals, above)

    def suppress(self, probabilities: tf.Tensor, class_boxes: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Non-maximum suppression, separately for each class and image: see `inference.suppression.suppress`."""
        return suppress(self.settings, probabilities, class_boxes)

    def to_scores(self, class_logits: tf.Tensor) -> tf.Tensor:
        """Class probabilities of logits `[..., K + 1]`, by softmax or sigmoid as `settings.scores` says."""
        return tf.sigmoid(class_logits) if self.settings.scores == "sigmoid" else tf.nn.softmax(class_logits)

    def _tied_scores(self, class_logits):
        """`to_scores` of logits `[N, K + 1]`, the same for equal rows.

        TensorFlow's CPU kernels without oneDNN compute whole vectors of numbers by other functions than what is left at
        the end: the exponential, and in softmax the inverse of the sum as well. The last bit then depends on a row's
        place, and scores that rank equally would not. With 16 rows or a multiple there are whole vectors only.
        """
        count = tf.shape(class_logits)[0]
        logits = tf.pad(class_logits, [[0, -count % 16], [0, 0]])
        if self.settings.scores == "sigmoid":
            return tf.sigmoid(logits)[:count]
        exponentials = tf.exp(logits - tf.reduce_max(logits, axis=1, keepdims=True))
        return (exponentials / tf.reduce_sum(exponentials, axis=1, keepdims=True))[:count]

    def _feature_maps(self, image_of, images):
        """Runs the backbone on every image at every scale, one view after another, each at its own size.

        Returns:
            For each feature map that RoIs are pooled from, a TensorArray with one `[1, h, w, C]` per view; and the
            sizes of the resized images, int32 `[images, scales, 2]`.
        """
        sides, outputs = self.settings.shorter_sides, keras.tree.flatten(self.stages.convolve.output)
        views = images * len(sides)
        maps = [
            tf.TensorArray(output.dtype, views, element_shape=output.shape, clear_after_read=False, infer_shape=False)
            for output in outputs
        ]

        def convolve(index, maps, sizes):
            image = image_of(index)
            for scale, side in enumerate(sides):
                view = index * len(sides) + scale
                resized = resize_to_network(image, side, self.settings.longer_side)
                features = self._convolved(resized[None])
                maps = [array.write(view, each) for each, array in zip(features, maps, strict=True)]
                sizes = sizes.write(view, tf.shape(resized)[:2])
            return index + 1, maps, sizes

        sizes = tf.TensorArray(tf.int32, views, element_shape=[2])
        start = (tf.constant(0), maps, sizes)
        _, maps, sizes = tf.while_loop(lambda index, *_: index < images, convolve, start, parallel_iterations=1)
        return maps, tf.reshape(sizes.stack(), [images, len(sides), 2])

    def _convolved(self, images):
        """The feature maps of images `[B, H, W, 3]` that RoIs are pooled from, a list of `[B, h, w, C]`."""
        outputs = keras.tree.flatten(self.stages.convolve.output)
        # Where RoI pooling is compiled, convolutions may be too.
        with compiled_convolutions() if self.stages.is_native else contextlib.nullcontext():
            found = keras.tree.flatten(self.stages.convolve(images, training=False))
        # Under mixed precision the layers' output types differ from those that the model was built with.
        return [tf.cast(each, output.dtype) for each, output in zip(found, outputs, strict=True)]

    def _classify_and_refine(self, maps, sizes, image, proposals, above):
        """`_classify`, repeated `box_refinement_steps` times with the boxes of the step before."""
        probabilities, class_boxes = self._classify(maps, sizes, image, proposals, above)
        for _ in range(self.settings.box_refinement_steps - 1):
            best = tf.argmax(probabilities[:, 1:], axis=1)
            refined = tf.gather(class_boxes, best, batch_dims=1)
            probabilities, class_boxes = self._classify(maps, sizes, image, refined, above)
        return probabilities, class_boxes

    def _classify(self, maps, sizes, image, proposals, above):
        """Class probabilities `[N, K + 1]` and boxes `[N, K, 4]` of proposals `[N, 4]` of the images `[N]`.

        RoIs of one view whose corners fall into the same feature-map cells have the same pooled values and are computed
        only once ("dedup_boxes" in the released system). Small images resized to 600 pixels have many of them.
        """
        rois, view = self._at_nearest_scale(sizes, image, proposals)
        # RoIs are pooled view by view. With a single scale they are already in that order.
        order = tf.argsort(view, stable=True) if len(self.settings.shorter_sides) > 1 else tf.range(tf.size(view))
        rois, view = tf.gather(rois, order), tf.gather(view, order)
        number, count = _numbers_of_equal_rows([view, *map(_packed, self.stages.cells(rois))])
        first = tf.math.unsorted_segment_min(tf.range(tf.size(view)), number, count)
        logits, deltas = self._outputs(maps, tf.gather(rois, first), tf.gather(view, first), above)
        number = tf.gather(number, tf.math.invert_permutation(order))
        # Regression targets do not depend on the unit of the boxes, so relative boxes are decoded directly.
        decoded = boxes.decode(tf.expand_dims(proposals, 1), tf.gather(deltas, number))
        return tf.gather(self._tied_scores(logits), number), boxes.clip(decoded)

    def _at_nearest_scale(self, sizes, image, proposals):
        """RoIs `[N, 4]` in pixels of the scale at which their area is closest to PYRAMID_AREA, and the index of that
        view, int32 `[N]`."""
        height, width = tf.unstack(tf.gather(tf.cast(sizes, tf.float32), image), axis=-1)
        at_scales = boxes.scale(tf.expand_dims(proposals, 1), height, width)
        scale = tf.argmin(tf.abs(boxes.area(at_scales) - PYRAMID_AREA), axis=1, output_type=tf.int32)
        return tf.gather(at_scales, scale, batch_dims=1), image * len(self.settings.shorter_sides) + scale

    def _outputs(self, maps, rois, view, above):
        """Class logits `[N, K + 1]` and box deltas `[N, K, 4]` of RoIs that are sorted by view. Those that the first
        pass finds to be background have logits that say so, and no deltas."""
        if self._screening is None or above is None:
            return self._classified(maps, rois, view)
        kept = self._screened(maps, rois, view, above)
        logits, deltas = self._classified(maps, tf.gather(rois, kept), tf.gather(view, kept))
        background = tf.one_hot(tf.zeros_like(view), self.num_classes + 1, 0.0, _NO_OBJECT)
        no_deltas = tf.zeros([tf.size(view), self.num_classes, 4])
        rows = kept[:, None]
        return (
            tf.tensor_scatter_nd_update(background, rows, logits),
            tf.tensor_scatter_nd_update(no_deltas, rows, deltas),
        )

    def _classified(self, maps, rois, view):
        """Class logits and box deltas of RoIs that are sorted by view."""

        def classify(pooled):
            found = self.stages.classify(pooled[None], training=False)
            return found["class_logits"][0], found["box_deltas"][0]

        shapes = [self.num_classes + 1], [self.num_classes, 4]
        return self._of_pooled(classify, shapes, maps, rois, view)

    def _screened(self, maps, rois, view, above):
        """The indices of the RoIs that the first pass does not find to be background."""
        screening, settings = self._screening, self.settings
        assert screening is not None

        def foreground_scores(pooled):
            scores = self.to_scores(screening(pooled))
            return [1 - scores[:, 0] if settings.scores == "softmax" else tf.reduce_max(scores[:, 1:], axis=1)]

        (foreground,) = self._of_pooled(foreground_scores, [[]], maps, rois, view)
        return tf.cast(tf.where(foreground > above * _SCREENED_BELOW)[:, 0], tf.int32)

    def _of_pooled(self, function, shapes, maps, rois, view):
        """What a function returns for pooled RoIs: a list of float32 `[N, *shape]`, one for each of `shapes`.

        The RoIs are processed in parts, so that memory does not grow with their number.
        """
        count, dtype = tf.size(view), self.stages.classify.input.dtype
        bytes_of_one = math.prod(self.stages.classify.input.shape[2:]) * tf.as_dtype(dtype).size
        parts = -(-count // max(1, _POOLED_BYTES // bytes_of_one))
        outputs = [
            tf.TensorArray(tf.float32, parts, element_shape=[None, *shape], infer_shape=False) for shape in shapes
        ]

        def one_part(part, outputs):
            rows = slice(count * part // parts, count * (part + 1) // parts)
            found = function(self._pool(maps, rois[rows], view[rows]))
            return part + 1, [array.write(part, each) for array, each in zip(outputs, found, strict=True)]

        start = (tf.constant(0), outputs)
        _, outputs = tf.while_loop(lambda part, _: part < parts, one_part, start, parallel_iterations=1)
        return [array.concat() for array in outputs]

    def _pool(self, maps, rois, view):
        """Pooled features `[N, P, Q, C]`, N >= 1, of RoIs that are sorted by view."""

        def pool(one_view, rois):
            return self.stages.pool([array.read(one_view) for array in maps], rois[None])[0]

        def pool_each():
            by_view = tf.RaggedTensor.from_value_rowids(rois, tf.cast(view - view[0], tf.int64), validate=False)
            views = tf.cast(by_view.nrows(), tf.int32)
            pooled = tf.TensorArray(dtype, views, element_shape=[None, *shape], infer_shape=False)
            pooled = tf.while_loop(
                lambda index, _: index < views,
                lambda index, pooled: (index + 1, pooled.write(index, pool(view[0] + index, by_view[index]))),
                (tf.constant(0), pooled),
                parallel_iterations=1,
            )[1]
            return pooled.concat()

        dtype, shape = maps[0].dtype, self.stages.classify.input.shape[2:]
        # A single view skips the loop, whose concatenation would take as long as pooling itself.
        return tf.cond(tf.equal(view[0], view[-1]), lambda: pool(view[0], rois), pool_each)


def _copy_in(model, dtype):
    """A model of the same layers with new weights of another dtype; layers fixed to float32 keep it."""
    with in_precision(model, dtype):
        return type(model).from_config(model.get_config())


def _packed(cells):
    """Packs the cells `[N, 4]` of RoIs into int64 `[N]`: two values are equal only if all four cells are."""
    bits = tf.constant([3 * _CELL_BITS, 2 * _CELL_BITS, _CELL_BITS, 0], tf.int64)
    return tf.reduce_sum(tf.bitwise.left_shift(tf.cast(cells, tf.int64) + (1 << (_CELL_BITS - 2)), bits), axis=1)


def _numbers_of_equal_rows(columns):
    """Numbers the distinct rows of integer columns `[N]` in order of appearance.

    Returns:
        The number of each row, int32 `[N]`, the same for equal rows; and how many distinct rows there are.
    """
    found = tf.unique(columns[0])
    for column in columns[1:]:
        pairs = tf.cast(found.idx, tf.int64) * tf.size(column, tf.int64) + tf.cast(tf.unique(column).idx, tf.int64)
        found = tf.unique(pairs)
    return found.idx, tf.size(found.y)
