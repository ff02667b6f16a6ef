"""Draws boxes with class and score on images, and arranges images in contact sheets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tf_fast_rcnn import boxes

if TYPE_CHECKING:
    pass

# M. A. Petroff, "Accessible Color Sequences for Data Visualization" (arXiv:2107.02270): ten colours that remain
# distinguishable with colour-vision deficiency, the most distinct first.
PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)

_DASH = 4  # length of a dash, in line widths


def class_color(label: int) -> str:
    """The colour "#rrggbb" of class `label`, 1..K; the palette's ten colours repeat."""
    return PALETTE[(label - 1) % len(PALETTE)]


def class_colors(labels: np.ndarray) -> list[str]:
    """The colour of each class of an array of labels."""
    return [class_color(label) for label in labels.tolist()]


def draw_boxes(
    image: np.ndarray | Image.Image,
    relative_boxes: np.ndarray,
    captions: Iterable[str],
    colors: Iterable[str] | None = None,
    fitting: bool = False,
) -> Image.Image:
    """Draws boxes with captions; later boxes are on top.

    Args:
        image: uint8 `[H, W, 3]` RGB, or a PIL image; it is not modified.
        relative_boxes: float `[N, 4]`, relative to the image.
        captions: N strings; empty ones are not drawn.
        colors: N colours "#rrggbb" for solid lines; None: dashed white lines.
        fitting: omit captions wider than their box, which could hide neighbouring boxes.

    Returns:
        A new PIL image, RGB, of the same size.
    """
    picture = _to_picture(image)
    draw = ImageDraw.Draw(picture)
    corners = [_pixel_corners(box, picture) for box in relative_boxes]
    plates = ["#ffffff"] * len(corners) if colors is None else colors
    for corner, color in zip(corners, plates, strict=True):
        if colors is None:
            _draw_dashed_outline(draw, corner, _line_width(picture))
        else:
            _draw_outline(draw, corner, color, _line_width(picture))
    for corner, color, caption in zip(corners, plates, captions, strict=True):  # after all outlines
        if caption:
            _draw_label(draw, corner, caption, color, picture, fitting)
    return picture


def contact_sheet(images: Sequence[np.ndarray | Image.Image], columns: int = 4, gap: int = 8) -> Image.Image:
    """Arranges images row by row in a grid on white; each row and column fits its largest image.

    Args:
        images: sequence of PIL images or uint8 `[H, W, 3]` arrays; at least one.
        columns: images per row.
        gap: pixels around each image.

    Returns:
        A PIL image, RGB.

    Raises:
        ValueError: if there are no images.
    """
    pictures = [_to_picture(image) for image in images]
    if not pictures:
        raise ValueError("contact_sheet: found no images; expected at least one")
    columns = min(columns, len(pictures))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.height for picture in row) + gap for row in rows]
    widths = [max(picture.width for picture in pictures[column::columns]) + gap for column in range(columns)]
    sheet = Image.new("RGB", (sum(widths) + gap, sum(heights) + gap), "white")
    for position, picture in enumerate(pictures):
        row, column = divmod(position, columns)
        left = sum(widths[:column]) + (widths[column] + gap - picture.width) // 2
        top = sum(heights[:row]) + (heights[row] + gap - picture.height) // 2
        sheet.paste(picture, (left, top))
    return sheet


def _to_picture(image):
    """A copy as a PIL image in RGB."""
    return image.convert("RGB").copy() if isinstance(image, Image.Image) else Image.fromarray(image).convert("RGB")


def _line_width(picture):
    return max(2, round(min(picture.size) / 250))


def _pixel_corners(relative_box, picture):
    """First and last pixel of the box, `(left, top, right, bottom)`, clipped to the image; at least one pixel."""
    edges = boxes.scale(boxes.clip(np.asarray(relative_box)), picture.height, picture.width)
    top, left, bottom, right = np.rint(edges).astype(int).tolist()
    left, top = min(left, picture.width - 1), min(top, picture.height - 1)
    return left, top, max(right - 1, left), max(bottom - 1, top)


def _draw_outline(draw, corners, color, width):
    left, top, right, bottom = corners
    # A black border keeps the line visible on a background of the same colour.
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=width + 2)
    draw.rectangle(corners, outline=color, width=width)


def _draw_dashed_outline(draw, corners, width):
    """White with black gaps, which is visible on any background."""
    left, top, right, bottom = corners
    draw.rectangle(corners, outline="black", width=width)
    dash = _DASH * width
    for start in range(left, right + 1, 2 * dash):
        end = min(start + dash - 1, right)
        draw.rectangle((start, top, end, min(top + width - 1, bottom)), fill="white")
        draw.rectangle((start, max(bottom - width + 1, top), end, bottom), fill="white")
    for start in range(top, bottom + 1, 2 * dash):
        end = min(start + dash - 1, bottom)
        draw.rectangle((left, start, min(left + width - 1, right), end), fill="white")
        draw.rectangle((max(right - width + 1, left), start, right, end), fill="white")


def _draw_label(draw, corners, text, color, picture, fitting):
    """Draws text on a plate of `color`, above the box if there is room, else inside at its top; never cut off."""
    font = ImageFont.load_default(size=max(11, round(min(picture.size) / 32)))
    padding = 2
    text_left, text_top, text_right, text_bottom = draw.textbbox((0, 0), text, font=font)
    plate_width = text_right - text_left + 2 * padding
    plate_height = text_bottom - text_top + 2 * padding
    left, top, right, _ = corners
    if fitting and plate_width > right - left + 1:
        return
    above = top - plate_height
    x = max(0, min(left, picture.width - plate_width))
    y = max(0, min(above if above >= 0 else top, picture.height - plate_height))
    draw.rectangle((x, y, x + plate_width - 1, y + plate_height - 1), fill=color)
    draw.text((x + padding - text_left, y + padding - text_top), text, fill=_ink(color), font=font)


def _ink(plate_color):
    """Black or white, whichever has more contrast by WCAG's formula: the two are equal at a luminance of 0.179."""
    channels = np.array([int(plate_color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"
