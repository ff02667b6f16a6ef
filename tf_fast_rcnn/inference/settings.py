"""Settings of detection before and after the network."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tf_fast_rcnn.data.tiles import Tiles
from tf_fast_rcnn.errors import check_choice, check_setting
from tf_fast_rcnn.files import renamed

# Average precision uses the whole curve, including detections with scores too low to be shown.
EVALUATION_SCORE_THRESHOLD = 0.01

# Kinds of non-maximum suppression.
NMS_KINDS = ("per-class", "across-classes", "soft")

# The IoU from which boxes vote, in the paper of box voting.
BOX_VOTING_IOU = 0.5

# Names in the metadata of exported models that differ from those of the fields.
_STORED_NAMES = {"nms_iou_threshold": "nms_iou", "box_refinement_steps": "box_passes", "class_ids": "classes"}


@dataclasses.dataclass(frozen=True)
class DetectionSettings:
    """Settings of detection before and after the network. The defaults are those of the released system.

    Attributes:
        shorter_side: shorter side of the resized image in pixels, as in training; or several, for an image pyramid in
            which each RoI is pooled from the scale at which its area is closest to 224 x 224 pixels.
        longer_side: limit for the longer side in pixels, at every scale.
        score_threshold: detections with a score at or below this are dropped.
        nms_iou_threshold: of two boxes of a class that overlap by more than this, the one with the lower score is
            dropped; of equal scores, the box of the later proposal. 1: none is dropped.
        screening_rank: None; or the number of singular values of the first fully connected layer (fc6) in a first pass,
            which drops RoIs that are clearly background: those whose probability of being an object is below half
            of `score_threshold` in it. The rest is classified as usual. Not used with `box_voting` or several
            `box_refinement_steps`, nor if the model has no fully connected layer that is much larger.
        nms: "per-class"; "across-classes": a box is also dropped for its overlap with a higher-scoring box of another
            class (of equal scores, that of the higher class id is dropped); or "soft": no box is dropped, but each
            detection multiplies the scores of the other boxes of its class by exp(-IoU^2 / `soft_nms_sigma`)
            (Gaussian soft-NMS, Bodla et al., 2017). The lowered scores are the detections' scores, and those at or
            below `score_threshold` are dropped; `nms_iou_threshold` is not used.
        soft_nms_sigma: the sigma of soft-NMS, greater than 0; the paper's value is 0.5.
        box_voting: None; or an IoU greater than 0: each detection's box becomes the mean, weighted by score, of the
            boxes of its class before suppression that have at least this IoU with it (Gidaris and Komodakis, 2015).
            True stands for the paper's 0.5 and False for None. Which detections there are, and their scores, stay the
            same.
        max_detections: number of detections kept per image, over all classes; those with the highest scores.
        box_refinement_steps: how many times each proposal is classified and its box regressed; 1 as in the paper. Each
            further step starts from the previous step's box of the highest-scoring class. The result is that of the
            last step.
        class_ids: ids from 1 to K; detections of other classes are dropped. None: all classes.
        scores: "softmax", or "sigmoid" for classes that were trained independently of each other, like linear SVMs; the
            background score is then ignored.
        tile: side of the square tiles in which large images are seen, in pixels of the image (see `Tiles`); tiles are
            resized by `shorter_side` / `tile`. None: the image is seen as a whole, as in the paper.
        tile_overlap: width by which neighbouring tiles overlap at least, as a share of `tile`: objects up to this size
            are found in tiles.
        whole_image: with tiles: whether the whole image is seen too, for larger objects.
        dtype: "float32": the model's own types; "bfloat16": weights and activations are bfloat16, while RoIs, scores
            and boxes stay float32.

    Raises:
        InputError: for a value out of range.

    Example:
        >>> DetectionSettings(shorter_side=(480, 576, 688), nms="soft").longer_side
        1000
    """

    shorter_side: int | tuple = 600
    longer_side: int = 1000
    score_threshold: float = 0.05
    nms_iou_threshold: float = 0.3
    max_detections: int = 100
    box_refinement_steps: int = 1
    class_ids: tuple | None = None
    scores: str = "softmax"
    dtype: str = "float32"
    tile: int | None = None
    tile_overlap: float = 0.2
    whole_image: bool = True
    nms: str = "per-class"
    soft_nms_sigma: float = 0.5
    box_voting: float | bool | None = None
    screening_rank: int | None = None

    def __post_init__(self) -> None:
        # object.__setattr__ is how a frozen dataclass normalises its own fields.
        if isinstance(self.shorter_side, list):
            object.__setattr__(self, "shorter_side", tuple(self.shorter_side))
        if self.class_ids is not None:
            object.__setattr__(self, "class_ids", tuple(sorted(set(self.class_ids))))
        if isinstance(self.box_voting, bool):
            object.__setattr__(self, "box_voting", BOX_VOTING_IOU if self.box_voting else None)
        sides = (*self.shorter_sides, self.longer_side)
        check_setting(
            "shorter_side, longer_side", sides, self.shorter_sides and min(sides) >= 1, "numbers of pixels from 1"
        )
        check_setting("score_threshold", self.score_threshold, 0 <= self.score_threshold <= 1, "a number from 0 to 1")
        check_setting(
            "nms_iou_threshold", self.nms_iou_threshold, 0 <= self.nms_iou_threshold <= 1, "a number from 0 to 1"
        )
        check_setting("max_detections", self.max_detections, self.max_detections >= 1, "a whole number from 1")
        check_setting(
            "box_refinement_steps", self.box_refinement_steps, self.box_refinement_steps >= 1, "a whole number from 1"
        )
        check_setting(
            "class_ids",
            self.class_ids,
            self.class_ids is None or min(self.class_ids, default=0) >= 1,
            "class ids from 1",
        )
        check_choice("scores", self.scores, ("softmax", "sigmoid"))
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        check_setting(
            "shorter_side",
            self.shorter_side,
            self.tiles is None or len(self.shorter_sides) == 1,
            "one number of pixels with tiles, which are seen at a single scale",
        )
        rank = self.screening_rank
        check_setting("screening_rank", rank, rank is None or rank >= 1, "a whole number from 1")
        check_choice("nms", self.nms, NMS_KINDS)
        sigma, voting = self.soft_nms_sigma, self.box_voting
        check_setting("soft_nms_sigma", sigma, 0 < sigma < math.inf, "a number greater than 0")
        check_setting("box_voting", voting, voting is None or 0 < voting <= 1, "an IoU greater than 0, up to 1")

    @property
    def shorter_sides(self) -> tuple[int, ...]:
        """The shorter side at each scale, in pixels."""
        return self.shorter_side if isinstance(self.shorter_side, tuple) else (self.shorter_side,)

    @property
    def tiles(self) -> Tiles | None:
        """The `Tiles` in which images are seen, or None."""
        return None if self.tile is None else Tiles(self.tile, self.tile_overlap, self.whole_image)

    def to_json(self) -> dict[str, Any]:
        """The settings in JSON types, under the names that exported models have used since 0.1."""
        return renamed(dataclasses.asdict(self), _STORED_NAMES)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DetectionSettings":
        """The settings from the return value of `to_json`."""
        return cls(**renamed(values, {stored: name for name, stored in _STORED_NAMES.items()}))
