"""What a request may ask of a server at most. The exported graph holds to it: a small file can hold a huge image."""

from __future__ import annotations

import dataclasses

from tf_fast_rcnn.errors import InputError


@dataclasses.dataclass(frozen=True)
class ServingLimits:
    """Limits of a request; beyond them it fails with InvalidArgument before memory is taken.

    Attributes:
        max_side: of an image, in pixels.
        max_pixels: of an image, height times width. Decoded, it takes 3 bytes a pixel.
        max_images: in a request, or in a batch that the server makes of several.
        max_proposals: of an image.

    Raises:
        InputError: for a limit below 1.

    Example:
        >>> ServingLimits(max_pixels=10_000_000).max_side
        16384
    """

    max_side: int = 16384
    max_pixels: int = 50_000_000
    max_images: int = 64
    max_proposals: int = 10_000

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise InputError(f"{name}: found {value}; expected a whole number from 1; raise it")
