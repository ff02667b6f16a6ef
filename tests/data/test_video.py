"""Video files: frames, numbers and times against what the test itself encoded."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from tf_fast_rcnn.data.video import frame_rate, in_chunks, read_video, writing_video
from tf_fast_rcnn.errors import InputError


def level(number):
    """The grey value of a frame: far enough apart to survive lossy encoding."""
    return 20 + 20 * number


def write_clip(path, ticks, size=(48, 64), rate=10):
    """An H.264 clip with B-frames; `ticks` are the times of its frames in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, width=size[1], height=size[0], options={"bf": "3"})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), level(number), np.uint8), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def check(path, numbers, seconds):
    read = list(read_video(path))
    assert [number for number, _, _ in read] == numbers
    assert [time for _, time, _ in read] == pytest.approx(seconds, abs=2e-3)
    means = [frame.mean() for _, _, frame in read]
    assert means == pytest.approx([level(number) for number in numbers], abs=4)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_frames_come_in_the_order_shown_with_their_times(tmp_path, kind):
    write_clip(tmp_path / f"a.{kind}", [0, 100, 200, 300, 400, 500, 600])
    check(tmp_path / f"a.{kind}", list(range(7)), [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_variable_frame_rate_keeps_times(tmp_path):
    write_clip(tmp_path / "a.mkv", [0, 40, 400, 440, 1000])
    check(tmp_path / "a.mkv", list(range(5)), [0, 0.04, 0.4, 0.44, 1.0])


def test_times_count_from_the_first_frame(tmp_path):
    write_clip(tmp_path / "a.mkv", [5000, 5100, 5200])
    check(tmp_path / "a.mkv", [0, 1, 2], [0, 0.1, 0.2])


def test_every(tmp_path):
    write_clip(tmp_path / "a.mp4", range(0, 700, 100))
    assert [(n, round(t, 2)) for n, t, _ in read_video(tmp_path / "a.mp4", every=3)] == [(0, 0), (3, 0.3), (6, 0.6)]
    with pytest.raises(InputError, match="every: found 0"):
        next(read_video(tmp_path / "a.mp4", every=0))


def test_what_is_written_is_read_back_and_odd_sizes_get_one_more_row_and_column(tmp_path):
    with writing_video(tmp_path / "out" / "b.mp4", Fraction(10)) as video:
        for number, seconds in enumerate([0, 0.1, 0.5]):
            video.write(np.full((47, 63, 3), level(number), np.uint8), seconds)
    check(tmp_path / "out" / "b.mp4", [0, 1, 2], [0, 0.1, 0.5])
    assert next(read_video(tmp_path / "out" / "b.mp4"))[2].shape == (48, 64, 3)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.mp4"]


def test_nothing_half_written_stays_after_an_error(tmp_path):
    def fail():
        with writing_video(tmp_path / "b.mp4", Fraction(10)) as video:
            video.write(np.zeros((48, 64, 3), np.uint8), 0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_files_without_video_are_one_line(tmp_path):
    write_sound(tmp_path / "a.wav")
    (tmp_path / "b.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "c.mp4").write_bytes(b"")
    write_clip(tmp_path / "whole.mp4", range(0, 700, 100))
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "d.mp4").write_bytes(data[: len(data) // 2])
    for name, found in {"a.wav": "no video stream", "b.mp4": "", "c.mp4": "", "d.mp4": "", "e.mp4": "No such"}.items():
        for read in (frame_rate, lambda path: next(read_video(path))):
            with pytest.raises(InputError, match=f"{name}: found {found}"):
                read(tmp_path / name)


def test_chunks():
    assert list(in_chunks(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]


# Matrices of a track's header (ISO 14496-12), as phones write them: how the stored frame is turned to be displayed.
MATRICES = {
    "90 clockwise": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "90 counter-clockwise": (0, -1, 1, 0),
    "left and right mirrored": (-1, 0, 0, 1),
    "top and bottom mirrored": (1, 0, 0, -1),
    "rows and columns exchanged": (0, 1, 1, 0),
}
# Where the stored frame's bright top left corner is displayed: top or bottom, left or right.
CORNERS = {
    "90 clockwise": (0, 1),
    "180": (1, 1),
    "90 counter-clockwise": (1, 0),
    "left and right mirrored": (0, 1),
    "top and bottom mirrored": (1, 0),
    "rows and columns exchanged": (0, 0),
}


@pytest.mark.parametrize("turn", MATRICES)
def test_turned_and_mirrored_videos_are_upright(tmp_path, turn):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 255
    with writing_video(tmp_path / "a.mp4", Fraction(10)) as video:
        video.write(frame, 0)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = MATRICES[turn]
    data[start : start + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    shown = next(read_video(tmp_path / "a.mp4"))[2]
    assert shown.shape == ((48, 64, 3) if MATRICES[turn][0] else (64, 48, 3))
    height, width = shown.shape[:2]
    quarters = shown.reshape(2, height // 2, 2, width // 2, 3).mean((1, 3, 4))
    expected = np.zeros((2, 2))
    expected[CORNERS[turn]] = 255
    np.testing.assert_allclose(quarters, expected, atol=8)
