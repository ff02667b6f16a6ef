"""Where the data sets of TensorFlow Datasets (TFDS) keep images, boxes and classes.

`find_layouts` finds them by rules that fit any builder. `own_builder` knows where TFDS's own builders differ from what
their features say. docs/tfds.md lists all of these builders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_LABELS, _BOXES = ("label", "labels", "type"), ("bbox", "bboxes")
_DIFFICULT = ("is_difficult", "difficult")
# Open Images marks boxes around groups of objects: 1 yes, 0 no, -1 unknown.
_CROWD = ("is_crowd", "iscrowd", "is_group_of")


class Layout(NamedTuple):
    """Where an example keeps one image and its objects.

    Attributes:
        scope: the name of the dict that contains all of it; "" for the example itself.
        image: the name of the image.
        objects: the name of the sequence of objects, or of a dict of sequences; "" if boxes are next to the image.
        box: the name of the box, in `objects` or next to the image.
        several: whether there is any number of boxes, not just one.
        label: the name of the class label, in `objects` or next to the image; "" if there is only one class.
        label_of_image: whether there is one label for all objects.
        label_text: the name of a text next to the image that names its class; "" if the label itself has names.
        flags: for "difficult", "crowd" and "area", those that exist: their names next to `box`.
        class_names: the classes in the order of the labels.
    """

    scope: str
    image: str
    objects: str
    box: str
    several: bool
    label: str
    label_of_image: bool
    label_text: str
    flags: dict[str, str]
    class_names: list[str]


class OwnBuilder(NamedTuple):
    """How a builder of TFDS's own differs from what its features say.

    Attributes:
        mark: the path of a feature that it has; a user's data set of the same name has not.
        version: the latest version that is known to be like this.
        to_relative: function of its boxes, height and width that returns relative boxes.
        one_class: the class of boxes that have no label.
        flags: names of flags that only this builder has, as in `Layout`.
        areas_truncated: in which sequence areas lost their decimals.
        zero_box_is_none: whether a box of zeros stands for an image that is not annotated.
        refusal: why it is not read.
    """

    mark: tuple[str, ...]
    version: str
    to_relative: Callable[..., np.ndarray] = lambda boxes, height, width: boxes
    one_class: str = ""
    flags: Mapping[str, str] = {}
    areas_truncated: str = ""
    zero_box_is_none: bool = False
    refusal: str = ""


def _from_bottom(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    return box_algebra.flip_vertical(boxes)


_AS_FEATURES_SAY = OwnBuilder((), "")
_OWN = {
    "voc": OwnBuilder(("objects", "pose"), "5.0.0", box_algebra.from_tfds_voc),
    "bccd": OwnBuilder(("image/filename",), "1.0.0", box_algebra.from_tfds_voc),
    "stanford_dogs": OwnBuilder(("image/filename",), "0.2.0", box_algebra.from_tfds_voc),
    "oxford_iiit_pet": OwnBuilder(("head_bbox",), "4.0.0", box_algebra.from_tfds_voc, zero_box_is_none=True),
    "kitti": OwnBuilder(("objects", "rotation_y"), "3.3.0", _from_bottom),
    "coco": OwnBuilder(("objects", "area"), "1.1.0", areas_truncated="objects"),
    "coco_captions": OwnBuilder(("captions",), "1.1.0", areas_truncated="objects"),
    "lvis": OwnBuilder(("not_exhaustive_category_ids",), "1.4.0", areas_truncated="objects"),
    "wider_face": OwnBuilder(("faces", "invalid"), "0.1.0", one_class="face", flags={"difficult": "invalid"}),
    "gref": OwnBuilder(
        ("objects", "refexp"),
        "1.0.0",
        refusal="found only the objects that its texts refer to; expected all objects of each image; use tfds:coco, "
        "which annotates the same images",
    ),
}


def own_builder(builder: tfds.core.DatasetBuilder, name: str) -> OwnBuilder:
    """What is known of a builder of TFDS's own; for any other, that it is as its features say.

    Args:
        builder: a `tfds.core.DatasetBuilder`.
        name: as in the SPEC, for error messages.

    Raises:
        InputError: for one that is not read, or a version that may differ from the known ones.
    """
    own = _OWN.get(builder.name, _AS_FEATURES_SAY)
    if not own.mark or not _has(builder.info.features, own.mark):
        return _AS_FEATURES_SAY
    if own.refusal:
        raise InputError(f"tfds:{name}: {own.refusal}")
    if builder.version > own.version:
        raise InputError(
            f"tfds:{name}: found version {builder.version}; expected at most {own.version}, the latest one whose boxes "
            "are known; build that version or update tf-fast-rcnn"
        )
    return own


def find_layouts(builder: tfds.core.DatasetBuilder, own: OwnBuilder, name: str) -> list[Layout]:
    """Finds the images of an example and their objects.

    Next to each other, in the example or else in dicts of it (one per camera), there must be an image and one of:

    1. a sequence of objects with a box (`BBoxFeature`) and a class label, "objects" if there are several; or a sequence
       of boxes and one of class labels;
    2. a sequence of boxes, and a class label of the image;
    3. one box, and a class label of the image.

    Args:
        builder: a `tfds.core.DatasetBuilder`.
        own: the result of `own_builder`.
        name: as in the SPEC, for error messages.

    Returns:
        One `Layout`, or one for each camera; they have the same classes.

    Raises:
        InputError: if there are none, or several that fit, or boxes in a format other than relative `[ymin, xmin,
            ymax, xmax]`.
    """
    features = builder.info.features
    layouts = [layout for layout in [_layout(features, "", own, name)] if layout]
    if not layouts:
        nested = [_layout(features[key], key, own, name) for key in features if _is_dict(features[key])]
        layouts = [layout for layout in nested if layout]
    if not layouts:
        raise _no_objects(features, name)
    if any(layout.class_names != layouts[0].class_names for layout in layouts):
        raise InputError(
            f"tfds:{name}: found {', '.join(layout.scope for layout in layouts)} with different classes; expected the "
            "same classes for each image; rebuild the data set"
        )
    return layouts


def _layout(scope, scope_name, own, name):
    """The `Layout` of a dict of features; None if it has no image or no objects."""
    image = _image_of(scope, name)
    if not image:
        return None
    label_of_image = _choice(scope, _is_label, _LABELS)
    objects = _objects_of(scope, bool(label_of_image or own.one_class), name)
    columns = _columns(scope[objects]) if objects else _sequences(scope)
    label = _choice(columns, _is_label, _LABELS, first=bool(objects))
    box = _choice(columns, _is_box, _BOXES) if objects or label or label_of_image else ""
    several = bool(box)
    if not several:
        columns, label, box = scope, "", _choice(scope, _is_box, _BOXES)
        if not (box and label_of_image):
            return None
    _check_format(columns[box], name)
    class_label = columns[label] if label else scope[label_of_image] if label_of_image else None
    return Layout(
        scope=scope_name,
        image=image,
        objects=objects,
        box=box,
        several=several,
        label=label or label_of_image,
        label_of_image=bool(label_of_image and not label),
        label_text="" if label else _text_of_label(scope, label_of_image),
        flags=_flags(columns, own) if several else {},
        class_names=list(class_label.names) if class_label else [own.one_class],
    )


def _image_of(scope, name):
    """The name of the image; "" if there is none."""
    image = _choice(scope, _is_image, ("image",))
    if image and scope[image].np_dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"tfds:{name}: found images of {np.dtype(scope[image].np_dtype).name}; expected uint8 or uint16; rebuild "
            "the data set"
        )
    return image


def _objects_of(scope, without_label, name):
    """The name of the sequence of objects; "" if there is none. Those with a label come before those without one."""
    sequences = [key for key in scope if _box_in(scope[key])]
    labelled = [key for key in sequences if _choice(_columns(scope[key]), _is_label, _LABELS, first=True)]
    usable = labelled or (sequences if without_label else [])
    if len(usable) > 1 and "objects" not in usable:
        raise InputError(
            f"tfds:{name}: found several sequences of boxes, {', '.join(usable)}; expected one, or one named objects; "
            "rebuild the data set"
        )
    return "objects" if "objects" in usable else "".join(usable)


def _text_of_label(scope, label):
    """The text next to an image-level label that has only numbers; caltech_birds has its names there."""
    text = f"{label}_name"
    if not label or text not in scope or not _is_text(scope[text]):
        return ""
    numbers = [str(number) for number in range(scope[label].num_classes)]
    return text if list(scope[label].names) == numbers else ""


def _flags(inner, own):
    wanted = {"difficult": _DIFFICULT, "crowd": _CROWD, "area": ("area",)}
    found = {flag: key for flag, keys in wanted.items() for key in keys if key in inner and inner[key].shape == ()}
    return found | dict(own.flags)


def _check_format(box, name):
    # None: not stated, as in data sets that older TFDS wrote; the reader checks the coordinates.
    bbox_format = getattr(getattr(box, "bbox_format", None), "name", "REL_YXYX")
    if bbox_format != "REL_YXYX":
        raise InputError(
            f"tfds:{name}: found boxes in the format {bbox_format}; expected REL_YXYX, TFDS's default; rebuild it"
        )


def _no_objects(features, name):
    """The `InputError` for features without a `Layout`: the first reason that applies."""
    import tensorflow_datasets as tfds

    flat = list(_flat(features))
    boxes = sorted(path for path, feature in flat if _is_box(feature))
    found = f"tfds:{name}: found the features {', '.join(sorted(features))}"
    expected = "expected an image, and a sequence of boxes (BBoxFeature) with a class label (ClassLabel)"
    if any(isinstance(feature, tfds.features.Video) for _, feature in flat):
        return InputError(f"{found}, a video; {expected}; choose a data set of images")
    if not boxes:
        return InputError(f"{found}, without boxes; {expected}; choose an object detection data set")
    return InputError(
        f"{found}, without a class label next to the boxes {', '.join(boxes)}, or without an image; {expected}; choose "
        "an object detection data set"
    )


def _flat(features, prefix="") -> Iterator[tuple[str, Any]]:
    """All features in dicts and sequences, with their paths."""
    if _is_dict(features):
        for key in features:
            yield from _flat(features[key], f"{prefix}/{key}" if prefix else key)
    elif _is_sequence(features):
        yield from _flat(features.feature, prefix)
    else:
        yield prefix, features


def _choice(features, fits, names, first=False):
    """The first of `names` whose feature fits, else the only (or the first) other one that fits, else ""."""
    fitting = [key for key in features if fits(features[key])]
    for key in names:
        if key in fitting:
            return key
    return fitting[0] if len(fitting) == 1 or (fitting and first) else ""


def _box_in(feature):
    """The name of the box in a sequence of objects; "" for any other feature."""
    return _choice(_columns(feature), _is_box, _BOXES)


def _columns(feature):
    """The features of an object in a sequence of dicts, or in a dict of sequences; none for any other feature."""
    if _is_sequence(feature) and _is_dict(feature.feature):
        return {key: feature.feature[key] for key in feature.feature}
    if _is_dict(feature) and not _choice(feature, _is_image, ("image",), first=True):
        return _sequences(feature)
    return {}


def _sequences(features):
    """What the sequences in a dict are of."""
    return {key: features[key].feature for key in features if _is_sequence(features[key])}


def _has(features, path):
    for key in path:
        inner = features.feature if _is_sequence(features) else features
        if not _is_dict(inner) or key not in inner:
            return False
        features = inner[key]
    return True


def _is_dict(feature):
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.FeaturesDict)


def _is_sequence(feature):
    import tensorflow_datasets as tfds

    return type(feature) is tfds.features.Sequence  # not its subclasses Dataset and Video


def _is_image(feature):
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Image)


def _is_box(feature):
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.BBoxFeature)


def _is_label(feature):
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.ClassLabel)


def _is_text(feature):
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Text)
