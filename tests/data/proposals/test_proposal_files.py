"""Proposal files as written by other libraries."""

import dataclasses
import json
import os
import pickle
import sys

import numpy as np
import proposal_writers as writers
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from proposal_writers import make_record

from tf_fast_rcnn.data.box_orders import ORDERS, from_order
from tf_fast_rcnn.data.proposals import FileProposals, file_proposals, settings_from_json
from tf_fast_rcnn.data.proposals.matlab import read_variables
from tf_fast_rcnn.data.proposals.pickles import load_arrays
from tf_fast_rcnn.errors import InputError

# The pixels of rows 2 to 4 and columns 3 to 8 of an image of 40 rows and 60 columns, in every coordinate order.
BOX = np.float32([2 / 40, 3 / 60, 5 / 40, 9 / 60])
ROWS = {
    "yxyx-relative": BOX,
    "xyxy-relative": BOX[[1, 0, 3, 2]],
    "xywh-relative": [3 / 60, 2 / 40, 6 / 60, 3 / 40],
    "xyxy-0based": [3, 2, 8, 4],
    "yxyx-0based": [2, 3, 4, 8],
    "xyxy-1based": [4, 3, 9, 5],
    "yxyx-1based": [3, 4, 5, 9],
    "xyxy-edges": [3, 2, 9, 5],
    "yxyx-edges": [2, 3, 5, 9],
    "xywh-edges": [3, 2, 6, 3],
    "yxhw-edges": [2, 3, 3, 6],
}
# Two images with different numbers of proposals, in pixels from 0 or 1, to be read in the format's default order.
IMAGES = {"7": np.uint16([[3, 2, 8, 4], [10, 8, 18, 20], [5, 5, 9, 9]]), "000008": np.uint16([[12, 1, 33, 20]])}


@pytest.mark.parametrize("order", ORDERS)
def test_every_coordinate_order(order):
    assert set(ROWS) == set(ORDERS)
    np.testing.assert_allclose(from_order([ROWS[order]], 40, 60, order), [BOX], rtol=1e-6)


def read(path, content, images=IMAGES, **options):
    path.write_bytes(content)
    records = [make_record(name) for name in images]
    proposals = file_proposals(path, records, **options)
    return proposals, [proposals.of(record) for record in records]


def expect(found, order, images=IMAGES):
    for boxes, rows in zip(found, images.values(), strict=True):
        assert boxes.dtype == np.float32
        np.testing.assert_allclose(boxes, from_order(rows, 40, 60, order), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "write", "order"),
    [
        ("set.mat", writers.mat_whole_set, "yxyx-1based"),
        ("proposals.pkl", writers.detectron, "xyxy-0based"),
        ("results.json", writers.coco_results, "xywh-edges"),
    ],
)
def test_pixel_formats(tmp_path, name, write, order):
    proposals, found = read(tmp_path / name, write(IMAGES))
    assert proposals.order == order
    expect(found, order)
    proposals, found = read(tmp_path / name, write(IMAGES), order="xyxy-edges")
    expect(found, "xyxy-edges")


def test_numpy_and_csv_are_relative(tmp_path):
    images = {name: rows / np.float32(64) for name, rows in IMAGES.items()}
    for name, write in (("a.npz", writers.npz), ("a.csv", writers.csv_lines)):
        expect(read(tmp_path / name, write(images))[1], "yxyx-relative", images)
    one = {"7": images["7"]}
    expect(read(tmp_path / "a.npy", writers.npy(one), one)[1], "yxyx-relative", one)


def test_scores_sort_and_numbers_are_capped(tmp_path):
    rows = np.float32([[0.1, 0.1, 0.2, 0.2, 0.3], [0.2, 0.2, 0.4, 0.4, 0.9], [0.3, 0.3, 0.5, 0.5, 0.9]])
    for name, write in (("a.npz", writers.npz), ("a.csv", writers.csv_lines)):
        (found,) = read(tmp_path / name, write({"7": rows}), ["7"])[1]
        np.testing.assert_array_equal(found, rows[[1, 2, 0], :4])
        (found,) = read(tmp_path / name, write({"7": rows}), ["7"], max_proposals=1)[1]
        np.testing.assert_array_equal(found, rows[[1], :4])


@pytest.mark.parametrize("compress", [False, True])
def test_mat_files_of_one_image_by_their_names(tmp_path, compress):
    for folder, suffix, order, kept in (("ijcv", "", "xyxy-1based", 2000), ("demo", "_boxes", "xyxy-0based", 2500)):
        (tmp_path / folder).mkdir()
        many = np.sort(np.random.default_rng(0).permutation(2500 * 4).reshape(2500, 4), axis=1) / 10000
        images = {**IMAGES, "many": 1 + 40 * many}
        for name, rows in images.items():
            (tmp_path / folder / f"{name}{suffix}.mat").write_bytes(writers.mat_one_image({name: rows}, compress))
        proposals = file_proposals(tmp_path / folder)
        assert proposals.order == order
        expect([proposals.of(make_record(name)) for name in IMAGES], order)
        assert len(proposals.of(make_record("many", 60, 60))) == kept
        alone = file_proposals(tmp_path / folder / f"7{suffix}.mat", [make_record("7")])
        expect([alone.of(make_record("7"))], order, {"7": IMAGES["7"]})
    (tmp_path / "ijcv" / "9_boxes.mat").write_bytes(writers.mat_one_image({"9": IMAGES["7"]}))
    with pytest.raises(InputError, match=r"found files ID_boxes.mat and ID.mat, whose coordinates differ"):
        file_proposals(tmp_path / "ijcv")


DTYPES = st.sampled_from(["u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays(dtype, st.tuples(st.integers(0, 5), st.integers(1, 5)), elements=st.integers(0, 99))
)


@settings(max_examples=40, deadline=None)
@given(array=ARRAYS, text=st.text("abcXYZ_019é", min_size=1), compress=st.booleans())
def test_matlab_variables_are_those_that_scipy_writes(tmp_path_factory, array, text, compress):
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = array, text
    scipy.io.savemat(path, {"other": array, "numbers": array, "cells": cells, "text": text}, do_compression=compress)
    found = read_variables(path, ("numbers", "cells", "text"))
    assert set(found) == {"numbers", "cells", "text"}
    assert found["text"] == found["cells"][1] == text
    for value in (found["numbers"], found["cells"][0]):
        assert value.dtype == array.dtype
        np.testing.assert_array_equal(value, array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_of_every_protocol(tmp_path, protocol):
    value = {
        "boxes": [np.asfortranarray(np.arange(8.0).reshape(2, 4)), np.zeros((0, 4), ">f4"), [[1, 2, 3, 4]]],
        "ids": np.int64([3, 4]),
        "scalar": np.float32(0.5),
        "name": "é",
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    found = load_arrays(tmp_path / "a.pkl")
    assert set(found) == set(value)
    for boxes, expected in zip(found["boxes"], value["boxes"], strict=True):
        np.testing.assert_array_equal(boxes, expected)
    np.testing.assert_array_equal(found["ids"], [3, 4])
    assert (found["scalar"], found["name"]) == (0.5, "é")


def test_a_pickle_of_python_2(tmp_path):
    """Python 2's pickle of `{"boxes": [uint8 array [1, 4]], "ids": ["7"]}`, whose text is bytes."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I1\nI4\nt"
        b"cnumpy\ndtype\n(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntbI00\nU\x04\x03\x02\xf0\xfftb"
    )
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}(U\x05boxes](" + array + b"eU\x03ids](U\x017eu.")
    proposals = file_proposals(tmp_path / "a.pkl")
    np.testing.assert_array_equal(proposals.rows["7"].corners, [[3, 2, 240, 255]])


class RunsACommand:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_runs_nothing(tmp_path, protocol):
    payload = {"boxes": [RunsACommand(tmp_path / "ran")], "ids": ["7"]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(payload, protocol=protocol))
    with pytest.raises(InputError, match=r"asks for \w+.system; expected Detectron's proposals.*do not trust"):
        file_proposals(tmp_path / "a.pkl")
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert (tmp_path / "ran").exists(), "else the test shows nothing"


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "numpy.load", "numpy.core.multiarray.fromfile"])
def test_other_globals_are_refused(tmp_path, name):
    module, _, function = name.rpartition(".")
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02c" + f"{module}\n{function}\n".encode() + b".")
    with pytest.raises(InputError, match=f"asks for {name}"):
        file_proposals(tmp_path / "a.pkl")


def test_a_csv_header_names_the_columns(tmp_path):
    (tmp_path / "a.csv").write_text("score,y2,x2,y1,x1,note,File\n0.5,5,9,2,3,,7\n\n0.9,35,30,20,10,new,7\n")
    expected = from_order([[10, 20, 30, 35], [3, 2, 9, 5]], 40, 60, "xyxy-edges")
    for order in ("xyxy-edges", "yxyx-edges"):
        proposals = file_proposals(tmp_path / "a.csv", [make_record("7")], order)
        np.testing.assert_allclose(proposals.of(make_record("7")), expected, rtol=1e-6)
    with pytest.raises(InputError, match="expected image, x, y, width, height and optionally score"):
        file_proposals(tmp_path / "a.csv", order="xywh-edges")
    (tmp_path / "a.csv").write_text("image,ymin,xmin,ymax,xmax\n7,0.1,0.2,,0.5\n")
    with pytest.raises(InputError, match=r"a.csv, line 2: found '7,0.1,0.2,,0.5'; expected lines of image"):
        file_proposals(tmp_path / "a.csv")


def test_names_of_images(tmp_path):
    names = {"42": 1, "a/b.jpg": 2, "c.jpg": 3, "d": 4}
    np.savez(tmp_path / "a.npz", **{name: np.full((1, 4), [0, 0, 0.1, value / 8]) for name, value in names.items()})
    proposals = file_proposals(tmp_path / "a.npz")
    for image_id, value in [("COCO_val2014_000000000042", 1), ("000042", 1), ("a/b.jpg", 2), ("c", 3), ("x/d", 4)]:
        assert proposals.of(make_record(image_id))[0, 3] == value / 8
    with pytest.raises(InputError, match=r"a.npz: found no proposals for image 43; expected them under its id"):
        proposals.of(make_record("43"))


def test_fixes_are_counted(tmp_path):
    rows = [[0, 0, 30, 20], [0, 0, 30, 20], [5, 5, 60, 40], [5, 5, 70, 40], [8, 8, 7, 9], [59, 0, 59.5, 39]]
    rows += [[10, 10, 20 + n, 20] for n in range(20)]
    proposals, (found,) = read(tmp_path / "a.npz", writers.npz({"7": rows}), ["7"], order="xyxy-0based")
    # The fourth is equal to the third after clipping; the third exceeds its image by no more than a pixel.
    assert proposals.report.fixes == {
        "proposals without area dropped": 1,
        "proposals clipped to their image": 1,
        "repeated proposals dropped": 2,
    }
    assert len(found) == len(rows) - 3
    assert found.max() <= 1


def test_json_says_which_file_it_was(tmp_path):
    proposals, _ = read(tmp_path / "set.mat", writers.mat_whole_set(IMAGES))
    again = settings_from_json(json.loads(json.dumps(proposals.to_json())))
    assert again == proposals
    with pytest.raises(InputError, match=r"trained on proposals from set.mat, .*; pass `--proposals FILE`"):
        again.of(make_record("7"))
    (tmp_path / "set.mat").write_bytes(writers.mat_whole_set({**IMAGES, "9": IMAGES["7"]}))
    assert file_proposals(tmp_path / "set.mat") != proposals
    with pytest.raises(InputError, match="proposals: found"):
        FileProposals.from_json({"file": "a"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "unknown kind of proposals; expected .mat, .pkl"),
        ("a.npz", None, "a.npz: no such file; expected an .npz file"),
        ("a.mat", b"MATLAB 7.3 MAT-file" + bytes(600), "found a MATLAB file of version 7.3"),
        ("a.mat", b"\x89HDF", "found no MATLAB header"),
        ("a.json", b'{"image_id": 1}', "not a list; expected COCO's results"),
        ("a.json", b'[{"image_id": 1, "bbox": [1, 2, 3]}]', "a.json, entry 0: found"),
        ("a.json", b"[" * 200_000, "invalid JSON"),
        ("a.pkl", pickle.dumps({"boxes": []}), "cannot read the proposals ('indexes')"),
        ("a.pkl", pickle.dumps({"boxes": [[[1, 2, 3]]], "ids": [7]}), "a.pkl, image 7: found int64 [1, 3]"),
        ("a.pkl", pickle.dumps({"boxes": [1, 2], "ids": [7]}), "found 2 arrays of boxes, 1 of scores and 1 different"),
        ("a.csv", b"7,1,2\n", "a.csv, line 1: found '7,1,2'"),
        ("a.csv", b"\xff\xfe", "cannot read the proposals"),
    ],
)
def test_other_content_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        file_proposals(tmp_path / name)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert str(sys.getrecursionlimit()) not in str(error.value)


def test_entries_with_folders_are_told_apart(tmp_path):
    """Two cameras with files of the same names; the entries are paths on another machine."""
    boxes = {f"/data/{camera}/1.png": np.float32([[0, 0, 0.5, side]]) for camera, side in (("a", 0.25), ("b", 0.75))}
    np.savez(tmp_path / "boxes.npz", **boxes)
    records = [
        dataclasses.replace(make_record(str(number), 100, 100, [[0, 0, 0.5, 0.5]]), image_path=f"here/{camera}/1.png")
        for number, camera in enumerate("ba")
    ]
    proposals = file_proposals(tmp_path / "boxes.npz", records)
    assert [proposals.of(record)[0, 3] for record in records] == [0.75, 0.25]
    other = dataclasses.replace(records[0], image_path="here/c/1.png")
    assert proposals.name_of(other) is None
    with pytest.raises(InputError, match="found no proposals for 1 of 3 images"):
        file_proposals(tmp_path / "boxes.npz", [*records, other])
