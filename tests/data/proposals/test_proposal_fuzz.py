"""Damaged and malicious proposal files: a valid result or a one-line error, in bounded time and memory."""

import io
import pickle
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import proposal_writers as writers
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from proposal_writers import make_record

from tf_fast_rcnn.data.proposals import file_proposals
from tf_fast_rcnn.errors import InputError

IMAGES = {"7": np.uint16([[1, 2, 8, 24], [10, 20, 30, 35]]), "8": np.uint16([[12, 1, 33, 20]])}
ONE = {"7": IMAGES["7"]}
RECORDS = [make_record(name, objects=[[0.1, 0.1, 0.5, 0.4]]) for name in IMAGES]
FILES = {
    "one.mat": writers.mat_one_image(ONE),
    "set.mat": writers.mat_whole_set(IMAGES, compress=False),
    "set-v7.mat": writers.mat_whole_set(IMAGES, compress=True),
    "proposals.pkl": writers.detectron(IMAGES),
    "proposals-5.pkl": writers.detectron(IMAGES, protocol=5),
    "results.json": writers.coco_results(IMAGES),
    "proposals.npz": writers.npz(IMAGES),
    "proposals.npy": writers.npy(ONE),
    "proposals.csv": writers.csv_lines(IMAGES, ["image", "ymin", "xmin", "ymax", "xmax"]),
}


RUNS = st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, bytes(8), b"\x7f\xff\xff\xff", b"9" * 30])


@st.composite
def mutated(draw, content):
    """Bytes with a few runs replaced, repeated, removed or inserted, or truncated."""
    for _ in range(draw(st.integers(1, 4))):
        start, length, put = draw(st.integers(0, max(0, len(content) - 1))), draw(st.integers(1, 8)), draw(RUNS)
        head, tail = content[:start], content[start:]
        rests = [put + tail[len(put) :], put + tail, tail[length:], tail + tail, b""]
        content = head + draw(st.sampled_from(rests))
    return content


@pytest.mark.parametrize("name", FILES)
def test_a_mutated_file_is_read_or_refused_in_one_line(name, tmp_path):
    refused = []

    @settings(max_examples=100, deadline=None)
    @given(mutated(FILES[name]))
    def check(content):
        (tmp_path / name).write_bytes(content)
        records = RECORDS[: 1 if name in ("one.mat", "proposals.npy") else 2]
        try:
            proposals = file_proposals(tmp_path / name, records)
            found = [proposals.of(record) for record in records]
        except InputError as error:
            refused.append(str(error))
            return
        for boxes in found:
            assert boxes.dtype == np.float32
            assert boxes.shape == (len(boxes), 4)
            assert (boxes >= 0).all()
            assert (boxes <= 1).all()
            assert (boxes[:, :2] < boxes[:, 2:]).all()

    check()
    assert refused
    assert all(len(message.splitlines()) == 1 for message in refused)


def refused_within(path, content, megabytes, match, records=RECORDS):
    """The file must be rejected without using much memory."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=match):
            file_proposals(path, records)
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()


def test_decompression_bombs(tmp_path):
    zeros = np.zeros((30_000_000, 4), np.uint8)
    refused_within(tmp_path / "a.npz", writers.npz({"7": zeros, "8": zeros}), 20, "expand to .*; do not trust")
    compressed = zlib.compress(bytes(120_000_000), 9)
    element = struct.pack("<II", 15, len(compressed)) + compressed
    bomb = writers.mat_one_image(ONE)[:128] + element
    refused_within(tmp_path / "7.mat", bomb, 30, "bytes that expand to", RECORDS[:1])


def test_sizes_that_the_bytes_do_not_bear_out(tmp_path):
    """Each file states a size of gigabytes."""
    content = writers.npy({"7": np.zeros((9999, 4), np.float32)})
    refused_within(tmp_path / "a.npy", content.replace(b"(9999, 4)", b"(9**9, 4)"), 20, "cannot read", RECORDS[:1])
    stated = writers.npy({"7": np.zeros((0, 4), np.float32)}).replace(b"(0, 4), }        ", b"(900000000, 4), }")
    assert len(stated) == len(writers.npy({"7": np.zeros((0, 4), np.float32)}))
    refused_within(tmp_path / "a.npy", stated, 20, r"float32 \[900000000, 4\] in 0 bytes", RECORDS[:1])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("7.npy", stated)
    refused_within(tmp_path / "a.npz", file.getvalue(), 20, r"\[900000000, 4\]", RECORDS[:1])
    cells = io.BytesIO()
    scipy.io.savemat(cells, {"boxes": np.array([[np.zeros((1, 4)), "a"]], object)})
    shape = struct.pack("<IIii", 5, 8, 1, 2)
    assert shape in cells.getvalue()
    many = cells.getvalue().replace(shape, struct.pack("<IIii", 5, 8, 2**30, 2**30))
    refused_within(tmp_path / "7.mat", many, 20, "2 cells where", RECORDS[:1])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "found memo index 2147483647"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".", "cannot read"),
        (b"\x80\x04N\x8f\x94." * 2, "NoneType|dict|set"),
        # A list of a thousand references to a list of a thousand references to ...
        (pickle.dumps({"boxes": [[[[[0] * 1000] * 1000] * 1000] * 1000], "ids": [7]}), "repeat without end"),
        (pickle.dumps({"boxes": [["x" * 10**6] * 10**5], "ids": [7]}), "repeat without end"),
        (pickle.dumps({"boxes": [[np.zeros(10**6)] * 10**5], "ids": [7]}), "repeat without end"),
    ],
    ids=["memo", "length", "set", "lists", "text", "arrays"],
)
def test_pickles_that_fill_the_memory(tmp_path, content, match):
    refused_within(tmp_path / "a.pkl", content, 120, match)


def test_a_pickle_that_holds_itself(tmp_path):
    lists = []
    lists.append(lists)
    refused_within(tmp_path / "a.pkl", pickle.dumps({"boxes": lists, "ids": [7]}), 20, "repeat without end")
