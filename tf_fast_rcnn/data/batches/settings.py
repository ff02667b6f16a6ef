"""Settings of mini-batch sampling: which RoIs are sampled, and how images are resized and augmented.

Does not import TensorFlow, so code that only passes the settings along starts fast. Used by `sampling` and
`hierarchical`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tf_fast_rcnn.errors import InputError, check_choice, check_setting

DIFFICULT = ("train", "ignore", "drop")


@dataclasses.dataclass(frozen=True)
class SamplingRules:
    """How mini-batches are sampled; the defaults are the paper's. Lists, e.g. from JSON, are converted to tuples.

    RoIs (section 2.3 of the paper):

    Attributes:
        images_per_batch: N. N = R is RoI-centric sampling, see `roi_centric_batches`.
        rois_per_batch: R, a multiple of N.
        foreground_fraction: fraction of an image's RoIs that are sampled from the foreground. If this is not a whole
            number of RoIs, it is rounded up or down at random so that the mean is exact: with one RoI per image, a
            quarter are foreground. (The released system rounds to the nearest number, here 0.)
        foreground_iou: proposals with at least this IoU with an object are foreground.
        background_iou: (low, high): proposals whose largest IoU with an object is in [low, high) are background. The
            paper's 0.1 excludes the easiest background as a heuristic for hard example mining; 0 includes it.
        with_ground_truth: whether to add the objects' own boxes to the proposals, as in the released system.
        difficult: how to treat objects marked as difficult. "train": like any other object, as in the paper; "ignore":
            proposals that overlap one by `foreground_iou`, and no other object by more, are neither foreground nor
            background; "drop": as if not annotated (the paper's "07 \\ diff" in table 1, which gained 1.2 points).
        crowd_overlap: proposals with more than this share of their area in a crowd region are neither foreground nor
            background; crowd regions themselves are not objects. The released system uses 0.7; 1 keeps all proposals.

    Images:

    Attributes:
        shorter_side, longer_side: of the resized image in pixels (see `resize_to_network`). A list of shorter sides is
            multi-scale training: each image's is drawn from the list (section 5.2: 480, 576, 688, 864, 1200, with the
            longer side at most 2000).
        scale_jitter: (low, high): the shorter side is multiplied by a random factor from this range; the limit on the
            longer side still applies.
        horizontal_flip_prob, vertical_flip_prob: probability of a left-right flip and of a top-bottom flip.
        brightness: up to this share of 255 is added to or subtracted from all values.
        contrast, saturation: multiplied by a factor between 1 - value and 1 + value.
        hue: rotated by up to this share of the colour circle, at most 0.5.

    Mini-batches:

    Attributes:
        similar_shapes: whether to batch images of similar aspect ratio, all at the same scale, to reduce padding.
        pad_to: (height, width) to which every mini-batch is padded, for XLA and for training on several devices; larger
            images are resized to fit. None: the size of the largest image of the mini-batch.

    Raises:
        InputError: for values out of range or contradictory rules.

    Example:
        >>> SamplingRules(shorter_side=(480, 576, 688, 864, 1200), longer_side=2000).rois_per_image
        64
    """

    images_per_batch: int = 2
    rois_per_batch: int = 128
    foreground_fraction: float = 0.25
    foreground_iou: float = 0.5
    background_iou: tuple = (0.1, 0.5)
    with_ground_truth: bool = True
    difficult: str = "train"
    crowd_overlap: float = 0.7
    shorter_side: int | tuple = 600
    longer_side: int = 1000
    scale_jitter: tuple = (1.0, 1.0)
    horizontal_flip_prob: float = 0.5
    vertical_flip_prob: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    similar_shapes: bool = False
    pad_to: tuple | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), list):
                # A frozen dataclass can only set its own fields like this.
                object.__setattr__(self, field.name, tuple(value))
        self._check_numbers()
        self._check_overlaps()
        self._check_images()

    @property
    def rois_per_image(self) -> int:
        """R/N."""
        return self.rois_per_batch // self.images_per_batch

    @property
    def shorter_sides(self) -> tuple[int, ...]:
        """The shorter sides to draw from, a tuple even if there is only one."""
        return self.shorter_side if isinstance(self.shorter_side, tuple) else (self.shorter_side,)

    def _check_numbers(self):
        if self.images_per_batch < 1 or self.rois_per_batch < 1 or self.rois_per_batch % self.images_per_batch:
            raise InputError(
                f"rois_per_batch: found {self.rois_per_batch} for {self.images_per_batch} images; expected a multiple "
                f"of the number of images, for example {max(1, self.images_per_batch) * 64}"
            )
        for name in ("foreground_fraction", "crowd_overlap", "horizontal_flip_prob", "vertical_flip_prob"):
            value = getattr(self, name)
            check_setting(name, value, 0.0 <= value <= 1.0, "0 to 1.0")

    def _check_overlaps(self):
        low, high = _pair("background_iou", self.background_iou)
        if not 0 <= low < high <= self.foreground_iou:
            raise InputError(
                f"background_iou: found [{low}, {high}); expected 0 <= low < high <= foreground_iou "
                f"({self.foreground_iou}); change one of these"
            )
        check_choice("difficult", self.difficult, DIFFICULT)

    def _check_images(self):
        if min((*self.shorter_sides, self.longer_side)) < 1 or not self.shorter_sides:
            raise InputError(
                f"shorter_side, longer_side: found {self.shorter_side}, {self.longer_side}; expected pixels, for "
                "example 600 and 1000"
            )
        low, high = _pair("scale_jitter", self.scale_jitter)
        if not 0 < low <= high:
            raise InputError(f"scale_jitter: found ({low}, {high}); expected 0 < low <= high, for example (0.8, 1.25)")
        for name, most in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            value = getattr(self, name)
            check_setting(name, value, 0.0 <= value <= most, f"0 to {most}")
        if self.pad_to is not None and min(_pair("pad_to", self.pad_to)) < 1:
            raise InputError(f"pad_to: found {self.pad_to}; expected (height, width) in pixels, or None")


def detection_side(shorter_side: int | Sequence[int]) -> int:
    """The shorter side for detection after training with `shorter_side`: the median if it is a list."""
    if isinstance(shorter_side, Sequence):
        return sorted(shorter_side)[len(shorter_side) // 2]
    return shorter_side


def _pair(name, value):
    if not isinstance(value, tuple) or len(value) != 2:
        raise InputError(f"{name}: found {value}; expected two numbers")
    return value
