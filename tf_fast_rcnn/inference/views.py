"""Detection in tiles (see `data.tiles`) as a TensorFlow graph: the views of an image, and its regions in each view.

What matters is the scale of tiles, not their borders: convolutions see more around an object in a larger view, and
neighbouring views share fewer pixels. So the views are larger than the tiles of training, as large as memory for their
feature maps allows, and each proposal is pooled once, from the view in which it is farthest from the border. The boxes
of all views then go through the same non-maximum suppression, so there are no seams at which objects are found twice.
Memory does not grow with the image, except for the pixels themselves and the proposals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.network_input import network_size, resize
from tf_fast_rcnn.data.tiles import LIMIT_TOLERANCE

if TYPE_CHECKING:
    from tf_fast_rcnn.inference.settings import DetectionSettings

# Side of the largest view in pixels of the network's input, unless a single tile is larger. Feature maps of the first
# layers of a view take up to 0.2 GB.
VIEW_SIDE = 1280

# `Detector.regions_in_view`.
RegionsInView = Callable[[tf.Tensor, tf.Tensor, float | None], tuple[tf.Tensor, tf.Tensor]]


class Views(NamedTuple):
    """The views of an image.

    Attributes:
        windows: int32 `[V, 4]`, `[top, left, bottom, right]` in pixels of the image. The last one is the whole image if
            that is seen.
        sizes: int32 `[V, 2]`, height and width of the views for the network.
        tops, lefts: the windows of tiles along each axis: `Axis`.
    """

    windows: tf.Tensor
    sizes: tf.Tensor
    tops: Axis
    lefts: Axis


class Axis(NamedTuple):
    """The fewest windows of equal length, at most a given one, that cover an axis and overlap; evenly spaced.

    Attributes:
        starts: int32 `[n]`.
        side: int32 `[]`, the length of each.
        spacing: float32 `[]`, the distance between neighbours before rounding.
    """

    starts: tf.Tensor
    side: tf.Tensor
    spacing: tf.Tensor


def views_of(size: tf.Tensor, settings: DetectionSettings) -> Views:
    """The views of an image.

    Args:
        size: int32 `[2]`, its height and width.
        settings: `DetectionSettings` with tiles.
    """
    tiles = settings.tiles
    assert tiles is not None
    factor = settings.shorter_sides[0] / tiles.size
    longest = max(tiles.size, math.floor(VIEW_SIDE / factor))
    # One pixel more than needed, because windows begin at whole pixels.
    overlap = math.ceil(tiles.limit) + 1
    tops, lefts = (_axis(size[axis], longest, overlap) for axis in (0, 1))
    corners = tf.reshape(tf.stack(tf.meshgrid(tops.starts, lefts.starts, indexing="ij"), axis=-1), [-1, 2])
    sides = tf.stack([tops.side, lefts.side])
    windows = tf.concat([corners, corners + sides], axis=1)
    sizes = tf.maximum(tf.cast(tf.round(tf.cast(sides, tf.float32) * factor), tf.int32), 1)
    sizes = tf.tile(sizes[None], [tf.shape(windows)[0], 1])
    if tiles.whole_image:
        windows = tf.concat([windows, [tf.concat([[0, 0], size], 0)]], axis=0)
        whole = network_size(size, settings.shorter_sides[0], settings.longer_side)
        sizes = tf.concat([sizes, whole[None]], axis=0)
    return Views(windows, sizes, tops, lefts)


def _axis(length, longest, overlap):
    longest = max(longest, overlap + 1)
    count = tf.maximum(-(-(length - overlap) // (longest - overlap)), 1)
    side = tf.minimum(-(-(length + (count - 1) * overlap) // count), length)
    spacing = tf.cast(length - side, tf.float32) / tf.cast(tf.maximum(count - 1, 1), tf.float32)
    starts = tf.cast(tf.round(tf.cast(tf.range(count), tf.float32) * spacing), tf.int32)
    return Axis(starts, side, spacing)


def view_of_each(views: Views, pixels: tf.Tensor, settings: DetectionSettings) -> tf.Tensor:
    """The index of the view that each box is pooled from, int32 `[N]`.

    Args:
        views: what `views_of` returned.
        pixels: float32 `[N, 4]`, boxes in pixels of the image.
        settings: as for `views_of`.
    """
    tiles = settings.tiles
    assert tiles is not None
    row, column = (
        _nearest(axis, (pixels[:, low] + pixels[:, low + 2]) / 2) for low, axis in enumerate((views.tops, views.lefts))
    )
    index = row * tf.size(views.lefts.starts) + column
    if not tiles.whole_image:
        return index
    longer = tf.reduce_max(pixels[:, 2:] - pixels[:, :2], axis=1)
    return tf.where(longer <= tiles.limit + LIMIT_TOLERANCE, index, tf.shape(views.windows)[0] - 1)


def _nearest(axis, centres):
    """The index of the window with the nearest centre, int32 `[N]`."""
    first = tf.cast(axis.side, tf.float32) / 2
    index = tf.cast(tf.round((centres - first) / tf.maximum(axis.spacing, 1.0)), tf.int32)
    return tf.clip_by_value(index, 0, tf.size(axis.starts) - 1)


def tiled_regions(
    regions_in_view: RegionsInView,
    num_classes: int,
    settings: DetectionSettings,
    image_of: Callable[[tf.Tensor], tf.Tensor],
    proposals: tf.RaggedTensor,
    above: float | None = None,
) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """`Detector.regions` in tiles.

    Args:
        regions_in_view: `Detector.regions_in_view`.
        num_classes: K.
        settings: `DetectionSettings` with tiles.
        image_of, proposals: as for `Detector.regions`.
        above: only regions with a class score above this are returned; None: all.

    Returns:
        Class probabilities, ragged float32 `[B, (R), K + 1]`, and boxes, ragged float32 `[B, (R), K, 4]`, relative to
        the images, in the order of the proposals.
    """
    images = tf.cast(proposals.nrows(), tf.int32)
    lengths = tf.TensorArray(tf.int64, images, element_shape=[])

    def one_image(index, parts, lengths):
        image = image_of(index)
        found = _regions_of_image(regions_in_view, num_classes, settings, image, proposals[index], above)
        parts = [array.write(index, each) for array, each in zip(parts, found, strict=True)]
        return index + 1, parts, lengths.write(index, tf.shape(found[0], tf.int64)[0])

    start = (tf.constant(0), _arrays(num_classes, images), lengths)
    _, parts, lengths = tf.while_loop(lambda index, *_: index < images, one_image, start, parallel_iterations=1)
    lengths = lengths.stack()
    probabilities, class_boxes = (tf.RaggedTensor.from_row_lengths(array.concat(), lengths) for array in parts)
    return probabilities, class_boxes


def _arrays(num_classes, count):
    """Empty arrays for the class probabilities `[N, K + 1]` and boxes `[N, K, 4]` of `count` parts."""
    shapes = ([num_classes + 1], [num_classes, 4])
    return [tf.TensorArray(tf.float32, count, element_shape=[None, *shape], infer_shape=False) for shape in shapes]


def _regions_of_image(regions_in_view, num_classes, settings, image, proposals, above):
    """The regions of one image, uint8 `[H, W, 3]`, with proposals `[N, 4]`, view by view."""
    size = tf.shape(image)[:2]
    height, width = tf.unstack(tf.cast(size, tf.float32))
    views = views_of(size, settings)
    count = tf.shape(views.windows)[0]
    pixels = boxes.scale(proposals, height, width)
    view = view_of_each(views, pixels, settings)
    order = tf.argsort(view, stable=True)
    ends = tf.cumsum(tf.math.bincount(view, minlength=count, maxlength=count))

    def one_view(index, parts, places):
        rows = order[tf.where(index > 0, ends[tf.maximum(index - 1, 0)], 0) : ends[index]]
        window = views.windows[index]
        top, left, bottom, right = tf.unstack(window)
        offset, sides = _as_floats(window)

        def look():
            seen = resize(image[top:bottom, left:right], views.sizes[index])
            relative = (tf.gather(pixels, rows) - offset) / sides
            probabilities, found = regions_in_view(seen[None], relative, above)
            found = boxes.clip(boxes.relative(found * sides + offset, height, width))
            if above is None:
                return probabilities, found, rows
            kept = tf.reduce_max(probabilities[:, 1:], axis=1) > above
            return tuple(tf.boolean_mask(each, kept) for each in (probabilities, found, rows))

        nothing = tf.zeros([0, num_classes + 1]), tf.zeros([0, num_classes, 4]), rows
        *found, place = tf.cond(tf.size(rows) > 0, look, lambda: nothing)
        parts = [array.write(index, each) for array, each in zip(parts, found, strict=True)]
        return index + 1, parts, places.write(index, place)

    places = tf.TensorArray(tf.int32, count, element_shape=[None], infer_shape=False)
    start = (tf.constant(0), _arrays(num_classes, count), places)
    _, parts, places = tf.while_loop(lambda index, *_: index < count, one_view, start, parallel_iterations=1)
    # In the order of the proposals, by which ties between scores are broken.
    order = tf.argsort(places.concat())
    return [tf.gather(array.concat(), order) for array in parts]


def _as_floats(window):
    """`[top, left, top, left]` and `[height, width, height, width]` of a window, float32 `[4]` each."""
    window = tf.cast(window, tf.float32)
    corner, sides = window[:2], window[2:] - window[:2]
    return tf.tile(corner, [2]), tf.tile(sides, [2])
