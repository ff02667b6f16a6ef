"""The one way by which TensorFlow's graph reads annotated images: training, detection and measurements share it."""

import tensorflow as tf

_DTYPES = {
    "image_bytes": tf.string,
    "proposals": tf.float32,
    "boxes": tf.float32,
    "labels": tf.int32,
    "difficult": tf.bool,
    "crowd": tf.bool,
}
_SHAPES = {"image_bytes": (), "proposals": (None, 4), "boxes": (None, 4)}


def example_reader(dataset):
    """How the graph reads a data set: a function for `tf.data.Dataset.map`.

    Args:
        dataset: `DetectionDataset` with proposals.

    Returns:
        A function that takes the number of an image, int64 `[]`, and returns a dict of tensors: `image_bytes` string
        `[]` (a file that `decode_image` decodes), `proposals` float32 `[P, 4]` and `boxes` float32 `[G, 4]`, both
        `[ymin, xmin, ymax, xmax]` relative to the image, `labels` int32 `[G]`, 1..K, `difficult` and `crowd` bool
        `[G]`.

    Example:
        >>> numbers = tf.data.Dataset.range(len(dataset))                                   # doctest: +SKIP
        >>> images = numbers.map(example_reader(dataset)).map(                              # doctest: +SKIP
        ...     lambda example: decode_image(example["image_bytes"]))
    """

    def values_of(index):
        record = dataset[int(index)]
        return (
            record.encoded_image(),
            record.proposals(),
            record.boxes,
            record.labels,
            record.difficult,
            record.crowd,
        )

    def read(index):
        values = tf.numpy_function(values_of, [index], list(_DTYPES.values()), stateful=False)
        return {
            name: tf.ensure_shape(value, _SHAPES.get(name, (None,)))
            for name, value in zip(_DTYPES, values, strict=True)
        }

    return read
