"""The settings of the sampler: which RoIs make a mini-batch, and how images are resized and varied.

Without TensorFlow, so that whatever only passes the settings on starts quickly. `sampling` and `hierarchical` obey
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tf_fast_rcnn.errors import InputError, check_choice, check_setting

DIFFICULT = ("train", "ignore", "drop")


@dataclasses.dataclass(frozen=True)
class SamplingRules:
    """What makes a mini-batch; the defaults are the paper's. Lists, as JSON has them, become tuples.

    RoIs (section 2.3 of the paper):

    Attributes:
        images_per_batch: N. N = R is RoI-centric sampling, see `roi_centric_batches`.
        rois_per_batch: R, a multiple of N.
        foreground_fraction: share of an image's RoIs that are drawn from the foreground. Where the share of R/N is no
            whole number, it is rounded up or down at random, so that it is right on average: of one RoI an image, a
            quarter are foreground. (The released system rounds: it would never draw any.)
        foreground_iou: proposals that overlap an object by at least this are foreground.
        background_iou: the largest overlap of background proposals lies in [low, high). The paper's 0.1 leaves out
            the easiest background as a heuristic for hard example mining; 0 takes it in.
        with_ground_truth: whether the objects' own boxes join the proposals, as in the released system.
        difficult: what objects marked as difficult are. "train": objects like any other, as in the paper; "ignore":
            proposals that overlap one by `foreground_iou`, and no other object by more, are neither foreground nor
            background; "drop": as if not annotated (the paper's "07 \\ diff" in table 1, which gained 1.2 points).
        crowd_overlap: crowd regions are no objects, and proposals of which more than this share lies in one are
            neither foreground nor background. 0.7 is the released system's; 1 keeps all proposals.

    Images:

    Attributes:
        shorter_side, longer_side: of the resized image in pixels (see `resize_to_network`). A list of shorter sides is
            multi-scale training: each image's is drawn from the list (section 5.2: 480, 576, 688, 864, 1200, the
            longer side at most 2000).
        scale_jitter: (low, high): the shorter side is multiplied by a number drawn from this range; the longer side's
            limit stays.
        horizontal_flip_prob, vertical_flip_prob: probability of exchanging left and right, top and bottom.
        brightness: at most this share of 255 is added to, or taken from, all values.
        contrast, saturation: these are multiplied by a factor between 1 - value and 1 + value.
        hue: hues are turned by at most this share of the colour circle, up to 0.5.

    Mini-batches:

    Attributes:
        similar_shapes: whether images of similar aspect ratio share a mini-batch, and then one scale, for less
            padding.
        pad_to: (height, width): every mini-batch is padded to this size, for XLA and for training on several devices;
            an image that is larger is resized to fit. None: to the largest of the mini-batch.

    Raises:
        InputError: for values out of range or rules that contradict each other.

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
                # object.__setattr__ is how a frozen dataclass normalises its own fields.
                object.__setattr__(self, field.name, tuple(value))
        self._check_numbers()
        self._check_overlaps()
        self._check_images()

    @property
    def rois_per_image(self) -> int:
        return self.rois_per_batch // self.images_per_batch

    @property
    def shorter_sides(self) -> tuple[int, ...]:
        """The shorter sides that are drawn from, a tuple."""
        return self.shorter_side if isinstance(self.shorter_side, tuple) else (self.shorter_side,)

    def _check_numbers(self):
        if self.images_per_batch < 1 or self.rois_per_batch < 1 or self.rois_per_batch % self.images_per_batch:
            raise InputError(
                f"rois_per_batch: found {self.rois_per_batch} for {self.images_per_batch} images; expected a multiple "
                f"of the number of images; give {max(1, self.images_per_batch) * 64}, for example"
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
                f"shorter_side, longer_side: found {self.shorter_side}, {self.longer_side}; expected pixels; give 600 "
                "and 1000, for example"
            )
        low, high = _pair("scale_jitter", self.scale_jitter)
        if not 0 < low <= high:
            raise InputError(f"scale_jitter: found ({low}, {high}); expected 0 < low <= high; give (0.8, 1.25), say")
        for name, most in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            value = getattr(self, name)
            check_setting(name, value, 0.0 <= value <= most, f"0 to {most}")
        if self.pad_to is not None and min(_pair("pad_to", self.pad_to)) < 1:
            raise InputError(f"pad_to: found {self.pad_to}; expected (height, width) in pixels; give None or both")


def detection_side(shorter_side: int | Sequence[int]) -> int:
    """The shorter side for detection after training with `shorter_side`: of a list, the middle one."""
    if isinstance(shorter_side, Sequence):
        return sorted(shorter_side)[len(shorter_side) // 2]
    return shorter_side


def _pair(name, value):
    if not isinstance(value, tuple) or len(value) != 2:
        raise InputError(f"{name}: found {value}; expected two numbers; give both")
    return value
