import keras
import numpy as np
import pytest

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.keras_weights import load_keras_weights


def small_network(filters=4, layers=1):
    images = keras.Input((8, 8, 3))
    x = images
    for _ in range(layers):
        x = keras.layers.Conv2D(filters, 3)(x)
    return keras.Model(images, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)), name="small")


def save(network, path):
    network.save_weights(path) if path.name.endswith(".weights.h5") else network.save(path)
    return path


@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5", "w.keras"])
def test_every_kind_of_file_gives_its_weights(tmp_path, name):
    source, target = small_network(), small_network()
    load_keras_weights(target, save(source, tmp_path / name))
    for expected, found in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5", "w.keras"])
@pytest.mark.parametrize("other", [{"filters": 5}, {"layers": 2}])
def test_another_networks_weights_are_one_input_error(tmp_path, name, other):
    path = save(small_network(**other), tmp_path / name)
    with pytest.raises(InputError, match="expected those of small") as error:
        load_keras_weights(small_network(), path)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5", "w.keras"])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.95])
def test_a_truncated_file_is_one_input_error(tmp_path, name, fraction):
    path = save(small_network(), tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(InputError) as error:
        load_keras_weights(small_network(), path)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_an_unknown_suffix_and_an_absent_file_are_input_errors(tmp_path):
    (tmp_path / "w.ckpt").touch()
    with pytest.raises(InputError, match=r"w\.ckpt: found an unknown kind"):
        load_keras_weights(small_network(), tmp_path / "w.ckpt")
    with pytest.raises(InputError, match=r"w\.h5: found no such file"):
        load_keras_weights(small_network(), tmp_path / "w.h5")
