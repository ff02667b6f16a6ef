"""Reading `.caffemodel` files written by protobuf's own encoder, and rejecting all other files."""

import struct
import time
import tracemalloc

import numpy as np
import pytest
from caffe_files import encode, write
from caffe_numpy import random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn import InputError
from tf_fast_rcnn.models.backbones.caffe import caffenet
from tf_fast_rcnn.models.backbones.caffemodel import read_caffemodel


def some_weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "conv1": [rng.normal(size=(4, 3, 5, 2)).astype("f4"), rng.normal(size=4).astype("f4")],
        "fc6_L": [rng.normal(size=(3, 7)).astype("f4")],
        "scale": [np.float32([2.5])],
    }


def assert_reads(path, weights):
    found = read_caffemodel(path)
    assert list(found.layers) == list(weights)
    for name, arrays in weights.items():
        for blob, array in zip(found.blobs(name, [array.shape for array in arrays]), arrays, strict=True):
            assert blob.dtype == np.float32
            np.testing.assert_array_equal(blob, array)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("old_shape", [True, False])
@pytest.mark.parametrize("double", [True, False])
def test_every_way_of_writing_weights(tmp_path, version, packed, old_shape, double):
    weights = some_weights()
    options = {"version": version, "packed": packed, "old_shape": old_shape, "double": double}
    assert_reads(write(tmp_path / "net.caffemodel", weights, **options), weights)


def test_long_runs_of_single_numbers(tmp_path):
    """Longer than the reader's first scan, whose length doubles until it finds the end of a run."""
    weights = {f"fc{n}": [np.arange(n, dtype="f4")] for n in (1023, 1024, 1025, 2048, 5000)}
    assert_reads(write(tmp_path / "net.caffemodel", weights, packed=False), weights)


def field(number, content):
    """A length-delimited field, encoded by hand."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def layer_of(blob, name=b"conv1"):
    return field(100, field(1, name) + field(7, blob))


def test_numbers_in_parts_are_joined(tmp_path):
    """Packed and single numbers in one field, as protobuf allows; here with the shape in between."""
    blob = field(5, struct.pack("<2f", 1, 2)) + field(7, field(1, varint(2) + varint(2)))
    blob += b"\x2d" + struct.pack("<f", 3) + field(5, struct.pack("<f", 4))
    (tmp_path / "net.caffemodel").write_bytes(layer_of(blob))
    found = read_caffemodel(tmp_path / "net.caffemodel").layers["conv1"][0]
    np.testing.assert_array_equal(found, [[1, 2], [3, 4]])


def test_the_last_of_two_layers_with_one_name_counts(tmp_path):
    content = encode({"conv1": [np.float32([1, 2])]}) + encode({"conv1": [np.float32([3])]})
    (tmp_path / "net.caffemodel").write_bytes(content)
    np.testing.assert_array_equal(read_caffemodel(tmp_path / "net.caffemodel").layers["conv1"][0], [3])


def refusal(path):
    with pytest.raises(InputError) as error:
        read_caffemodel(path)
    message = str(error.value)
    assert message.startswith(f"{path}: found ")
    assert "expected" in message
    assert "\n" not in message
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "no bytes"),
        (b"name: 'CaffeNet'\nlayer { name: 'data' }", "bytes of another format at its start"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "at its start"),
        (b"<!DOCTYPE html><html></html>", "at its start"),
        (field(1, b"a name"), "no layer with weights"),
        (field(100, field(1, b"data")), "no layer with weights"),
        (b"\x00\x01", "bytes of another format at its start"),
        (b"\xff" * 12, "bytes of another format at its start"),
        (layer_of(field(5, b"123")), "3 bytes for numbers of 4 bytes in layer 'conv1'"),
        (
            layer_of(field(5, bytes(8)) + field(7, field(1, b"\x03"))),
            r"2 numbers for a shape of \[3\] in layer 'conv1'",
        ),
        (layer_of(field(5, bytes(8))), r"2 numbers for a shape of \[0, 0, 0, 0\] in layer 'conv1'"),
        (layer_of(field(7, field(1, varint(2**64 - 1)))), r"a shape of \[18446744073709551615\] in layer 'conv1'"),
        (layer_of(field(7, field(1, b"\x01" * 33)) + field(5, bytes(4))), "33 axes in layer 'conv1'"),
        (layer_of(b"\x2d123"), "in layer 'conv1'"),
        (field(100, b"\x00" * 3_000_000), "another format"),
        (b"\x50\x01" * 1_000_000, "more than 200000 tags and lengths"),
    ],
)
def test_files_that_are_not_a_caffemodel(tmp_path, content, found):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(InputError, match=found):
        read_caffemodel(path)
    refusal(path)


def test_absent_files_and_folders(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.caffemodel")
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_cut_anywhere_is_refused_or_lacks_layers(tmp_path, version):
    """A file truncated between two layers is a valid shorter network; loading it into a network detects this."""
    weights = some_weights()
    content, path = encode(weights, version=version), tmp_path / "net.caffemodel"
    whole = 0
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            found = read_caffemodel(path)
        except InputError:
            refusal(path)
        else:
            whole += 1
            assert len(found.layers) <= len(weights)
            for name, blobs in found.layers.items():
                np.testing.assert_array_equal(np.ravel(blobs[0]), np.ravel(weights[name][0]))
    assert 3 <= whole <= 12


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_bytes_end_in_one_line_or_in_arrays(tmp_path_factory, data):
    content = bytearray(
        encode(some_weights(), version=data.draw(st.sampled_from([1, 2])), packed=data.draw(st.booleans()))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "net.caffemodel"
    path.write_bytes(content)
    read_or_refuse(path)


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=200))
def test_any_bytes_end_in_one_line_or_in_arrays(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "net.caffemodel"
    path.write_bytes(content)
    read_or_refuse(path)


def read_or_refuse(path):
    try:
        layers = read_caffemodel(path).layers
    except InputError:
        refusal(path)
    else:
        assert sum(blob.size for blobs in layers.values() for blob in blobs) <= path.stat().st_size


@pytest.mark.parametrize("tags", [b"\x2d", b"\x2d\x35"])
def test_hostile_files_cost_neither_time_nor_memory(tmp_path, tags):
    """30 MB of single numbers, with one tag or with two alternating tags."""
    numbers = b"".join(bytes([tag]) + bytes(4) for tag in tags)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(layer_of(numbers * (30_000_000 // len(numbers))))
    tracemalloc.start()
    started = time.process_time()
    refusal(path)
    assert time.process_time() - started < 60
    assert tracemalloc.get_traced_memory()[1] < 300e6
    tracemalloc.stop()


def test_packed_weights_are_not_copied(tmp_path):
    path = tmp_path / "net.caffemodel"
    blob = field(7, field(1, varint(4000) + varint(5000))) + field(5, np.ones(20_000_000, "f4").tobytes())
    path.write_bytes(layer_of(blob))
    tracemalloc.start()
    found = read_caffemodel(path).layers["conv1"][0]
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert found.shape == (4000, 5000)
    assert found[-1, -1] == 1


# --- another network's file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("conv3"), r"found no layer conv3 among conv1, conv2, conv4, .*fc8"),
        (
            lambda weights: weights.update(conv2=[weights["conv2"][0][:, :2], weights["conv2"][1]]),
            r"found layer conv2 with shapes \[16, 2, 5, 5\] and \[16\]; expected \[16, 3, 5, 5\] and \[16\]",
        ),
        (lambda weights: weights["conv5"].pop(), r"found layer conv5 with shapes \[16, 12, 3, 3\]; expected"),
        (lambda weights: weights["fc7"][0].__setitem__((0, 0), np.nan), r"not finite in layer fc7"),
        (
            lambda weights: weights.update(fc8=[np.ones((5, 256)), np.ones(5)]),
            r"found layer fc8 with shapes \[5, 256\]",
        ),
    ],
)
def test_another_networks_file_names_the_layer(tmp_path, change, message):
    weights = random_weights("caffenet")
    change(weights)
    path = write(tmp_path / "other.caffemodel", weights)
    with pytest.raises(InputError, match=message) as error:
        caffenet(path, width=1 / 16)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_file_without_the_classifier_gives_all_other_weights(tmp_path):
    weights = random_weights("caffenet")
    del weights["fc8"]
    network = caffenet(write(tmp_path / "detector.caffemodel", weights), width=1 / 16)
    np.testing.assert_array_equal(network.get_layer("fc7").kernel, weights["fc7"][0].T)
