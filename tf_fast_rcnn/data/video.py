"""Reads and writes video files, one frame at a time, with PyAV (FFmpeg's libraries); the extra `video` installs it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tf_fast_rcnn.errors import InputError, missing_package
from tf_fast_rcnn.files import StrPath, replacing_path

VIDEO_EXTENSIONS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")

# Ticks per second of the videos that are written; every common frame rate divides it, or nearly does.
_TICKS = 90_000


def is_video_file(path: StrPath) -> bool:
    """Whether a path ends in one of `VIDEO_EXTENSIONS`."""
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def read_video(path: StrPath, every: int = 1) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yields the frames of a video as displayed, one at a time, in the order in which they are shown.

    Args:
        path: a video file.
        every: only frames 0, `every`, 2 `every`, ...

    Yields:
        The frame's number from 0, counted over all frames of the file; its time in seconds after the first frame; and
        its pixels, uint8 `[H, W, 3]` RGB, turned and mirrored as the file says.

    Raises:
        InputError: if `every` is not at least 1, PyAV is not installed, or the file is missing, not a video, damaged,
            or without frames. Damage in the middle of a file is found only when its frames are reached.

    Example:
        >>> for number, seconds, frame in read_video("street.mp4", every=10):                    # doctest: +SKIP
        ...     print(number, f"{seconds:.2f} s", predictor.detect(frame).names)
    """
    if every < 1:
        raise InputError(f"every: found {every}; expected a whole number from 1")
    av = _pyav(path)
    count = 0
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(path, container)
            stream.thread_type = "AUTO"
            rate = stream.average_rate or 25
            first = None
            for frame in container.decode(stream):
                time = frame.time if frame.time is not None else float(count / rate)
                first = time if first is None else first
                if count % every == 0:
                    yield count, time - first, _upright(frame)
                count += 1
    except (av.FFmpegError, OSError) as error:
        place = f" after {count} frames" if count else ""
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: found {reason}{place}; expected a readable video; check or re-encode it") from None
    if not count:
        raise InputError(f"{path}: found no frames; expected a video with at least one; check or re-encode it")


def frame_rate(path: StrPath) -> Fraction:
    """Average number of frames per second of a video; 25 if the file does not say.

    Raises:
        InputError: as `read_video`.
    """
    av = _pyav(path)
    try:
        with av.open(str(path)) as container:
            return Fraction(_video_stream(path, container).average_rate or 25)
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: found {reason}; expected a readable video; check or re-encode it") from None


class VideoWriter:
    """Writes frames with their times to an MP4 file: H.264 if the library has an encoder, else MPEG-4.

    `writing_video` opens one.
    """

    def __init__(self, container: Any, rate: Fraction) -> None:
        self._container, self._rate = container, rate
        self._stream: Any = None
        self._last = -1

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Adds a frame, uint8 `[H, W, 3]` RGB, shown from `seconds` on; all frames have the size of the first."""
        import av

        # The encoders need even sizes: the last row or column is repeated.
        height, width = frame.shape[:2]
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            rate = self._rate.limit_denominator(1001)
            self._stream = self._container.add_stream(codec, rate=rate, width=even.shape[1], height=even.shape[0])
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, _TICKS)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        self._last = max(round(seconds * _TICKS), self._last + 1)
        picture.pts, picture.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Writes what the encoder still holds."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())


@contextlib.contextmanager
def writing_video(path: StrPath, rate: Fraction) -> Iterator[VideoWriter]:
    """A `VideoWriter` for an MP4 file that appears once it is complete.

    Args:
        path: the file, replaced if it exists.
        rate: frames per second, which players show; the frames' own times count.
    """
    av = _pyav(path)
    with replacing_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        writer = VideoWriter(container, rate)
        yield writer
        writer.finish()


def in_chunks(frames: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` elements each; the last may be shorter."""
    while chunk := list(itertools.islice(frames, size)):
        yield chunk


def _pyav(path):
    try:
        import av
    except ImportError as error:
        raise missing_package(str(path), error, "video") from None
    # Damage is reported by our own errors, not by FFmpeg's messages on standard error.
    av.logging.set_level(av.logging.PANIC)
    return av


def _video_stream(path, container):
    for stream in container.streams.video:
        if "attached_pic" not in str(getattr(stream, "disposition", "")):  # the cover of an audio file
            return stream
    kinds = ", ".join(dict.fromkeys(stream.type for stream in container.streams)) or "nothing"
    raise InputError(f"{path}: found no video stream ({kinds} only); expected a video; check the path")


def _upright(frame):
    """The frame's pixels, turned and mirrored by the display matrix.

    PyAV's `rotation` is not enough: it is -180 for a mirrored frame, which would be turned upside down."""
    pixels = frame.to_ndarray(format="rgb24")
    matrix = next((each for each in frame.side_data if each.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return pixels
    # A stored pixel (x, y) is displayed at (a x + c y, b x + d y), up to a shift.
    a, b, _, c, d = np.frombuffer(bytes(matrix), "<i4")[:5].tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
