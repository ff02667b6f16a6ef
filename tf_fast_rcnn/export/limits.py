"""Limits of a request, checked in the exported graph, because a small file can decode to a huge image."""

from __future__ import annotations

import dataclasses

from tf_fast_rcnn.errors import InputError


@dataclasses.dataclass(frozen=True)
class ServingLimits:
    """Limits of a request. A request beyond them fails with InvalidArgument before memory is allocated.

    Attributes:
        max_side: maximum height and width of an image, in pixels.
        max_pixels: maximum height times width of an image. A decoded image takes 3 bytes per pixel.
        max_images: maximum number of images in a request, or in a batch that the server forms from several requests.
        max_proposals: maximum number of proposals per image.

    Raises:
        InputError: for a limit below 1.

    Example:
        >>> ServingLimits(max_pixels=10_000_000).max_side
        16384
    """

    max_side: int = 16384
    max_pixels: int = 50_000_000
    max_images: int = 64
    max_proposals: int = 50_000

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise InputError(f"{name}: found {value}; expected a whole number from 1; increase it")
