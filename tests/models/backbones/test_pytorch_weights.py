import collections
import os
import pickle

import numpy as np
import pytest

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.pytorch_weights import read_pytorch_state_dict


class Exploit:
    """Unpickled naively, runs `function(argument)`."""

    def __init__(self, function, argument):
        self.function, self.argument = function, argument

    def __reduce__(self):
        return self.function, (self.argument,)


def small_state():
    rng = np.random.default_rng(0)
    return collections.OrderedDict(
        {
            "conv.weight": rng.normal(size=(4, 3, 2, 5)).astype(np.float32),
            "conv.transposed": rng.normal(size=(2, 5, 3, 4)).astype(np.float32).transpose(3, 2, 0, 1),
            "bn.num_batches_tracked": np.array(17, np.int64),
            "bn.bias": np.float32([1.5, -2.0]),
        }
    )


def assert_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_tensors_come_back_with_values_shapes_and_types(tmp_path, save_state_dict):
    state = small_state()
    tensors = read_pytorch_state_dict(save_state_dict(tmp_path / "state.pth", state))
    assert list(tensors) == list(state)
    for name, array in state.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


@pytest.mark.parametrize("where", ["state", "magic_number"])
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path, save_state_dict, where):
    marker = tmp_path / "was_run"
    exploit = Exploit(os.system, f"touch {marker}")
    path = save_state_dict(tmp_path / "evil.pth", **{"state": small_state(), where: exploit})

    with pytest.raises(InputError) as error:
        read_pytorch_state_dict(path)
    assert_one_line(error, "evil.pth", "system", "do not trust")
    assert not marker.exists()

    pickle.loads(pickle.dumps(exploit))  # Without the protection, the same exploit does run.
    assert marker.exists()


@pytest.mark.parametrize("function", [eval, getattr, collections.Counter, np.frombuffer])
def test_other_globals_are_refused(tmp_path, save_state_dict, function):
    path = save_state_dict(tmp_path / "evil.pth", {"weight": Exploit(function, "1")})
    with pytest.raises(InputError) as error:
        read_pytorch_state_dict(path)
    assert_one_line(error, function.__name__)


def test_every_truncation_is_one_input_error(tmp_path, save_state_dict):
    whole = save_state_dict(tmp_path / "state.pth", small_state()).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as error:
            read_pytorch_state_dict(path)
        assert_one_line(error, "cut.pth")


def test_a_tensor_outside_its_storage_is_refused(tmp_path, save_state_dict):
    beyond = np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (1, 2), (0, 4))
    data = save_state_dict(tmp_path / "state.pth", {"weight": beyond}).read_bytes()
    path = tmp_path / "beyond.pth"
    # BININT1 1, BININT1 2, TUPLE2 is the shape (1, 2) in the pickle.
    assert data.count(b"K\x01K\x02\x86") == 1
    path.write_bytes(data.replace(b"K\x01K\x02\x86", b"K\x01K\x03\x86"))
    with pytest.raises(InputError) as error:
        read_pytorch_state_dict(path)
    assert_one_line(error, "weight", "(1, 3)", "outside its storage of 2 elements")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "damaged"),
        (b"not a pickle at all\n", "damaged"),
        (b"PK\x03\x04rest of a zip", "zip format"),
        (pickle.dumps(1) + pickle.dumps(2) + pickle.dumps({"little_endian": True}), "a header that is not PyTorch's"),
    ],
)
def test_other_files_are_identified(tmp_path, content, found):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_pytorch_state_dict(path)
    assert_one_line(error, "other.pth", found)


def test_a_checkpoint_around_the_state_dict_is_refused(tmp_path, save_state_dict):
    path = save_state_dict(tmp_path / "checkpoint.pth", {"state_dict": small_state(), "epoch": 3})
    with pytest.raises(InputError) as error:
        read_pytorch_state_dict(path)
    assert_one_line(error, "checkpoint.pth", "state_dict()")


def test_an_absent_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError) as error:
        read_pytorch_state_dict(tmp_path / "none.pth")
    assert_one_line(error, "none.pth", "No such file")
